package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/pkg/run"
)

// tunnel makes the connection a WebSocket, if the resource does. What is said in it is
// recorded as far as is kept, counted, and not judged.
func (x *exchange) tunnel(ctx context.Context, out *http.Request, secrets [][]byte) (engine.Outcome, error) {
	resp, err := x.v.HTTP1.RoundTrip(out)
	if err != nil {
		return engine.Outcome{}, x.unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	o := engine.Outcome{Tag: statusLine(resp.StatusCode)}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return o, x.answer(ctx, resp, secrets)
	}
	far, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		return o, x.unreachable(errors.New("the connection cannot be taken over"))
	}
	h := http.Header{}
	request.Return(h, resp.Header)
	if err := x.redirect(h); err != nil {
		return o, err
	}
	if leaks(h, secrets) {
		return o, errLeak
	}
	if err := x.head(shownHead(resp.StatusCode, h)); err != nil {
		return o, err
	}
	near, buffered, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return o, x.unreachable(err)
	}
	x.answered = true
	defer func() { _ = near.Close() }()
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", x.facts.Upgrade)
	if _, err := fmt.Fprintf(buffered, "HTTP/1.1 101 %s\r\n", http.StatusText(resp.StatusCode)); err != nil {
		return o, errGone
	}
	if err := errors.Join(h.Write(buffered), crlf(buffered), buffered.Flush()); err != nil {
		return o, errGone
	}
	g := run.New(ctx)
	stop := context.AfterFunc(g.Context(), func() { _, _ = near.Close(), far.Close() })
	defer stop()
	said := &catcher{from: far, secrets: secrets, least: leastHeld}
	g.Go("to the client", func(context.Context) error { return x.carry(near, said, true) })
	g.Go("to the resource", func(context.Context) error { return x.carry(far, buffered, false) })
	err = g.Wait()
	switch {
	case ctx.Err() != nil:
		return o, context.Cause(ctx)
	case errors.Is(err, errTunnel):
		return o, nil
	}
	return o, err
}

func crlf(w io.Writer) error {
	_, err := io.WriteString(w, "\r\n")
	return err
}

// leastHeld is how many bytes of a secret hold up a tunnel.
const leastHeld = 8

// errTunnel ends both ways of a tunnel once one of them has ended.
var errTunnel = errors.New("http: the tunnel has ended")

// carry copies one way of a tunnel, and reports it before it goes on.
func (x *exchange) carry(to io.Writer, from io.Reader, back bool) error {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for {
		n, err := from.Read(*b)
		if n > 0 {
			room, report := n, x.asked
			if back {
				room, report = x.room(n), x.said
			}
			if err := report((*b)[:room]); err != nil {
				return err
			}
			if _, err := to.Write((*b)[:room]); err != nil {
				return ungiven(err, errTunnel)
			}
			if room < n {
				return x.terms.NoMoreBytes()
			}
		}
		if err != nil {
			return errTunnel
		}
	}
}
