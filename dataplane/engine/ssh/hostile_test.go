package ssh

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	facts "github.com/posterngate/postern/pkg/ssh"
)

// raw is a connection that has said who it is, and nothing else.
func (h *house) raw(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	nc, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write([]byte("SSH-2.0-probe\r\n")); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(nc)
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "SSH-2.0-Postern") {
		t.Fatalf("greeted with %q: %v", line, err)
	}
	return nc, r
}

// offers are the lists of the node's first packet (RFC 4253, 7.1).
func offers(t *testing.T, r io.Reader) [][]string {
	t.Helper()
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:])-1)
	if _, err := io.ReadFull(r, body); err != nil {
		t.Fatal(err)
	}
	body = body[:len(body)-int(head[4])]
	if body[0] != 20 {
		t.Fatalf("the first packet is of kind %d", body[0])
	}
	var out [][]string
	for rest := body[17:]; len(out) < 10; {
		n := binary.BigEndian.Uint32(rest)
		out = append(out, strings.Split(string(rest[4:4+n]), ","))
		rest = rest[4+n:]
	}
	return out
}

// usable checks that others are served.
func (h *house) usable(t *testing.T) {
	t.Helper()
	c := h.connect(t)
	defer c.Close()
	if out, said, err := c.run(testContext(t), "echo well"); err != nil || string(out) != "well\n" {
		t.Fatalf("others are not served: %q %q %v", out, said, err)
	}
}

// TestAlgorithms: nothing rests on SHA-1 or CBC, what resists quantum computers comes
// first, and prefixes of the conversation cannot be cut (CVE-2023-48795).
func TestAlgorithms(t *testing.T) {
	h := newHouse(t)
	_, r := h.raw(t)
	lists := offers(t, r)
	for _, list := range lists {
		for _, name := range list {
			for _, bad := range []string{"cbc", "sha1", "md5", "arcfour", "3des", "ssh-rsa", "ssh-dss"} {
				if strings.Contains(name, bad) {
					t.Errorf("%s is offered", name)
				}
			}
		}
	}
	if kex := lists[0]; !strings.HasPrefix(kex[0], "mlkem768x25519") || !slices.Contains(kex, "kex-strict-s-v00@openssh.com") {
		t.Errorf("key exchange: %v", kex)
	}
	if slices.Contains(lists[2], "none") || slices.Contains(lists[4], "none") {
		t.Errorf("no encryption: %v, no integrity: %v", lists[2], lists[4])
	}
	for what, cfg := range map[string]ssh.Config{
		"CBC":                       {Ciphers: []string{"aes128-cbc", "3des-cbc"}},
		"RC4":                       {Ciphers: []string{"arcfour256", "arcfour"}},
		"SHA-1 for integrity":       {Ciphers: []string{"aes128-ctr"}, MACs: []string{"hmac-sha1", "hmac-sha1-96"}},
		"SHA-1 in the key exchange": {KeyExchanges: []string{"diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1", "diffie-hellman-group-exchange-sha1"}},
	} {
		nc, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, err = ssh.NewClientConn(nc, h.addr, &ssh.ClientConfig{
			Config: cfg, User: "t.target", Auth: []ssh.AuthMethod{ssh.Password(enginetest.Token)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // it is ours
		})
		_ = nc.Close()
		if err == nil {
			t.Errorf("%s was agreed on", what)
		}
	}
	if h.door.Opened() > 0 {
		t.Error("a session was opened")
	}
	h.usable(t)
}

// TestGiantPackets: a length from outside is no reason to allocate.
func TestGiantPackets(t *testing.T) {
	h := newHouse(t)
	for _, length := range []uint32{0, 1, 4, 5, 1 << 19, 1 << 24, 1 << 31, 1<<32 - 1} {
		nc, r := h.raw(t)
		offers(t, r)
		packet := append(binary.BigEndian.AppendUint32(nil, length), bytes.Repeat([]byte{20}, 64)...)
		_, _ = nc.Write(packet)
		_ = nc.(*net.TCPConn).CloseWrite()
		if rest, err := io.ReadAll(io.LimitReader(r, 1<<20)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("length %d: not closed, after %d bytes", length, len(rest))
		}
	}
	h.usable(t)
}

// TestHalfOpen: handshakes that nobody goes on with end, and hurt nobody meanwhile
// (CVE-2024-1052).
func TestHalfOpen(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.Handshake = 10 * time.Second })
	const many = 1000
	conns := make([]net.Conn, 0, many)
	for i := range many {
		nc, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if i%2 == 0 {
			_, _ = nc.Write([]byte("SSH-2.0-slow\r\n"))
		}
		conns = append(conns, nc)
	}
	h.usable(t)
	for _, nc := range conns {
		_ = nc.SetReadDeadline(time.Now().Add(60 * time.Second))
		if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a handshake that stands still is not ended")
		}
	}
}

