package policy

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// maxDuration is the longest duration that may be written.
const maxDuration = 10 * 365 * 24 * time.Hour

type unit struct {
	name string
	size int64
}

// Each list is in descending order: a duration names units in this order, each once.
var (
	durationUnits = []unit{
		{"d", int64(24 * time.Hour)}, {"h", int64(time.Hour)}, {"m", int64(time.Minute)},
		{"s", int64(time.Second)}, {"ms", int64(time.Millisecond)},
	}
	byteUnits = []unit{
		{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6},
		{"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1},
	}
)

// ParseDuration reads a positive duration such as "30s" or "1h30m": whole numbers with
// the units d, h, m, s and ms, the largest first.
func ParseDuration(s string) (time.Duration, error) {
	var sum int64
	rest, units := s, durationUnits
	for rest != "" {
		n, after, err := number(rest)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration such as 30s or 1h30m: %w", s, err)
		}
		i := prefix(after, units)
		if i < 0 {
			return 0, fmt.Errorf("%q is not a duration such as 30s or 1h30m: units are d, h, m, s and ms, the largest first", s)
		}
		if n > int64(maxDuration)/units[i].size {
			return 0, fmt.Errorf("%q is longer than ten years", s)
		}
		sum += n * units[i].size
		rest, units = after[len(units[i].name):], units[i+1:]
	}
	switch {
	case sum <= 0:
		return 0, fmt.Errorf("%q is not a positive duration such as 30s or 1h30m", s)
	case sum > int64(maxDuration):
		return 0, fmt.Errorf("%q is longer than ten years", s)
	}
	return time.Duration(sum), nil
}

// parseBytes reads a positive number of bytes such as "5MB", "512KiB" or "4096".
func parseBytes(s string) (int64, error) {
	n, rest, err := number(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size such as 5MB or 512KiB: %w", s, err)
	}
	size := int64(1)
	if rest != "" {
		i := prefix(rest, byteUnits)
		if i < 0 || byteUnits[i].name != rest {
			return 0, fmt.Errorf("%q is not a size such as 5MB or 512KiB: units are B, kB, MB, GB, TB, KiB, MiB, GiB and TiB", s)
		}
		size = byteUnits[i].size
	}
	switch {
	case n == 0:
		return 0, fmt.Errorf("%q is not a positive size", s)
	case n > math.MaxInt64/size:
		return 0, fmt.Errorf("%q is too large", s)
	}
	return n * size, nil
}

// number reads the whole number that s begins with, written without leading zeros.
func number(s string) (n int64, rest string, err error) {
	i := 0
	for ; i < len(s) && '0' <= s[i] && s[i] <= '9'; i++ {
		if i == 15 {
			return 0, "", errors.New("the number is too large")
		}
		n = n*10 + int64(s[i]-'0')
	}
	switch {
	case i == 0:
		return 0, "", errors.New("it has no whole number")
	case i > 1 && s[0] == '0':
		return 0, "", errors.New("the number begins with 0")
	}
	return n, s[i:], nil
}

// prefix returns the unit with the longest name that s begins with, or -1.
func prefix(s string, units []unit) int {
	best := -1
	for i, u := range units {
		if len(s) >= len(u.name) && s[:len(u.name)] == u.name && (best < 0 || len(u.name) > len(units[best].name)) {
			best = i
		}
	}
	return best
}
