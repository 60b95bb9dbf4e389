package input

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

// soon is how long the listener may take to refuse what is wrong at once.
const soon = 5 * time.Second

// plain is a bare connection to the listener.
func plain(t *testing.T, h *house.House) net.Conn {
	t.Helper()
	c := house.Must(net.DialTimeout("tcp", h.Nodes[0].PG, soon))(t)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// encrypted is one that has asked for TLS, and got it.
func encrypted(t *testing.T, h *house.House) net.Conn {
	t.Helper()
	c := plain(t, h)
	write(t, c, sslRequest)
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil || b[0] != 'S' {
		t.Fatalf("TLS is not offered: %q %v", b, err)
	}
	cfg := h.TLS()
	cfg.ServerName = "127.0.0.1"
	return tls.Client(c, cfg)
}

var sslRequest = []byte{0, 0, 0, 8, 4, 210, 22, 47}

func write(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Logf("write: %v", err) // it may have been refused already; the answer says so
	}
}

// ended reads until the listener closes, and returns the codes of the errors it said.
// It ends the test where the connection stays open, or what is said is not the protocol.
func ended(t *testing.T, c net.Conn) (states []string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(soon))
	all, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection stays open; it said %q", all)
	}
	for rest := all; len(rest) > 0; {
		if len(rest) < 5 || rest[0] == 'S' && len(rest) == 1 {
			t.Fatalf("this is not the protocol: %q", all)
		}
		n := int(binary.BigEndian.Uint32(rest[1:5])) + 1
		if n > len(rest) || n < 5 {
			t.Fatalf("this is not the protocol: %q", all)
		}
		if rest[0] == 'E' {
			var e pgproto3.ErrorResponse
			if err := e.Decode(rest[5:n]); err != nil {
				t.Fatalf("%v in %q", err, all)
			}
			if e.Message == "" || strings.Contains(e.Message, "panic") || len(e.Message) > 2000 {
				t.Errorf("the error says %q", e.Message)
			}
			states = append(states, e.Code)
		}
		rest = rest[n:]
	}
	return states
}

// startup is a startup packet of raw pairs.
func startup(version uint32, pairs string) []byte {
	p := binary.BigEndian.AppendUint32(nil, uint32(8+len(pairs)))
	return append(binary.BigEndian.AppendUint32(p, version), pairs...)
}

const v3 = 3 << 16

// message is one message with a length as it is said.
func message(typ byte, length uint32, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ}, length), body...)
}

// proper is one with its true length.
func proper(typ byte, body string) []byte { return message(typ, uint32(len(body))+4, body) }

// TestInput sends what no proper client sends. Each gets a protocol error or a closed
// connection, in time; a session beside them works all the while.
func TestInput(t *testing.T) {
	h := house.Start(t, house.Options{Extra: largeWorld})
	witness := h.Connect(t, "alice", "sales-report", func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = pgx.QueryExecModeExec })
	unharmed := func(t *testing.T) {
		t.Helper()
		var n int
		if err := witness.QueryRow(t.Context(), "SELECT count(*) FROM regions").Scan(&n); err != nil || n != 6 {
			t.Fatalf("the session beside it is harmed: %d, %v", n, err)
		}
	}
	t.Run("before a session", func(t *testing.T) { beforeSession(t, h, unharmed) })
	t.Run("names", func(t *testing.T) { names(t, h, unharmed) })
	t.Run("in a session", func(t *testing.T) { inSession(t, h, unharmed) })
	t.Run("slow and half-open", func(t *testing.T) { slow(t, h, unharmed) })
	t.Run("large", func(t *testing.T) { large(t, h); unharmed(t) })
	t.Run("cancel keys", func(t *testing.T) { cancelKeys(t, h, unharmed) })
	if strings.Contains(h.Log(), "panic") {
		t.Error("something panicked; see the log")
	}
}