// TestManyChannels: thousands are asked for, and a few are open.
func TestManyChannels(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.Channels = 8 })
	c := h.connect(t)
	open, refused := 0, 0
	for range 3000 {
		ch, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			var why *ssh.OpenChannelError
			if errors.As(err, &why) && why.Reason == ssh.ResourceShortage {
				refused++
			}
			continue
		}
		open++
		go ssh.DiscardRequests(requests)
		t.Cleanup(func() { _ = ch.Close() })
	}
	if open != 8 || refused != 3000-8 {
		t.Errorf("%d channels are open, and %d were refused", open, refused)
	}
	h.usable(t)
}

// TestManyVariables: a channel takes a few.
func TestManyVariables(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.Requests = 8 })
	ch, requests, err := h.connect(t).OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	taken := 0
	for i := range 100 {
		if ok, err := ch.SendRequest("env", true, ssh.Marshal(struct{ Name, Value string }{fmt.Sprint("V", i), "x"})); err != nil {
			t.Fatal(err)
		} else if ok {
			taken++
		}
	}
	if taken != 8 {
		t.Errorf("%d variables were taken", taken)
	}
}

// TestLyingSFTP: lengths that are not so end the file session and nothing else.
func TestLyingSFTP(t *testing.T) {
	h := newHouse(t)
	dir := place(t, "")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	only(h, func(f *facts.Facts) bool {
		ok := f.Verb == facts.Files || f.Verb == facts.Exec
		for _, p := range f.Paths {
			ok = p == dir || strings.HasPrefix(p, dir+"/")
		}
		return ok
	})
	c := h.connect(t)
	packet := func(kind byte, rest ...byte) []byte {
		return append(append(binary.BigEndian.AppendUint32(nil, uint32(1+len(rest))), kind), rest...)
	}
	hello := packet(1, 0, 0, 0, 3)
	text := func(s string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }
	id := []byte{0, 0, 0, 1}
	for what, said := range map[string][]byte{
		"a length of 4 GiB":               {0xff, 0xff, 0xff, 0xff, 3},
		"a length of 0":                   {0, 0, 0, 0},
		"more than may come":              binary.BigEndian.AppendUint32(nil, 1<<24),
		"a path longer than its packet":   packet(3, append(slices.Clone(id), 0xff, 0xff, 0xff, 0xf0, '/')...),
		"an unknown kind":                 packet(99, id...),
		"no id":                           packet(3),
		"a handle that nobody gave":       packet(5, slices.Concat(id, text("nonsense"), make([]byte, 8), []byte{0, 0, 0, 9})...),
		"a write longer than its packet":  packet(6, slices.Concat(id, text("0"), make([]byte, 8), []byte{0x7f, 0xff, 0xff, 0xff}, []byte("x"))...),
		"attributes that are not there":   packet(9, slices.Concat(id, text(dir), []byte{0xff, 0xff, 0xff, 0xff})...),
		"a path that climbs":              packet(3, slices.Concat(id, text(dir+"/../../../../etc/passwd"), []byte{0, 0, 0, 1, 0, 0, 0, 0})...),
		"a path that climbs, not at once": packet(3, slices.Concat(id, text(dir+"/x/../../../../../etc/passwd"), []byte{0, 0, 0, 1, 0, 0, 0, 0})...),
		"a path with an end in it":        packet(3, slices.Concat(id, text(dir+"\x00/../etc/passwd"), []byte{0, 0, 0, 1, 0, 0, 0, 0})...),
		"a folder that climbs":            packet(11, slices.Concat(id, text(".."))...),
	} {
		ch, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		go ssh.DiscardRequests(requests)
		if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"})); !ok || err != nil {
			t.Fatalf("%v %v", ok, err)
		}
		_, _ = ch.Write(append(slices.Clone(hello), said...))
		_ = ch.CloseWrite()
		ended := make(chan []byte, 1)
		go func() { b, _ := io.ReadAll(ch); ended <- b }()
		select {
		case answer := <-ended:
			if bytes.Contains(answer, []byte("root:")) || bytes.Contains(answer[min(len(answer), 9):], []byte{102}) && strings.Contains(what, "climb") && handle(answer) {
				t.Errorf("%s: answered with %q", what, answer)
			}
		case <-time.After(60 * time.Second):
			t.Errorf("%s: not ended", what)
		}
		_ = ch.Close()
	}
	if out, _, err := c.run(testContext(t), "echo well"); err != nil || string(out) != "well\n" {
		t.Errorf("the connection is of no use: %q %v", out, err)
	}
}

