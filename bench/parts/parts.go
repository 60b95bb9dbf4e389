// Package parts are the programs of the suite itself, each run as a process of its own:
// the rivals that are always there, builds of the node's engine with parts left out, a
// server that answers from memory, and a client for bulk. "bench part NAME" is one.
package parts

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/posterngate/postern/bench/child"
	"github.com/posterngate/postern/pkg/run"
)

// A part begins, says where it listens if it does, and answers lines until there are no
// more.
type part func(ctx context.Context, g *run.Group, settings json.RawMessage) (hello any, answer func(line string) (any, error), err error)

func named() map[string]part {
	return map[string]part{"splice": splice, "naive": naive, "engine": engineOnly, "blaster": blaster, "bulk": bulk, "idle": idle, "nodes": nodes, "calls": calls, "web": web, "reverse": reverse}
}

// Hello is what a part that listens says first.
type Hello struct {
	Addr string `json:"addr"`
}

// Start runs a part with its settings as a child of this process. hello is filled in.
func Start(log, name string, settings, hello any) (*child.Child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	c, err := child.Start(name, log, false, self, "part", name)
	if err != nil {
		return nil, err
	}
	if err := c.Ask(string(b), hello); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// Main is "bench part NAME": the first line of standard input holds the settings.
func Main(ctx context.Context, name string, in io.Reader, out io.Writer) error {
	p := named()[name]
	if p == nil {
		return fmt.Errorf("there is no part %q", name)
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() {
		return errors.New("no settings")
	}
	g := run.New(ctx)
	defer func() {
		g.Stop()
		_ = g.Wait()
	}()
	say := json.NewEncoder(out)
	hello, answer, err := p(g.Context(), g, lines.Bytes())
	if err != nil {
		return err
	}
	if err := say.Encode(hello); err != nil {
		return err
	}
	for lines.Scan() {
		if answer == nil {
			return fmt.Errorf("%s answers nothing", name)
		}
		a, err := answer(strings.TrimSpace(lines.Text()))
		if err != nil {
			return err
		}
		if err := say.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

// Backend is where a proxy forwards to.
type Backend struct {
	Backend string `json:"backend"` // host:port
}

// serve accepts until the group ends.
func serve(g *run.Group, handle func(ctx context.Context, c *net.TCPConn)) (Hello, error) {
	return serveAt(g, "127.0.0.1:0", handle)
}

func serveAt(g *run.Group, addr string, handle func(ctx context.Context, c *net.TCPConn)) (Hello, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return Hello{}, err
	}
	context.AfterFunc(g.Context(), func() { _ = ln.Close() })
	g.Go("accept", func(context.Context) error {
		for {
			c, err := ln.Accept()
			if err != nil {
				return nil
			}
			g.Go("connection", func(ctx context.Context) error {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				handle(ctx, c.(*net.TCPConn))
				return nil
			})
		}
	})
	return Hello{ln.Addr().String()}, nil
}

// both runs the two directions of a connection until one of them ends.
func both(ctx context.Context, client, server *net.TCPConn, up, down func() error) {
	g := run.New(ctx)
	end := func(f func() error) func(context.Context) error {
		return func(context.Context) error {
			_ = f()
			_ = client.Close()
			_ = server.Close()
			return nil
		}
	}
	g.Go("up", end(up))
	g.Go("down", end(down))
	_ = g.Wait()
}

func dial(addr string) (*net.TCPConn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// splice copies with io.Copy, which on Linux leaves the bytes in the kernel.
func splice(_ context.Context, g *run.Group, settings json.RawMessage) (any, func(string) (any, error), error) {
	var s Backend
	if err := json.Unmarshal(settings, &s); err != nil {
		return nil, nil, err
	}
	hello, err := serve(g, func(ctx context.Context, client *net.TCPConn) {
		server, err := dial(s.Backend)
		if err != nil {
			return
		}
		defer func() { _ = server.Close() }()
		both(ctx, client, server,
			func() error { _, err := io.Copy(server, client); return err },
			func() error { _, err := io.Copy(client, server); return err })
	})
	return hello, nil, err
}
