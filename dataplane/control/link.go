package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/run"
)

const (
	// maxMessageBytes bounds what the control plane may send at once: a snapshot.
	maxMessageBytes = 64 << 20
	// linkWait is how long a call waits for a control plane.
	linkWait = 5 * time.Second
)

// A link is two connections to one replica: bulk on one cannot hold up a lock on the
// other. Calls that have begun on it may finish after it was replaced.
type link struct {
	addr    string
	main    *grpc.ClientConn // everything but records
	records *grpc.ClientConn
	retired chan struct{} // closed once nothing new may begin on it

	// Of the Client's mutex.
	users int
	idle  chan struct{} // closed once it is retired and nobody uses it
}

// dial makes a link to an address; the connections are opened by the first call on each.
func (c *Client) dial(addr string) (*link, error) {
	main, err := c.connect(addr)
	if err != nil {
		return nil, err
	}
	records, err := c.connect(addr)
	if err != nil {
		return nil, errors.Join(err, main.Close())
	}
	return &link{addr: addr, main: main, records: records, retired: make(chan struct{}), idle: make(chan struct{})}, nil
}

func (c *Client) connect(addr string) (*grpc.ClientConn, error) {
	name, err := serverName(c.cfg.ServerName, addr)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion:           tls.VersionTLS13,
		ServerName:           name,
		RootCAs:              c.cfg.Identity.Roots(),
		GetClientCertificate: c.cfg.Identity.ClientCertificate,
		VerifyConnection:     func(cs tls.ConnectionState) error { return isControl(cs.PeerCertificates[0]) },
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: minBackoff, Multiplier: 2, Jitter: 0.5, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDisableServiceConfig(),
	}, c.cfg.DialOptions...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return conn, nil
}

// use takes the link that is up, waiting for one that is not the one given. The caller
// must call done.
func (c *Client) use(ctx context.Context, not *link) (l *link, done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, linkWait)
	defer cancel()
	for {
		c.mu.Lock()
		l, changed := c.up, c.changed
		if l != nil && l != not {
			l.users++
			c.mu.Unlock()
			return l, func() { c.leave(l) }, nil
		}
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, fault.Wrap(context.Cause(ctx), codes.Unavailable, "no control plane is connected")
		}
	}
}

func (c *Client) leave(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.users--
	if l.users == 0 && c.up != l {
		close(l.idle)
	}
}

// raise makes l the link that calls use.
func (c *Client) raise(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up = l
	close(c.changed)
	c.changed = make(chan struct{})
}

// retire ends a link: nothing begins on it, and once nothing runs on it, or g ends, it
// is closed.
func (c *Client) retire(g *run.Group, l *link) {
	c.mu.Lock()
	if c.up == l {
		c.up = nil
	}
	close(l.retired)
	if l.users == 0 {
		close(l.idle)
	}
	c.mu.Unlock()
	g.Go("close a link", func(ctx context.Context) error {
		select {
		case <-l.idle:
		case <-ctx.Done():
		}
		if err := errors.Join(l.main.Close(), l.records.Close()); err != nil {
			c.log.Debug("link closed with an error", "addr", l.addr, "error", err)
		}
		return nil
	})
}
