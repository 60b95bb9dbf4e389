package http

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/postern"
)

// startLoops runs one loop, or none where there are none.
func startLoops(t testing.TB) *pump.Loops {
	t.Helper()
	loops, err := pump.NewLoops(1)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	} else if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- loops.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return loops
}

// bareDoor opens sessions whose connections to the resource a loop can take.
type bareDoor struct{ *enginetest.Door }

func (d bareDoor) Open(ctx context.Context, c engine.Claim) (engine.Session, error) {
	s, err := d.Door.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return bareSession{s}, nil
}

type bareSession struct{ engine.Session }

func (s bareSession) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", net.JoinHostPort(s.Terms().Host, strconv.Itoa(s.Terms().Port)))
}

// Lent is true: a Door lends at once.
func (s bareSession) Lent(engine.Purpose) bool { return true }

// newRide is a house whose requests are carried by one loop, before a resource without TLS.
func newRide(t *testing.T, h http.Handler) *house {
	t.Helper()
	loops := startLoops(t)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	host, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	n, _ := strconv.Atoi(port)
	terms := engine.Terms{
		Task: "t", Resource: "target", Subject: "alice", Host: host, Port: n,
		HTTP: engine.HTTPTerms{Authority: "orders.internal", Auth: "bearer"}, TLS: engine.TLSTerms{Mode: "disable"},
	}
	door := enginetest.NewDoor(t, terms, credential)
	return &house{door: door, addr: enginetest.Serve(t, New(Config{AllowPlaintext: true, Loops: loops}), bareDoor{door})}
}

// rider is a connection that asks the same again.
type rider struct {
	net.Conn
	r *bufio.Reader
}

func (h *house) rider(t *testing.T) *rider {
	t.Helper()
	c := dialRaw(t, h.addr)
	_ = c.SetDeadline(time.Now().Add(3 * time.Minute))
	return &rider{c, bufio.NewReader(c)}
}

func (r *rider) write(path string) error {
	_, err := io.WriteString(r, "GET "+path+" HTTP/1.1\r\nHost: x\r\nPostern-Task: t.target\r\nAuthorization: Bearer "+enginetest.Token+"\r\n\r\n")
	return err
}

func (r *rider) ask(path string) (string, error) {
	if err := r.write(path); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(r.r, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s", resp.Status, b)
	}
	return string(b), err
}

// crowd has so many requests wait at /wait, of which the resource tells, that loops take
// who asks beside them.
func (h *house) crowd(t testing.TB, waiting <-chan struct{}) {
	t.Helper()
	for range 4 {
		c, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := (&rider{Conn: c}).write("/wait"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-waiting:
		case <-time.After(time.Minute):
			t.Fatal("the resource is not asked")
		}
	}
}

// TestRides: requests that repeat themselves are answered, whatever becomes of others that
// the same loop carries.
func TestRides(t *testing.T) {
	huge := make([]byte, 16<<20) // more than the sockets' buffers
	_, _ = rand.Read(huge)
	large := huge[:1<<20]
	left, held := make(chan struct{}, 64), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/small", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "small") })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(large) })
	mux.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(huge) })
	mux.HandleFunc("/last", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, "last")
	})
	waiting := make(chan struct{}, 4)
	mux.HandleFunc("/wait", func(_ http.ResponseWriter, r *http.Request) {
		waiting <- struct{}{}
		select {
		case <-held:
		case <-r.Context().Done():
		}
	})
	slow := false
	var mu sync.Mutex
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		wait := slow
		mu.Unlock()
		if wait {
			select {
			case <-held:
			case <-r.Context().Done():
				left <- struct{}{}
			}
		}
		_, _ = io.WriteString(w, "slow")
	})
	h := newRide(t, mux)
	t.Cleanup(func() { close(held) })
	want := map[string]string{"/small": "small", "/large": string(large), "/huge": string(huge), "/last": "last", "/slow": "slow"}
	again := func(t *testing.T, r *rider, path string, n int) {
		t.Helper()
		for range n {
			if got, err := r.ask(path); err != nil || got != want[path] {
				t.Errorf("%s: %.20q %v", path, got, err)
				return
			}
		}
	}
	h.crowd(t, waiting)
	// Both wait for an answer that does not come.
	stays, goes := h.rider(t), h.rider(t)
	again(t, stays, "/slow", 3)
	again(t, goes, "/slow", 3)
	mu.Lock()
	slow = true
	mu.Unlock()
	if err := errors.Join(stays.write("/slow"), goes.write("/slow")); err != nil {
		t.Fatal(err)
	}
	// One takes nothing of what it has asked for.
	stuck := h.rider(t)
	again(t, stuck, "/huge", 2)
	if err := stuck.write("/huge"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 12 {
		r := h.rider(t)
		all.Add(1)
		go func() {
			defer all.Done()
			path := []string{"/small", "/small", "/last", "/large"}[i%4]
			again(t, r, path, 30)
		}()
	}
	all.Wait()
	_ = goes.Close()
	select {
	case <-left:
	case <-time.After(time.Minute):
		t.Error("the resource works on for a client that has left")
	}
	resp, err := http.ReadResponse(stuck.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(b, huge) {
		t.Errorf("%d bytes of %d: %v", len(b), len(huge), err)
	}
	_ = resp.Body.Close()
	// A session that ends takes what waits with it.
	h.door.Last().Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "over"})
	if resp, err := http.ReadResponse(stays.r, nil); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("killed: %s", resp.Status)
		}
	}
	for until := time.Now().Add(time.Minute); ; {
		if got, err := h.rider(t).ask("/small"); err == nil && got == "small" {
			break
		}
		if time.Now().After(until) {
			t.Fatal("no new session")
		}
	}
}

// TestRidesUnderNewPolicy: what a request was judged by before does not outlive it.
func TestRidesUnderNewPolicy(t *testing.T) {
	waiting := make(chan struct{}, 4)
	h := newRide(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			waiting <- struct{}{}
			<-r.Context().Done()
		}
		_, _ = io.WriteString(w, "small")
	}))
	h.crowd(t, waiting)
	r := h.rider(t)
	for range 3 {
		if got, err := r.ask("/small"); err != nil || got != "small" {
			t.Fatal(got, err)
		}
	}
	h.door.Set(func(p *enginetest.Policy) {
		p.Version++
		p.Decide = func(string, any) postern.Decision {
			return postern.Decision{Verdict: postern.VerdictDeny, Reason: "no more"}
		}
	})
	if got, err := r.ask("/small"); err == nil {
		t.Errorf("answered under a policy that denies: %q", got)
	}
	h.door.Set(func(p *enginetest.Policy) {
		p.Version++
		p.Decide = nil
	})
	if got, err := r.ask("/small"); err != nil || got != "small" {
		t.Error(got, err)
	}
}
