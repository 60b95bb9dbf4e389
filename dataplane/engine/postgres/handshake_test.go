package postgres

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
)

// packet is a message of the time before messages have types.
func packet(code uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body))) //nolint:gosec // a test's
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

const startupBody = "user\x00t.target\x00database\x00postgres\x00\x00"

// dialogue speaks to a listener by hand.
type dialogue struct {
	t    *testing.T
	conn net.Conn
}

func (h *house) dial(t *testing.T) *dialogue {
	t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return &dialogue{t, c}
}

func (d *dialogue) send(p []byte) {
	d.t.Helper()
	if _, err := d.conn.Write(p); err != nil {
		d.t.Fatal(err)
	}
}

func (d *dialogue) answer() string {
	d.t.Helper()
	var b [1]byte
	if _, err := io.ReadFull(d.conn, b[:]); err != nil {
		d.t.Fatal(err)
	}
	return string(b[:])
}

// login sends the startup packet and the token, and returns the messages up to
// ReadyForQuery or an error.
func (d *dialogue) login(version uint32, body string) (types string, first []byte) {
	d.t.Helper()
	d.send(packet(version, body))
	for {
		typ, body, err := readMessage(d.conn, 1<<16)
		if err != nil {
			d.t.Fatal(types, err)
		}
		if types += string(typ); len(types) == 1 {
			first = body
		}
		switch {
		case typ == 'R' && binary.BigEndian.Uint32(body) == 3:
			d.send(message('p', enginetest.Token+"\x00"))
		case typ == 'Z', typ == 'E':
			return strings.ReplaceAll(types, "S", ""), first
		}
	}
}

func TestHandshakeByHand(t *testing.T) {
	server, file := serverCertificate(t)
	h := newHouse(t, func(c *Config) {
		c.TLS, c.AllowPlaintext = &tls.Config{Certificates: []tls.Certificate{server}, MinVersion: tls.VersionTLS12}, false
	})
	pem, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	secured := func(d *dialogue, protocols ...string) error {
		tc := tls.Client(d.conn, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: protocols, MinVersion: tls.VersionTLS12})
		d.conn = tc
		return tc.Handshake()
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	t.Run("GSS encryption is refused and TLS taken after it", func(t *testing.T) {
		d := h.dial(t)
		d.send(packet(gssRequest, ""))
		if got := d.answer(); got != "N" {
			t.Fatalf("GSS: %q", got)
		}
		d.send(packet(sslRequest, ""))
		if got := d.answer(); got != "S" {
			t.Fatalf("TLS: %q", got)
		}
		must(secured(d))
		if got, _ := d.login(protocol30, startupBody); got != "RRKZ" {
			t.Fatal(got)
		}
	})
	t.Run("TLS at once, with the protocol's name", func(t *testing.T) {
		d := h.dial(t)
		must(secured(d, "postgresql"))
		if got, _ := d.login(protocol30, startupBody); got != "RRKZ" {
			t.Fatal(got)
		}
		d = h.dial(t)
		must(secured(d, "postgresql"))
		if got, body := d.login(sslRequest, ""); got != "E" || string(field(body, 'C')) != "08P01" {
			t.Fatalf("TLS within TLS: %s %q", got, body)
		}
	})
	t.Run("TLS at once, without the protocol's name or with another", func(t *testing.T) {
		d := h.dial(t)
		must(secured(d))
		typ, body, err := readMessage(d.conn, 1<<16)
		if err != nil || typ != 'E' || string(field(body, 'C')) != "08P01" {
			t.Fatalf("%q %q %v", typ, body, err)
		}
		if secured(h.dial(t), "http/1.1") == nil {
			t.Fatal("a client of another protocol got in")
		}
	})
	t.Run("a newer protocol is negotiated down", func(t *testing.T) {
		for _, options := range []string{"", "_pq_.b\x001\x00_pq_.a\x00x\x00"} {
			d := h.dial(t)
			must(secured(d, "postgresql"))
			got, body := d.login(protocol30+2, options+startupBody)
			want := "\x00\x03\x00\x00\x00\x00\x00\x00"
			if options != "" {
				want = "\x00\x03\x00\x00\x00\x00\x00\x02_pq_.a\x00_pq_.b\x00"
			}
			if got != "vRRKZ" || string(body) != want {
				t.Fatalf("%s %q, want %q", got, body, want)
			}
		}
		d := h.dial(t)
		must(secured(d, "postgresql"))
		if got, _ := d.login(4<<16, startupBody); got != "E" {
			t.Fatalf("protocol 4: %s", got)
		}
	})
}

