package http

import (
	"context"
	"math"
	"strconv"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

// errOverdue is why a call of gRPC ends whose client does not wait for it any more.
var errOverdue = &postern.Refusal{Code: postern.CodeCancelled, Reason: "the deadline that the client has set has passed", Cause: context.DeadlineExceeded}

// overdue reports whether the deadline has passed that the client of gRPC has set. A
// server that keeps to it ends the stream, which is no failure to reach it.
func (x *exchange) overdue() bool {
	d, ok := grpcTimeout(x.r.Header.Get("Grpc-Timeout"))
	return ok && x.facts.GRPC() && time.Since(x.began) >= d
}

// grpcTimeout reads a timeout as gRPC writes it: up to eight digits and a unit.
func grpcTimeout(s string) (time.Duration, bool) {
	units := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	unit, ok := units[s[len(s)-1]]
	if err != nil || !ok {
		return 0, false
	}
	return time.Duration(min(n, uint64(math.MaxInt64/unit))) * unit, true
}
