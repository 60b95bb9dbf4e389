package parts

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/posterngate/postern/pkg/run"
)

// Web is a client of HTTP that asks for one thing over and over, on a number of
// connections, with the next request as soon as an answer is there.
type Web struct {
	Addr  string
	Host  string // that is asked for
	Path  string
	Token string // a bearer's; none where empty
	Conns int
	// Streams on each connection are HTTP/2's, which is spoken over TLS; 0 is HTTP/1.1
	// without.
	Streams int
	CA      string // a file, for TLS
	Server  string // the name in the server's certificate
}

// Served is what was answered to a line with a duration. Every request that was sent was
// also answered, with 200.
type Served struct {
	Requests int64         `json:"requests"`
	Bytes    int64         `json:"bytes"` // of bodies
	Took     time.Duration `json:"took"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
}

// asking is one connection's part of a round.
type asking struct {
	took  []time.Duration
	bytes int64
}

func web(ctx context.Context, _ *run.Group, settings json.RawMessage) (any, func(string) (any, error), error) {
	var s Web
	if err := json.Unmarshal(settings, &s); err != nil {
		return nil, nil, err
	}
	runtime.GOMAXPROCS(1) // it shares the cores with what is measured
	return struct{}{}, func(line string) (any, error) {
		d, err := time.ParseDuration(line)
		if err != nil {
			return nil, err
		}
		return s.ask(ctx, d)
	}, nil
}

// ask connects, asks for d, and ends the connections.
func (s *Web) ask(ctx context.Context, d time.Duration) (Served, error) {
	conns := make([]net.Conn, s.Conns)
	for i := range conns {
		c, err := s.dial(ctx)
		if err != nil {
			return Served{}, err
		}
		defer func() { _ = c.Close() }()
		conns[i] = c
	}
	one := s.http1
	if s.Streams > 0 {
		one = s.http2
	}
	g, all := run.New(ctx), make([]asking, len(conns))
	began := time.Now()
	for i, c := range conns {
		g.Go("connection", func(context.Context) error { return one(c, &all[i], began.Add(d)) })
	}
	if err := g.Wait(); err != nil {
		return Served{}, err
	}
	sum := Served{Took: time.Since(began)}
	var took []time.Duration
	for i := range all {
		took = append(took, all[i].took...)
		sum.Bytes += all[i].bytes
	}
	slices.Sort(took)
	sum.Requests, sum.P50, sum.P99 = int64(len(took)), took[len(took)/2], took[len(took)*99/100]
	return sum, nil
}

func (s *Web) dial(ctx context.Context) (net.Conn, error) {
	if s.Streams == 0 {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", s.Addr)
	}
	pem, err := os.ReadFile(s.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	d := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: s.Server, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}}
	c, err := d.DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Addr, err)
	}
	return c, nil
}

// http1 asks on one connection until the time is over.
func (s *Web) http1(c net.Conn, a *asking, until time.Time) error {
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\n", s.Path, s.Host)
	if s.Token != "" {
		request = fmt.Appendf(request, "Authorization: Bearer %s\r\n", s.Token)
	}
	request = append(request, "\r\n"...)
	r := bufio.NewReaderSize(c, 64<<10)
	for now := time.Now(); now.Before(until); {
		if _, err := c.Write(request); err != nil {
			return err
		}
		n, err := answer(r)
		if err != nil {
			return fmt.Errorf("%s%s: %w", s.Addr, s.Path, err)
		}
		a.bytes += n
		done := time.Now()
		a.took, now = append(a.took, done.Sub(now)), done
	}
	return nil
}

// answer reads one answer, and is the size of its body.
func answer(r *bufio.Reader) (int64, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("the answer is %q", line)
	}
	size, chunked := int64(-1), false
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return 0, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")):
			if size, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return 0, err
			}
		case len(name) == len("Transfer-Encoding") && bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	switch {
	case chunked:
		return chunks(r)
	case size < 0:
		return 0, errors.New("the answer has no end")
	}
	_, err = io.CopyN(io.Discard, r, size)
	return size, err
}

func chunks(r *bufio.Reader) (sum int64, err error) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return sum, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimRight(line, "\r\n")), 16, 64)
		if err != nil {
			return sum, err
		}
		if _, err := io.CopyN(io.Discard, r, n+2); err != nil { // and the line's end
			return sum, err
		}
		if sum += n; n == 0 {
			return sum, nil
		}
	}
}
