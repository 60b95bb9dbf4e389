package ssh

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/run"
)

// TestTerrapin: somebody on the way slips packets into the key exchange and cuts as many
// from what follows, so that the numbers of packets agree again (CVE-2023-48795). What
// is slipped in ends the connection, wherever.
func TestTerrapin(t *testing.T) {
	h := newHouse(t)
	const ignore, unimplemented, debug = 2, 3, 4
	messages := map[string][]byte{
		"ignore": {ignore, 0, 0, 0, 0}, "unimplemented": {unimplemented, 0, 0, 0, 0}, "debug": {debug, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	}
	try := func(m meddler) error {
		m.addr = h.addr
		nc := m.between(t)
		defer nc.Close()
		conn, _, _, err := ssh.NewClientConn(nc, h.addr, &ssh.ClientConfig{
			Config: ssh.Config{Ciphers: []string{ssh.CipherChaCha20Poly1305}}, User: "t.target",
			Auth: []ssh.AuthMethod{ssh.Password(enginetest.Token)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // it is ours
		})
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	if err := try(meddler{}); err != nil {
		t.Fatalf("whoever only listens in the way: %v", err)
	}
	opened := h.door.Opened()
	for name, message := range messages {
		for before := range 3 { // the client's proposal, its key, and its "new keys"
			for _, cut := range []int{0, serviceRequest} {
				if err := try(meddler{before: before, inject: message, cut: cut}); err == nil {
					t.Errorf("%s before packet %d, and %d bytes cut: the client was let in", name, before, cut)
				}
			}
		}
	}
	if n := h.door.Opened(); n != opened {
		t.Errorf("%d sessions were opened", n-opened)
	}
	h.usable(t)
}

// serviceRequest is the length of the first packet under the new keys, the one that asks
// for authentication: 4 bytes of length, 24 that are a multiple of 8, and the tag.
const serviceRequest = 4 + 24 + 16

// A meddler passes on what client and node say, and changes what the client does.
type meddler struct {
	addr   string
	before int    // which of the client's packets inject goes before
	inject []byte // a message
	cut    int    // how many bytes after the client's "new keys" are left out
}

// between is a connection of a client through the meddler, to the test's end.
func (m meddler) between(t *testing.T) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	out, err := net.Dial("tcp", m.addr)
	if err != nil {
		t.Fatal(err)
	}
	g := run.New(context.Background())
	t.Cleanup(func() {
		for _, c := range []net.Conn{client, in, out} {
			_ = c.Close()
		}
		_ = g.Wait()
	})
	g.Go("back", func(context.Context) error { _, _ = io.Copy(in, out); _ = in.Close(); return nil })
	g.Go("there", func(context.Context) error { _ = m.pass(out, bufio.NewReader(in)); _ = out.Close(); return nil })
	return client
}

// pass is the way from the client, until either has gone.
func (m meddler) pass(w io.Writer, r *bufio.Reader) error {
	version, err := r.ReadBytes('\n')
	if err != nil {
		return err
	}
	if _, err := w.Write(version); err != nil {
		return err
	}
	const newKeys = 21
	for i := 0; ; i++ {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		packet := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(r, packet); err != nil {
			return err
		}
		if m.inject != nil && i == m.before {
			if _, err := w.Write(plainPacket(m.inject)); err != nil {
				return err
			}
		}
		if _, err := w.Write(append(head[:], packet...)); err != nil {
			return err
		}
		if packet[1] == newKeys {
			break
		}
	}
	if _, err := io.CopyN(io.Discard, r, int64(m.cut)); err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return err
}

// plainPacket frames a message as it is before there are keys.
func plainPacket(message []byte) []byte {
	padding := 4
	for (4+1+len(message)+padding)%8 != 0 {
		padding++
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(1+len(message)+padding))
	out = append(append(out, byte(padding)), message...)
	return append(out, make([]byte, padding)...)
}
