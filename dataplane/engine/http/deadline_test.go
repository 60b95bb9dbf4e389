package http

import (
	"testing"
	"time"
)

func TestGRPCTimeout(t *testing.T) {
	for in, want := range map[string]time.Duration{"1S": time.Second, "1m": time.Millisecond, "99999999H": 2562047 * time.Hour, "0n": 0, "20u": 20 * time.Microsecond, "3M": 3 * time.Minute} {
		if got, ok := grpcTimeout(in); !ok || got != want {
			t.Errorf("%q is %v, %t", in, got, ok)
		}
	}
	for _, in := range []string{"", "1", "S", "-1S", "1s", "999999999S", "1 S", "+1S"} {
		if got, ok := grpcTimeout(in); ok {
			t.Errorf("%q is %v", in, got)
		}
	}
}
