package hook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/secret"
)

var key = []byte("0123456789abcdef0123456789abcdef")

// grants write down what they are told, but for what is older than a ticket's last.
type grants struct {
	store store.Store
	told  []string
	last  time.Time
}

func (g *grants) tell(ctx context.Context, what string, ref *typesv1.GrantReference, at time.Time, more []store.Op) error {
	if at.Before(g.last) {
		return fmt.Errorf("told: %w", fault.New(codes.Aborted, "something later is known"))
	}
	g.last = at
	if _, err := g.store.Commit(ctx, more...); err != nil {
		return err
	}
	g.told = append(g.told, what+" "+ref.GetHook()+" "+ref.GetRef())
	return nil
}

func (g *grants) Close(ctx context.Context, ref *typesv1.GrantReference, at time.Time, _ audit.Entry, more ...store.Op) error {
	return g.tell(ctx, "closed", ref, at, more)
}

func (g *grants) Reopen(ctx context.Context, ref *typesv1.GrantReference, at time.Time, _ audit.Entry, more ...store.Op) error {
	return g.tell(ctx, "reopened", ref, at, more)
}

func TestHook(t *testing.T) {
	now := time.Now()
	g := &grants{store: storetest.NewMemory()}
	s := New(Config{
		Hooks: map[string]string{"jira": "jira-hook", "ci": "ci-hook"},
		Secret: func(_ context.Context, name string) (map[string]secret.Bytes, error) {
			return map[string]secret.Bytes{"value": secret.New(append([]byte(name), key...))}, nil
		},
		Grants: g, Store: g.store, Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler),
	})
	const body = `{"id":"m-1","event":"closed","ref":"OPS-1"}`
	of := func(hook string) []byte { return append([]byte(hook+"-hook"), key...) }
	send := func(hook, header, body string) int {
		r := httptest.NewRequest(http.MethodPost, Path+hook, strings.NewReader(body))
		r.Header.Set(Header, header)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Code
	}
	for name, c := range map[string]struct {
		hook, header, body string
		want               int
	}{
		"without a signature":        {"jira", "", body, 401},
		"by another key":             {"jira", Sign(key, now, []byte(body)), body, 401},
		"by the key of another hook": {"jira", Sign(of("ci"), now, []byte(body)), body, 401},
		"another body":               {"jira", Sign(of("jira"), now, []byte(body)), strings.Replace(body, "OPS-1", "OPS-2", 1), 401},
		"another time":               {"jira", strings.Replace(Sign(of("jira"), now, []byte(body)), "t=", "t=1", 1), body, 401},
		"two times":                  {"jira", "t=1," + Sign(of("jira"), now, []byte(body)), body, 401},
		"five minutes late":          {"jira", Sign(of("jira"), now.Add(-5*time.Minute), []byte(body)), body, 401},
		"five minutes early":         {"jira", Sign(of("jira"), now.Add(6*time.Minute), []byte(body)), body, 401},
		"an unknown hook":            {"mail", Sign(of("mail"), now, []byte(body)), body, 401},
		"no hook":                    {"", Sign(of(""), now, []byte(body)), body, 401},
		"no JSON":                    {"jira", Sign(of("jira"), now, []byte("closed")), "closed", 400},
		"an unknown event":           {"jira", Sign(of("jira"), now, []byte(`{"id":"m","event":"gone","ref":"OPS-1"}`)), `{"id":"m","event":"gone","ref":"OPS-1"}`, 400},
		"no reference":               {"jira", Sign(of("jira"), now, []byte(`{"id":"m","event":"closed"}`)), `{"id":"m","event":"closed"}`, 400},
		"too long":                   {"jira", "", strings.Repeat("x", maxBodyBytes+1), 413},
		"two objects":                {"jira", Sign(of("jira"), now, []byte(body+body)), body + body, 400},
		"a field that nobody knows":  {"jira", Sign(of("jira"), now, []byte(`{"id":"m","event":"closed","ref":"OPS-1","all":true}`)), `{"id":"m","event":"closed","ref":"OPS-1","all":true}`, 400},
	} {
		if got := send(c.hook, c.header, c.body); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if len(g.told) != 0 {
		t.Fatalf("told %v", g.told)
	}
	old := Sign([]byte("an older key, which still is known"), now, []byte(body))
	good := Sign(of("jira"), now.Add(-60*time.Second), []byte(body))
	for _, c := range []struct {
		header string
		want   int
	}{
		{good + ",v1=" + old[strings.Index(old, "v1=")+3:], http.StatusNoContent}, // one of several will do; a minute of skew too
		{good, http.StatusConflict},                                // replayed
		{Sign(of("jira"), now, []byte(body)), http.StatusConflict}, // signed anew: the id was taken
	} {
		if got := send("jira", c.header, body); got != c.want {
			t.Errorf("%d, want %d", got, c.want)
		}
	}
	again := `{"id":"m-2","event":"reopened","ref":"OPS-1"}`
	if got := send("jira", Sign(of("jira"), now, []byte(again)), again); got != http.StatusNoContent {
		t.Errorf("reopened: %d", got)
	}
	for body, want := range map[string]int{
		`{"id":"m-3","event":"closed","ref":"OPS-1","time":"` + now.Add(-time.Hour).Format(time.RFC3339) + `"}`:    http.StatusConflict, // an hour on the way, and signed anew
		`{"id":"m-3","event":"closed","ref":"OPS-1","time":"` + now.Add(6*time.Minute).Format(time.RFC3339) + `"}`: http.StatusBadRequest,
	} {
		if got := send("jira", Sign(of("jira"), now, []byte(body)), body); got != want {
			t.Errorf("%s: %d, want %d", body, got, want)
		}
	}
	if !g.last.Equal(time.Unix(now.Unix(), 0)) {
		t.Errorf("came about at %s, and not when it was signed", g.last)
	}
	if strings.Join(g.told, ", ") != "closed jira OPS-1, reopened jira OPS-1" {
		t.Errorf("told %v", g.told)
	}
	now = now.Add(seenFor + time.Second)
	if err := Sweep(t.Context(), g.store, seenKind, now); err != nil {
		t.Fatal(err)
	}
	if left, _, err := g.store.List(t.Context(), seenKind, "", 0); err != nil || len(left) != 0 {
		t.Errorf("kept %v, %v", left, err)
	}
	r := httptest.NewRequest(http.MethodGet, Path+"jira", nil)
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, r); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", w.Code)
	}
}