// middle stands between engine and target with a certificate that the engine trusts, and
// passes on what both say. Where strip is set it hides that the target can bind to the
// channel.
func middle(t *testing.T, cert tls.Certificate, target string, strip bool) (port int, chosen func() string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var said bytes.Buffer
	serve := func(in net.Conn) error {
		defer func() { _ = in.Close() }()
		out, err := net.Dial("tcp", target)
		if err != nil {
			return err
		}
		defer func() { _ = out.Close() }()
		var ask [8]byte
		var yes [1]byte
		if _, err := io.ReadFull(in, ask[:]); err != nil {
			return err
		}
		if _, err := out.Write(ask[:]); err != nil {
			return err
		}
		if _, err := io.ReadFull(out, yes[:]); err != nil {
			return err
		}
		if _, err := in.Write(yes[:]); err != nil {
			return err
		}
		client := tls.Server(in, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS12})
		server := tls.Client(out, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}) //nolint:gosec // the attacker does not care
		var both sync.WaitGroup
		both.Go(func() {
			defer func() { _ = out.Close() }()
			var p [4096]byte
			for {
				n, err := client.Read(p[:])
				mu.Lock()
				said.Write(p[:n])
				mu.Unlock()
				if _, werr := server.Write(p[:n]); err != nil || werr != nil {
					return
				}
			}
		})
		defer both.Wait()
		defer func() { _ = in.Close() }()
		typ, body, err := readMessage(server, 1<<16)
		if err != nil {
			return err
		}
		if strip {
			body = bytes.Replace(body, []byte(scramSHA256Plus+"\x00"), nil, 1)
		}
		if _, err := client.Write(message(typ, string(body))); err != nil {
			return err
		}
		_, err = io.Copy(client, server)
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _ = serve(in) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port, func() string {
		mu.Lock()
		defer mu.Unlock()
		return said.String()
	}
}

// The login is bound to the channel: even one with a certificate that is trusted cannot
// pass it on.
func TestLoginIsBoundToTheChannel(t *testing.T) {
	start(t)
	cert, file := serverCertificate(t)
	ca, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		strip                     bool
		mechanism, header, logged string
	}{
		{false, "SCRAM-SHA-256-PLUS\x00", "p=tls-server-end-point,,n=", "SCRAM channel binding check failed"},
		{true, "SCRAM-SHA-256\x00", "y,,n=", "server does support channel binding"},
	} {
		port, said := middle(t, cert, net.JoinHostPort(shared.pg.Host, strconv.Itoa(shared.pg.Port)), c.strip)
		h := newHouse(t)
		h.door.Terms(func(tm *engine.Terms) {
			tm.Host, tm.Port, tm.TLS = "127.0.0.1", port, engine.TLSTerms{Mode: "verify-full", CA: ca, ServerName: "127.0.0.1"}
		})
		_, err := pgx.Connect(testContext(t), h.dsn(""))
		wantCode(t, err, "58000")
		if why := h.door.Last().Closed(); !strings.Contains(why.Error(), "log in") {
			t.Fatal(why)
		}
		if got := said(); !strings.Contains(got, c.header) || !strings.Contains(got, c.mechanism) {
			t.Fatalf("said %q", got)
		}
		if !strings.Contains(shared.pg.Log(), c.logged) {
			t.Errorf("the target did not say %q", c.logged)
		}
	}
}
