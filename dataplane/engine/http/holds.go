package http

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
)

// noticeTime is for how long a client that comes back waits to be told whom it waits for.
const noticeTime = 5 * time.Second

// heldError means that the client is told to come back.
type heldError struct{ notice string }

func (e *heldError) Error() string { return e.notice }

// comesBack reports whether a client would rather ask again than wait: it says so (RFC
// 7240), or is a browser.
func comesBack(r *http.Request) bool {
	var prefer []string
	for _, v := range r.Header.Values("Prefer") {
		for p := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(p), "=")
			prefer = append(prefer, strings.ToLower(name))
		}
	}
	switch {
	case slices.Contains(prefer, "respond-async"):
		return true
	case slices.Contains(prefer, "wait"):
		return false
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// await waits for people, or has the session wait for them while the client comes back.
func (x *exchange) await(ctx context.Context, args engine.Args) error {
	adm := x.adm
	if !comesBack(x.r) {
		return x.v.Await(ctx, adm, args, func(string) {})
	}
	wait := x.v.WaitFor(x.waitKey(), func(ctx context.Context, progress func(string)) error {
		return x.v.Await(ctx, adm, args, progress)
	})
	timer := time.NewTimer(noticeTime)
	defer timer.Stop()
	select {
	case <-wait.Done():
		x.v.Settle(x.waitKey())
		return wait.Err()
	case <-wait.Told():
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return &heldError{wait.Notice()}
}

// waitKey tells what people are asked about from everything else of the session.
func (x *exchange) waitKey() string {
	return fmt.Sprintf("%s %x", x.adm.Text, sha256.Sum256(x.body))
}
