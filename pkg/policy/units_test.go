package policy

import (
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "1h30m": 90 * time.Minute, "90m": 90 * time.Minute, "250ms": 250 * time.Millisecond,
		"7d": 7 * 24 * time.Hour, "1d2h3m4s5ms": 26*time.Hour + 3*time.Minute + 4*time.Second + 5*time.Millisecond, "3650d": maxDuration,
	} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "30", "s", "1.5h", "-1h", "+1h", " 1h", "1h ", "1 h", "1H", "0s", "01s", "1s1h", "1h1h", "1m1ms1s", "1y", "1us", "3651d", "999999999999999999h", "3650d1ms", "∞"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("%q is %v, want an error", s, got)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for s, want := range map[string]int64{"5MB": 5_000_000, "5MiB": 5 << 20, "1": 1, "4096": 4096, "10B": 10, "3kB": 3000, "2KiB": 2048, "1TB": 1e12, "1TiB": 1 << 40, "7GB": 7e9, "7GiB": 7 << 30} {
		if got, err := parseBytes(s); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "MB", "5 MB", "5mb", "5KB", "1.5MB", "-1", "0", "0MB", "05MB", "5MBB", "999999999999999TiB", "1e3"} {
		if got, err := parseBytes(s); err == nil {
			t.Errorf("%q is %v, want an error", s, got)
		}
	}
}

func TestTimeout(t *testing.T) {
	for s, want := range map[string]time.Duration{"100": 100 * time.Millisecond, "10s": 10 * time.Second, "10 s": 10 * time.Second, "1min": time.Minute, "1h": time.Hour, "500us": 500 * time.Microsecond, "-5": -5 * time.Millisecond} {
		if got, ok := timeout(s); !ok || got != want {
			t.Errorf("%q is %v, %v; want %v", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "s", "1.5s", "DEFAULT", "10S", "1 fortnight", "99999999999"} {
		if got, ok := timeout(s); ok {
			t.Errorf("%q is %v, want no duration", s, got)
		}
	}
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "::1": true, "127.0.0.1": true, "127.9.8.7": true,
		"127.evil.example": false, "127.0.0.1.evil": false, "127.0.0": false, "127.0.0.01": false, "128.0.0.1": false, "": false, "localhost.evil": false,
	} {
		if got := loopback(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}