func beforeSession(t *testing.T, h *house.House, unharmed func(*testing.T)) {
	garbage := make([]byte, 4096)
	_, _ = rand.Read(garbage)
	garbage[0] = 0xff
	for name, packet := range map[string][]byte{
		"garbage":                  garbage,
		"HTTP":                     []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"SSH":                      []byte("SSH-2.0-OpenSSH_9.9\r\n"),
		"length 0":                 {0, 0, 0, 0},
		"length 1":                 {0, 0, 0, 1, 0, 3, 0, 0},
		"length 7":                 {0, 0, 0, 7, 0, 3, 0},
		"length -1":                {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"length 2 GB":              {0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"length min":               {0x80, 0, 0, 0, 0, 3, 0, 0},
		"oversized":                startup(v3, "user\x00"+strings.Repeat("x", 20_000)+"\x00\x00"),
		"protocol 2":               startup(2<<16, "\x00"),
		"protocol 4":               startup(4<<16, "\x00"),
		"no terminator":            startup(v3, "user\x00x"),
		"odd":                      startup(v3, "user\x00\x00"),
		"trailing":                 startup(v3, "user\x00x\x00\x00more"),
		"twice":                    startup(v3, "user\x00x\x00user\x00y\x00\x00"),
		"nothing":                  startup(v3, "\x00"),
		"an empty cancel":          {0, 0, 0, 8, 4, 210, 22, 46},
		"no end of TLS asked":      bytes.Repeat(sslRequest, 50),
		"a query first":            proper('Q', "SELECT 1\x00"),
		"TLS without ALPN, direct": {0x16, 0x03, 0x01, 0x00, 0x05, 0x01, 0x00, 0x00, 0x01, 0x00},
		"replication":              startup(v3, "user\x00sales-report.warehouse\x00replication\x00true\x00\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			c := plain(t, h)
			if name == "no end of TLS asked" {
				// It is taken at its word: what follows the S is no TLS.
				write(t, c, packet)
				var b [1]byte
				_, _ = io.ReadFull(c, b[:])
				_ = c.SetReadDeadline(time.Now().Add(soon))
				if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the connection stays open")
				}
				unharmed(t)
				return
			}
			write(t, c, packet)
			if name == "TLS without ALPN, direct" {
				_ = c.SetReadDeadline(time.Now().Add(soon))
				if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the connection stays open")
				}
			} else {
				if cw, ok := c.(*net.TCPConn); ok {
					_ = cw.CloseWrite()
				}
				states := ended(t, c)
				if name == "an empty cancel" {
					if len(states) != 0 {
						t.Errorf("a cancel is answered: %v", states)
					}
				} else if len(states) != 1 || states[0] != "08P01" && states[0] != "28000" && states[0] != "42501" {
					t.Errorf("SQLSTATE %v", states)
				}
			}
			unharmed(t)
		})
	}
	// The same inside of TLS, with the password asked for, and lengths of its answer.
	for name, answer := range map[string][]byte{
		"password of length 0":    message('p', 0, ""),
		"password of length 3":    message('p', 3, ""),
		"password of length -1":   message('p', 0xffffffff, "x"),
		"password of length 2 GB": message('p', 0x7fffffff, "x"),
		"password too long":       proper('p', strings.Repeat("x", 1<<20)+"\x00"),
		"password without end":    proper('p', "x"),
		"password with a NUL":     proper('p', "a\x00b\x00"),
		"no password":             proper('p', "\x00"),
		"a query instead":         proper('Q', "SELECT 1\x00"),
		"a password and garbage":  append(proper('p', "x\x00"), garbage...),
	} {
		t.Run(name, func(t *testing.T) {
			c := encrypted(t, h)
			write(t, c, startup(v3, "user\x00sales-report.warehouse\x00database\x00warehouse\x00\x00"))
			var ask [9]byte
			if _, err := io.ReadFull(c, ask[:]); err != nil || ask[0] != 'R' {
				t.Fatalf("no password is asked for: %q %v", ask, err)
			}
			write(t, c, answer)
			states := ended(t, c)
			if len(states) != 1 || states[0] != "08P01" && states[0] != "28P01" {
				t.Errorf("SQLSTATE %v", states)
			}
			unharmed(t)
		})
	}
}