// TestLongHeader: strangers do not have long headers taken apart.
func TestLongHeader(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	good := Sign(key, now, nil)
	for size, want := range map[int]error{maxHeaderBytes: nil, maxHeaderBytes + 1: errForged} {
		header := good + ",x=" + strings.Repeat("x", size-len(good)-len(",x="))
		if _, err := Verify(key, header, now, nil); !errors.Is(err, want) {
			t.Errorf("a header of %d bytes: %v, want %v", len(header), err, want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	now := time.Unix(1_700_000_000, 0)
	f.Add(Sign(key, now, []byte("x")), []byte("x"))
	f.Add("t=,v1=", []byte(""))
	f.Add("t=1700000000,v1=00,v1=zz,v2=", []byte("x"))
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		if _, err := Verify(key, header, now, body); err == nil && !strings.Contains(header, Sign(key, now, body)[len("t=1700000000,v1="):]) && !strings.Contains(header, "t=1700000000") {
			// Some other second within the tolerance would need its own signature.
			t.Errorf("%q passes for %q", header, body)
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"id":"m","event":"closed","ref":"OPS-1"}`))
	f.Add([]byte(`{"id":1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if m, err := read(body, time.Unix(0, 0)); err == nil && (m.ID == "" || m.Ref == "" || m.Event != "closed" && m.Event != "reopened") {
			t.Errorf("%s is read as %+v", body, m)
		}
	})
}