// handle reports whether an answer of SFTP has a handle in it (SSH_FXP_HANDLE).
func handle(answer []byte) bool {
	for len(answer) >= 5 {
		n := int(binary.BigEndian.Uint32(answer))
		if answer[4] == 102 {
			return true
		}
		answer = answer[min(len(answer), 4+n):]
	}
	return false
}

// TestOwnersStay: nobody is made an owner, and no link is followed out of what is
// permitted (Teleport 14.0.3, RecursiveChown).
func TestOwnersStay(t *testing.T) {
	h := newHouse(t)
	dir := place(t, "")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	only(h, func(f *facts.Facts) bool {
		ok := f.Verb == facts.Files
		for _, p := range f.Paths {
			if ok = strings.HasPrefix(p, dir+"/"); !ok {
				break
			}
		}
		return ok
	})
	c := sftpClient(t, h)
	for what, err := range map[string]error{
		"an owner":              c.Chown(filepath.Join(dir, "mine"), 1, 1),
		"an owner by a link":    c.Chown(filepath.Join(dir, "link"), 1, 1),
		"modes by a link":       c.Chmod(filepath.Join(dir, "link"), 0o777),
		"a size by a link":      c.Truncate(filepath.Join(dir, "link"), 10),
		"a time by a link":      c.Chtimes(filepath.Join(dir, "link"), time.Unix(1, 0), time.Unix(1, 0)),
		"removing by a folder":  c.Remove(filepath.Join(dir, "..", filepath.Base(dir), "link", "x")),
		"a link out of it":      c.Symlink(outside, filepath.Join(dir, "other")),
		"a hard link out of it": c.Link(outside, filepath.Join(dir, "hard")),
	} {
		if err == nil {
			t.Errorf("%s was changed", what)
		}
	}
	if err := c.Chmod(filepath.Join(dir, "mine"), 0o4777|os.ModeSetuid); err != nil {
		t.Error(err)
	}
	if i, err := os.Stat(filepath.Join(dir, "mine")); err != nil || i.Mode()&os.ModeSetuid != 0 {
		t.Errorf("setuid: %v %v", i.Mode(), err)
	}
	if i, err := os.Stat(outside); err != nil || i.Mode().Perm() != 0o600 || i.Size() != 0 {
		t.Errorf("outside: %v %v", i, err)
	}
}
