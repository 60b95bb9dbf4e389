package http

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
)

const (
	// noticeTime is for how long a client that comes back waits to be told whom it waits for.
	noticeTime = 5 * time.Second
	// callTime is for how long a call of a tool waits for people: less than the minute after
	// which clients of MCP give up.
	callTime = 45 * time.Second
)

// heldError means that the client is told to come back.
type heldError struct{ notice string }

func (e *heldError) Error() string { return e.notice }

// comesBack reports whether a client would rather ask again than wait: it says so (RFC
// 7240), or is a browser.
func comesBack(r *http.Request) bool {
	switch {
	case prefers(r, "respond-async"):
		return true
	case prefers(r, "wait"):
		return false
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// prefers reports whether a client states a preference (RFC 7240).
func prefers(r *http.Request, preference string) bool {
	for _, v := range r.Header.Values("Prefer") {
		for p := range strings.SplitSeq(v, ",") {
			if name, _, _ := strings.Cut(strings.TrimSpace(p), "="); strings.EqualFold(name, preference) {
				return true
			}
		}
	}
	return false
}

// await waits for people, or has the session wait for them while the client comes back.
func (x *exchange) await(ctx context.Context, adm *engine.Admission, args engine.Args) error {
	patience, comesBack := noticeTime, comesBack(x.r)
	if x.talk != nil && !comesBack && !prefers(x.r, "wait") {
		patience, comesBack = callTime, true
	}
	if !comesBack {
		return x.v.Await(ctx, adm, args, func(string) {})
	}
	key := waitKey(adm, args)
	wait := x.v.WaitFor(key, func(ctx context.Context, progress func(string)) error {
		return x.v.Await(ctx, adm, args, progress)
	})
	timer := time.NewTimer(patience)
	defer timer.Stop()
	told := wait.Told()
	if patience == callTime {
		told = nil // a program that calls a tool is told as late as it can bear
	}
	select {
	case <-wait.Done():
		x.v.Settle(key)
		return wait.Err()
	case <-told:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return &heldError{wait.Notice()}
}

// waitKey tells what people are asked about from everything else of the session.
func waitKey(adm *engine.Admission, args engine.Args) string {
	h := sha256.New()
	for _, v := range args.Values {
		_, _ = fmt.Fprintf(h, "%d ", len(v))
		h.Write(v)
	}
	return fmt.Sprintf("%s %x", adm.Text, h.Sum(nil))
}