// names are users and databases that are none.
func names(t *testing.T, h *house.House, unharmed func(*testing.T)) {
	long := strings.Repeat("x", 5000)
	for _, user := range []string{
		"", ".", "..", "sales-report.", ".warehouse", "sales-report.warehouse.more", "sales-report..warehouse", long, long + "." + long,
		"sales-report.warehouse' OR '1'='1", `"sales-report"."warehouse"`, "sales-report.warehouse;DROP TABLE x", "a=b", "sales-report=x.warehouse",
		"SALES-REPORT.WAREHOUSE", "sales--report.warehouse", "../../etc.passwd", "sales-report.ware house", "\xff\xfe.\xff", "sälés.warehouse", "\r\n.\t", "%s%n.%d",
		"sales-report.warehouse\\", "$(id).`id`", "postgres", "sales-report.other",
	} {
		checkName(t, h, "user "+user, startup(v3, "user\x00"+user+"\x00database\x00warehouse\x00\x00"))
	}
	for _, db := range []string{"postgres", "template1", long, "warehouse'--", `"warehouse"`, "warehouse host=evil", "dbname=postgres", "\xff", "postgres://evil/x", " ", "WAREHOUSE"} {
		checkName(t, h, "database "+db, startup(v3, "user\x00sales-report.warehouse\x00database\x00"+db+"\x00\x00"))
	}
	unharmed(t)
}

func checkName(t *testing.T, h *house.House, what string, packet []byte) {
	t.Helper()
	c := encrypted(t, h)
	write(t, c, packet)
	write(t, c, proper('p', h.DataToken(t, "alice")+"\x00"))
	states := ended(t, c)
	if len(states) != 1 || !strings.Contains("08P01 28000 28P01 3D000 42501", states[0]) {
		t.Errorf("%.80q is answered with %v", what, states)
	}
}

// inSession breaks the protocol after the login.
func inSession(t *testing.T, h *house.House, unharmed func(*testing.T)) {
	for name, bytes := range map[string][]byte{
		"unknown type":            proper('z', "x"),
		"type 0":                  proper(0, ""),
		"length 0":                message('Q', 0, ""),
		"length 3":                message('Q', 3, ""),
		"length -1":               message('Q', 0xffffffff, ""),
		"length 2 GB":             message('Q', 0x7fffffff, "SELECT"),
		"length 17 MB":            message('Q', 17<<20, "SELECT"),
		"Bind of length 2 GB":     message('B', 0x7fffffff, ""),
		"CopyData of length 2 GB": message('d', 0x7fffffff, ""),
		"query without end":       proper('Q', "SELECT 1"),
		"query with a NUL":        proper('Q', "SELECT 1\x00; DROP TABLE orders\x00"),
		"empty Parse":             proper('P', ""),
		"Parse of too many types": proper('P', "\x00SELECT 1\x00\xff\xff"),
		// Drivers miscount: the session goes on, and is ended here.
		"Bind of too many values":  slices.Concat(proper('B', "\x00\x00\x00\x00\xff\xff"), proper('S', ""), proper('X', "")),
		"Bind of a negative value": slices.Concat(proper('B', "\x00\x00\x00\x00\x00\x01\x80\x00\x00\x00\x00\x00"), proper('S', ""), proper('X', "")),
		"Describe of nothing":      proper('D', "X\x00"),
		"Execute too short":        proper('E', "\x00\x00"),
		"Close of nothing":         proper('C', "Q\x00"),
		"a password again":         proper('p', "x\x00"),
		"garbage":                  []byte("\x00\x01\x02\x03\x04\x05\x06\x07garbage"),
	} {
		t.Run(name, func(t *testing.T) {
			conn := h.Connect(t, "alice", "sales-report")
			hijacked := house.Must(conn.PgConn().Hijack())(t)
			c := hijacked.Conn
			defer c.Close()
			write(t, c, bytes)
			write(t, c, proper('S', ""))
			states := ended(t, c)
			if len(states) != 1 || states[0] != "08P01" {
				t.Errorf("SQLSTATE %v", states)
			}
			unharmed(t)
		})
	}
	t.Run("cut in the middle of a message", func(t *testing.T) {
		conn := h.Connect(t, "alice", "sales-report")
		hijacked := house.Must(conn.PgConn().Hijack())(t)
		write(t, hijacked.Conn, message('Q', 100, "SELECT"))
		_ = hijacked.Conn.Close()
		house.Eventually(t, func() string { return "its session at the target is gone" }, func() bool {
			return h.Target(t, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'warehouse_app'")[0][0] == "1"
		})
		unharmed(t)
	})
	t.Run("texts", func(t *testing.T) {
		conn := h.Connect(t, "alice", "sales-report", func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol })
		for _, q := range []string{
			"", " ", ";", ";;;", "--", "/*", "/* /* */", "'", "\"", "$$", "$a$ $b$", "SELECT '\xff'", "SELECT \xc3", "\xef\xbb\xbfSELECT 1", "SELECT 1\x1b[2J",
			strings.Repeat("(", 20_000), "SELECT " + strings.Repeat("1+", 20_000) + "1", strings.Repeat("SELECT 1;", 5_000), "SELECT '" + strings.Repeat("x", 1<<20) + "'",
			"SELECT " + strings.Repeat("(SELECT ", 2_000) + "1" + strings.Repeat(")", 2_000), "SELECT U&'\\d800'", "SELECT E'\\xff'", "\\d", "SELECT $1", "SELECT $99999999999",
		} {
			_, err := conn.Exec(t.Context(), q)
			if s := house.State(err); err != nil && len(s) != 5 {
				t.Fatalf("%.40q: %v", q, err)
			}
			var n int
			if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM regions").Scan(&n); err != nil || n != 6 {
				t.Fatalf("after %.40q: %d, %v", q, n, err)
			}
		}
		unharmed(t)
	})
}

