package controlplane

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posterngate/postern/pkg/run"
)

// one hands a connection over once.
type one chan net.Conn

func (o one) Accept() (net.Conn, error) {
	if nc, ok := <-o; ok {
		return nc, nil
	}
	return nil, net.ErrClosed
}
func (o one) Close() error   { return nil }
func (o one) Addr() net.Addr { return &net.UnixAddr{} }

// call serves one call by h, over both versions of HTTP in turn, in a time of its own. What the
// client sends is nothing where body is nil.
func call(t *testing.T, h http.HandlerFunc, body func() io.Reader, client func(t *testing.T, answer io.Reader)) {
	for name, set := range map[string]func(*http.Protocols, bool){"1.1": (*http.Protocols).SetHTTP1, "2": (*http.Protocols).SetUnencryptedHTTP2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				speaks := new(http.Protocols)
				set(speaks, true)
				here, there := net.Pipe()
				ln := make(one, 1)
				ln <- there
				close(ln)
				srv := bounded(h)
				srv.Protocols = speaks
				way := &http.Transport{Protocols: speaks, DialContext: func(context.Context, string, string) (net.Conn, error) { return here, nil }}
				g := run.New(t.Context())
				g.Go("serve", func(context.Context) error {
					_ = srv.Serve(ln) // it ends with its listener
					return nil
				})
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://here/", nil)
				if body != nil {
					req, err = http.NewRequestWithContext(t.Context(), http.MethodPost, "http://here/", body())
				}
				if err != nil {
					t.Fatal(err)
				}
				resp, err := (&http.Client{Transport: way}).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				client(t, resp.Body)
				_ = resp.Body.Close() // it may have been cut
				way.CloseIdleConnections()
				_, _ = here.Close(), srv.Close()
				if err := g.Wait(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestNotTaken: who stops reading holds a call for no longer than it takes to be sure.
func TestNotTaken(t *testing.T) {
	var ended atomic.Int64
	over := func(w http.ResponseWriter, _ *http.Request) {
		begin := time.Now()
		defer func() { ended.Store(int64(time.Since(begin))) }()
		for i := 0; i < 1000 && http.NewResponseController(w).Flush() == nil; i++ {
			if _, err := w.Write(make([]byte, takePart)); err != nil {
				return
			}
		}
	}
	call(t, over, nil, func(t *testing.T, _ io.Reader) {
		ended.Store(0)
		time.Sleep(2 * takeTime)
		if got := time.Duration(ended.Load()); got != takeTime {
			t.Errorf("the call ended after %s, and not %s", got, takeTime)
		}
	})
}

// TestTaken: an answer goes on for as long as it is read, however slowly it comes and goes.
func TestTaken(t *testing.T) {
	const size = 40 * takePart
	slow := func(w http.ResponseWriter, _ *http.Request) {
		for range 2 {
			if _, err := w.Write(make([]byte, size)); err != nil {
				t.Error(err)
			}
			w.(http.Flusher).Flush()
			time.Sleep(10 * takeTime)
		}
	}
	call(t, slow, nil, func(t *testing.T, body io.Reader) {
		got := 0
		for part := make([]byte, takePart); ; time.Sleep(takeTime / 4) {
			n, err := body.Read(part)
			if got += n; err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if got != 2*size {
			t.Errorf("%d bytes came of %d", got, 2*size)
		}
	})
}

// heldBack is a body of which the rest does not come in time.
type heldBack struct{}

func (heldBack) Read([]byte) (int, error) {
	time.Sleep(10 * giveTime)
	return 0, io.ErrUnexpectedEOF
}

// TestNotGiven: who holds back the rest of a request holds a call for no longer than is due.
func TestNotGiven(t *testing.T) {
	for name, begin := range map[string]string{"some": "some", "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			var took atomic.Int64
			waits := func(_ http.ResponseWriter, r *http.Request) {
				began := time.Now()
				if _, err := io.ReadAll(r.Body); err == nil {
					t.Error("a request of which the rest never came was taken for whole")
				}
				took.Store(int64(time.Since(began)))
			}
			body := func() io.Reader { return io.MultiReader(strings.NewReader(begin), heldBack{}) }
			call(t, waits, body, func(t *testing.T, _ io.Reader) {
				if got := time.Duration(took.Load()); got != giveTime {
					t.Errorf("the call ended after %s, and not %s", got, giveTime)
				}
				time.Sleep(10 * giveTime) // the body has an end, too
			})
		})
	}
}

// TestGiven: a call that was given in time goes on for as long as it likes.
func TestGiven(t *testing.T) {
	long := func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * giveTime)
		if err := r.Context().Err(); err != nil {
			t.Errorf("it was ended: %v", err)
		}
		_, _ = io.WriteString(w, "done")
	}
	call(t, long, func() io.Reader { return strings.NewReader("all") }, func(t *testing.T, answer io.Reader) {
		if got, err := io.ReadAll(answer); err != nil || string(got) != "done" {
			t.Errorf("%q, %v", got, err)
		}
	})
}
