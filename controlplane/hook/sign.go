package hook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// Header carries the signature of a webhook, in and out.
	Header = "Postern-Signature"
	// tolerance is by how much clocks may differ; from then on a message is refused.
	tolerance = 5 * time.Minute

	maxHeaderBytes = 512
	// MinKeyBytes is the shortest key that signs.
	MinKeyBytes = 16
)

// Sign is the header of a body that is sent at an instant: "t=SECONDS,v1=HEX", where v1
// is HMAC-SHA256 over the seconds, a dot and the body.
func Sign(key []byte, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac(key, t, body))
}

func mac(key []byte, t string, body []byte) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(t + "."))
	_, _ = h.Write(body)
	return h.Sum(nil)
}

var errForged = errors.New("the signature is not good")

// Verify says when a body was signed that came with this header, or why it does not count:
// it is forged, or older or newer than clocks may differ by. Any one of several v1 will do,
// so that keys can be changed.
func Verify(key []byte, header string, now time.Time, body []byte) (signed time.Time, err error) {
	if len(key) < MinKeyBytes || len(header) > maxHeaderBytes {
		return signed, errForged
	}
	var t string
	var sums []string
	for _, part := range strings.Split(header, ",") {
		switch name, v, _ := strings.Cut(strings.TrimSpace(part), "="); name {
		case "t":
			if t != "" {
				return signed, errForged
			}
			t = v
		case "v1":
			sums = append(sums, v)
		}
	}
	seconds, err := strconv.ParseInt(t, 10, 64)
	if err != nil || strconv.FormatInt(seconds, 10) != t {
		return signed, errForged
	}
	want, good := mac(key, t, body), false
	for _, s := range sums {
		sum, err := hex.DecodeString(s)
		good = good || err == nil && hmac.Equal(sum, want)
	}
	if !good {
		return signed, errForged
	}
	signed = time.Unix(seconds, 0)
	return signed, InTime(signed, now)
}

// InTime says why something that was signed at an instant does not count now.
func InTime(at, now time.Time) error {
	skew := now.Sub(at)
	switch {
	case skew >= tolerance:
		return fmt.Errorf("it was signed %s ago, and at most %s are let pass: it is late, or a clock is wrong", skew.Round(time.Second), tolerance)
	case skew <= -tolerance:
		return fmt.Errorf("it was signed %s ahead of the clock here, and at most %s are let pass", (-skew).Round(time.Second), tolerance)
	}
	return nil
}