// slow clients wait, or are sent away when their time is over; they cost nobody else.
func slow(t *testing.T, h *house.House, unharmed func(*testing.T)) {
	silent := plain(t, h)
	half := plain(t, h)
	write(t, half, []byte{0, 0, 0})
	noTLS := plain(t, h)
	write(t, noTLS, sslRequest)
	noPassword := encrypted(t, h)
	write(t, noPassword, startup(v3, "user\x00sales-report.warehouse\x00\x00"))
	dribble := encrypted(t, h)
	packet := append(startup(v3, "user\x00sales-report.warehouse\x00database\x00warehouse\x00\x00"), proper('p', h.DataToken(t, "alice")+"\x00")...)
	for i := 0; i < len(packet); i += 16 { // a slow one is served all the same
		write(t, dribble, packet[i:min(i+16, len(packet))])
	}
	f := pgproto3.NewFrontend(dribble, dribble)
	_ = dribble.SetReadDeadline(time.Now().Add(soon))
	for {
		m, err := f.Receive()
		if err != nil {
			t.Fatalf("who is slow is not served: %v", err)
		}
		if e, bad := m.(*pgproto3.ErrorResponse); bad {
			t.Fatalf("who is slow is refused: %s", e.Message)
		}
		if _, ready := m.(*pgproto3.ReadyForQuery); ready {
			break
		}
	}
	// Many connections that say nothing.
	for range 100 {
		_ = plain(t, h)
	}
	unharmed(t)
	if c := h.Connect(t, "alice", "sales-report"); c.Ping(t.Context()) != nil {
		t.Error("no new session beside silent connections")
	}
	for name, c := range map[string]net.Conn{"silent": silent, "half a length": half, "TLS asked and not begun": noTLS, "no password": noPassword} {
		_ = c.SetReadDeadline(time.Now().Add(house.Patience))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: still open after %s", name, house.Patience)
		}
	}
	unharmed(t)
}

// cancelKeys that belong to nobody do nothing, and say nothing.
func cancelKeys(t *testing.T, h *house.House, unharmed func(*testing.T)) {
	for _, n := range []int{4, 8, 32, 256} {
		key := make([]byte, n)
		_, _ = rand.Read(key)
		c := plain(t, h)
		p := binary.BigEndian.AppendUint32(nil, uint32(8+n))
		write(t, c, append(binary.BigEndian.AppendUint32(p, 80877102), key...))
		if states := ended(t, c); len(states) > 0 {
			t.Errorf("a cancel is answered with %v", states)
		}
	}
	unharmed(t)
}
