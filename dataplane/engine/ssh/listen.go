package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/pkg/postern"
	facts "github.com/posterngate/postern/pkg/ssh"
)

// listeners are the addresses at which the host listens for the client (RFC 4254, 7.1).
type listeners struct {
	mu  sync.Mutex
	all map[address]*listener
}

// A listener is one of them: an execution that lasts for as long as the host listens and
// any connection that came by it does.
type listener struct {
	x      *execution
	net    net.Listener
	at     address // as it was asked for, with the port that the host chose where it was to
	served atomic.Int64
}

// address is what tcpip-forward and cancel-tcpip-forward name.
type address struct {
	Host string
	Port uint32
}

func (a address) String() string {
	return net.JoinHostPort(a.Host, strconv.FormatUint(uint64(a.Port), 10))
}

func (c *conn) readAddress(payload []byte) (a address, ok bool) {
	return a, len(payload) <= c.e.limits.Text && ssh.Unmarshal(payload, &a) == nil && a.Port <= 65535
}

// listen has the host listen, where the task says so. The answer has the port, where the
// host was to choose it.
func (c *conn) listen(ctx context.Context, payload []byte) (answer []byte, ok bool) {
	want, ok := c.readAddress(payload)
	if !ok || !c.listening.room(c.e.limits.Listeners) || c.listening.find(want) != nil {
		return nil, false
	}
	name := want.String()
	x, err := c.admit(ctx, statement(&facts.Facts{Verb: facts.Listen, Address: name}, "listen "+name), func(string) {})
	if err != nil {
		if r := c.refused(err); fatal(r) {
			c.end(r)
		}
		return nil, false
	}
	l, err := c.bind(ctx, x, want)
	if err != nil {
		if err := x.done(refusedWith(err).outcome()); err != nil {
			c.end(err)
		}
		return nil, false
	}
	c.listening.add(l)
	c.group.Go("listen", func(ctx context.Context) error {
		c.serveListener(ctx, l)
		c.listening.remove(l)
		return nil
	})
	if want.Port == 0 {
		answer = ssh.Marshal(struct{ Port uint32 }{l.at.Port})
	}
	return answer, true
}

func (c *conn) bind(ctx context.Context, x *execution, want address) (*listener, error) {
	client, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	n, err := client.Listen("tcp", want.String())
	if err != nil {
		return nil, &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the host does not listen there", Cause: err}
	}
	if tcp, ok := n.Addr().(*net.TCPAddr); ok && want.Port == 0 {
		want.Port = uint32(tcp.Port) //nolint:gosec // a port
	}
	return &listener{x: x, net: n, at: want}, nil
}

// unlisten ends what listen began; connections that came by it go on.
func (c *conn) unlisten(payload []byte) bool {
	want, ok := c.readAddress(payload)
	if !ok {
		return false
	}
	l := c.listening.find(want)
	if l == nil {
		return false
	}
	c.listening.remove(l)
	return l.net.Close() == nil
}

// serveListener takes what connects at the host to the client, until the host listens no
// more and the last of them is gone.
func (c *conn) serveListener(ctx context.Context, l *listener) {
	stop := context.AfterFunc(ctx, func() { _ = l.net.Close() })
	defer stop()
	var group sync.WaitGroup
	for {
		far, err := l.net.Accept()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			continue // one that came and went
		}
		c.active.mark()
		if !c.take() {
			_ = far.Close()
			continue
		}
		group.Add(1)
		c.group.Go("forwarded", func(ctx context.Context) error {
			defer group.Done()
			defer c.give()
			c.forwarded(ctx, l, far)
			return nil
		})
	}
	_ = l.net.Close()
	group.Wait()
	c.ended(l.x, outcome{said: fmt.Sprintf("%d connections, %s", l.served.Load(), l.x.counted())})
}

// forwarded carries one connection that came to the host.
func (c *conn) forwarded(ctx context.Context, l *listener, far net.Conn) {
	defer func() { _ = far.Close() }()
	from, port, _ := net.SplitHostPort(far.RemoteAddr().String())
	n, _ := strconv.ParseUint(port, 10, 16)
	ch, requests, err := c.client.OpenChannel("forwarded-tcpip", ssh.Marshal(struct {
		Host   string
		Port   uint32
		Origin string
		From   uint32
	}{l.at.Host, l.at.Port, from, uint32(n)}))
	if err != nil {
		return // the client does not want it
	}
	defer func() { _ = ch.Close() }()
	l.served.Add(1)
	if err := c.splice(ctx, l.x, ch, requests, far); err != nil {
		_ = l.net.Close() // its budget is used, or it cannot be recorded
	}
}

// room reports whether one more may be added.
func (l *listeners) room(limit int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all) < limit
}

func (l *listeners) add(one *listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[address]*listener{}
	}
	l.all[one.at] = one
}

func (l *listeners) find(a address) *listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[a]
}

func (l *listeners) remove(one *listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all[one.at] == one {
		delete(l.all, one.at)
	}
}
