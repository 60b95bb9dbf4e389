package http

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/test/wait"
)

// TestHeldComesBack: a client that would not wait is told whom it waits for, and the same
// request goes through once people have said yes, once; or is refused.
func TestHeldComesBack(t *testing.T) {
	h := newHouse(t)
	said := make(chan error)
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(string, any) postern.Decision {
			return postern.Decision{Verdict: postern.VerdictHold, Level: postern.LevelResult}
		}
		p.Await = func(ctx context.Context, progress func(string)) error {
			progress("waiting for leads to approve: https://postern.example/h-1")
			select {
			case err := <-said:
				return err
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	ask := func(headers ...string) (int, string, string) {
		resp, text := h.ask(t, "POST /lines?n=1", "body", append(headers, "Accept: text/html")...)
		return resp.StatusCode, resp.Header.Get("Postern-Code"), text
	}
	const async = "Prefer: respond-async"
	until := func(want int) string {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for {
			status, _, text := ask(async)
			if status == want {
				return text
			}
			if status != http.StatusAccepted || time.Now().After(deadline) {
				t.Fatalf("%d: %s", status, text)
			}
			time.Sleep(time.Millisecond)
		}
	}
	for range 2 {
		if status, code, text := ask(async); status != http.StatusAccepted || code != "held" || !strings.Contains(text, "https://postern.example/h-1") {
			t.Fatalf("%d %s %s", status, code, text)
		}
	}
	if _, _, text := ask(); !strings.Contains(text, "<h1>Waiting for approval</h1>") {
		t.Errorf("a browser is shown %s", text)
	}
	if h.door.Last().Sent("POST /lines") {
		t.Fatal("it was sent before the yes")
	}
	said <- nil
	until(http.StatusOK)
	if status, _, _ := ask(async); status != http.StatusAccepted { // once
		t.Fatalf("again: %d", status)
	}
	said <- &postern.Refusal{Code: postern.CodeCancelled, Reason: "bob said no"}
	if text := until(http.StatusForbidden); !strings.Contains(text, "bob said no") {
		t.Errorf("%s", text)
	}
	h.door.Last().Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "enough"})
	_ = h.door.Last().Closed()
}

// TestHeldThatNobodyComesBackFor: what people have answered, and whose client has not asked
// again, keeps nobody from being asked about.
func TestHeldThatNobodyComesBackFor(t *testing.T) {
	h := newHouse(t)
	said := make(chan struct{})
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(string, any) postern.Decision {
			return postern.Decision{Verdict: postern.VerdictHold, Level: postern.LevelResult}
		}
		p.Await = func(ctx context.Context, progress func(string)) error {
			progress("waiting for leads")
			select {
			case <-said:
				return &postern.Refusal{Code: postern.CodeCancelled, Reason: "bob said no"}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	held := func(n int) int {
		resp, _ := h.ask(t, fmt.Sprintf("POST /lines?n=%d", n), "", "Prefer: respond-async")
		return resp.StatusCode
	}
	n := 0
	for ; n < 1000; n++ {
		if status := held(n); status == http.StatusTooManyRequests {
			break
		} else if status != http.StatusAccepted {
			t.Fatalf("request %d: %d", n, status)
		}
	}
	if n == 1000 {
		t.Fatal("there is no bound on what is waited for")
	}
	close(said)
	wait.For(t, "room for another", func() bool { return held(n) != http.StatusTooManyRequests })
}

// TestHeldWithHeaders: people are asked about all that goes on of a request and may change what
// it does, and nobody takes what is different in that for the same.
func TestHeldWithHeaders(t *testing.T) {
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(string, any) postern.Decision {
			return postern.Decision{Verdict: postern.VerdictHold, Level: postern.LevelResult}
		}
	})
	held := func(body string, headers ...string) []string {
		t.Helper()
		if resp, text := h.ask(t, "POST /lines?n=1", body, append(headers, "Prefer: wait")...); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status, text)
		}
		all := h.door.Last().Executions()
		return all[len(all)-1].Params
	}
	const title = "with the headers:"
	got := held("body", "X-Tenant: a", "X-Tenant: b", "Content-Type: text/plain", "Cookie: app=s3cr3t", "Prefer: Respond-Async, wait=5,resolution=ignore", "Traceparent: 00-1", "Sec-Fetch-Site: none", "X-Forwarded-For: 1.1.1.1")
	if len(got) < 2 || got[1] != "body" || !regexp.MustCompile(`^`+title+`\ncontent-type: text/plain\ncookie: \(redacted\) [0-9a-f]{16}\nprefer: resolution=ignore\nx-tenant: a\nx-tenant: b$`).MatchString(got[0]) {
		t.Errorf("people are asked about %q", got)
	}
	first := func(body string, headers ...string) string {
		t.Helper()
		return fmt.Sprintf("%q", held(body, headers...)[:2])
	}
	before := first("body", "Content-Type: text/plain", "Cookie: a=b", "Date: now", "User-Agent: a")
	if again := first("body", "Content-Type: text/plain", "Cookie: a=b", "Date: later", "User-Agent: b"); again != before {
		t.Errorf("the same is asked as %s, and as %s", before, again)
	}
	for _, other := range [][]string{{"Content-Type: text/html", "Cookie: a=b"}, {"Content-Type: text/plain", "Cookie: a=c"}, {"Content-Type: text/plain"}, {"Content-Type: text/plain", "Cookie: a=b", "If-Match: x"}} {
		if first("body", other...) == before {
			t.Errorf("%q passes for what people were asked", other)
		}
	}
	if got := held("body", "X-Tenant: B\xfcro"); got[0] != title+"\nx-tenant (not UTF-8): \"B\\xfcro\"" {
		t.Errorf("what is no text is asked as %q", got)
	}
	if got := held(title + "\nx-tenant: a"); got[0] != title || got[1] != title+"\nx-tenant: a" {
		t.Errorf("a body passes for headers: %q", got)
	}
}
