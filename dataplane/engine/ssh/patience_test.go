package ssh

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
	facts "github.com/posterngate/postern/pkg/ssh"
	"github.com/posterngate/postern/test/wait"
)

// held makes a house in which each session must be let in, by whoever answers await.
func held(t *testing.T, await func(ctx context.Context, progress func(string)) error, change ...func(*Config)) *house {
	t.Helper()
	h := newHouse(t, change...)
	h.door.Terms(func(terms *engine.Terms) { terms.Hold = true })
	h.door.Set(func(p *enginetest.Policy) { p.Await = await })
	return h
}

// ask opens a channel and asks something of it.
func ask(t *testing.T, c *client, kind, what string) ssh.Channel {
	t.Helper()
	ch, requests, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	if ok, err := ch.SendRequest(kind, true, ssh.Marshal(struct{ What string }{what})); !ok || err != nil {
		t.Fatalf("%s %s: %v %v", kind, what, ok, err)
	}
	return ch
}

// TestLetInFirst: before people let a session in, the host hears nothing of it.
func TestLetInFirst(t *testing.T) {
	asked := make(chan struct{}, 16)
	h := held(t, func(ctx context.Context, _ func(string)) error {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	for kind, what := range map[string]string{"subsystem": "sftp", "exec": "scp -t /tmp"} {
		c := h.connect(t)
		ch := ask(t, c, kind, what)
		answered := make(chan struct{})
		go func() {
			_, _ = ch.Write(append(binary.BigEndian.AppendUint32(nil, 5), 1, 0, 0, 0, 3))
			_, _ = ch.Read(make([]byte, 1))
			close(answered)
		}()
		select {
		case <-asked:
		case <-answered:
			t.Errorf("%s: answered before anybody was asked", what)
		case <-time.After(60 * time.Second):
			t.Fatalf("%s: nobody was asked", what)
		}
		if h.door.Last().Sent("SSH-2.0") {
			t.Errorf("%s: the host was spoken to", what)
		}
		c.Close()
	}
}

// people are asked to let a session in.
type people struct {
	engine.Session
	say   chan error
	asked atomic.Int64
}

func (p *people) AwaitSession(ctx context.Context, _ func(string)) error {
	p.asked.Add(1)
	select {
	case err := <-p.say:
		return err
	case <-ctx.Done():
		return errGone
	}
}

// TestOneNo: all that waited for people have their one answer; who gives up gives none, and
// who comes later asks anew.
func TestOneNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{say: make(chan error)}
		c := &conn{s: p, terms: &engine.Terms{Hold: true}, letting: make(chan struct{}, 1)}
		heard := make(chan error, 6)
		wait := func(ctx context.Context) { go func() { heard <- c.letIn(ctx, nil) }(); synctest.Wait() }
		left, leave := context.WithCancel(t.Context())
		wait(left)
		for range 5 {
			wait(t.Context())
		}
		leave()
		if err := <-heard; !errors.Is(err, errGone) {
			t.Errorf("who left heard %v", err)
		}
		synctest.Wait()
		no := &postern.Refusal{Code: postern.CodeCancelled, Reason: "refused by bob"}
		p.say <- no
		for range 5 {
			if err := <-heard; !errors.Is(err, no) {
				t.Errorf("heard %v", err)
			}
		}
		if n := p.asked.Load(); n != 2 {
			t.Errorf("people were asked %d times", n)
		}
		wait(t.Context())
		p.say <- nil
		if err := <-heard; err != nil {
			t.Errorf("after a yes: %v", err)
		}
		if err := c.letIn(t.Context(), nil); err != nil || p.asked.Load() != 3 {
			t.Errorf("once let in: %v, asked %d times", err, p.asked.Load())
		}
	})
}

// TestAbandoned: what a client gives up while people are asked is gone at once.
func TestAbandoned(t *testing.T) {
	asked := make(chan struct{}, 16)
	h := held(t, func(ctx context.Context, _ func(string)) error {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	c := h.connect(t)
	ask(t, c, "exec", "true")
	<-asked
	before := runtime.NumGoroutine()
	const many = 50
	for range many {
		_ = ask(t, c, "exec", "true").Close()
	}
	wait.Telling(t, func() string {
		return fmt.Sprintf("few goroutines more than the %d there were: %d", before, runtime.NumGoroutine())
	},
		func() bool { return runtime.NumGoroutine() <= before+many/2 })
}

// TestStillOpen: a channel whose command has not ended counts as open, closed or not.
func TestStillOpen(t *testing.T) {
	asked, answer := make(chan struct{}, 16), make(chan struct{})
	h := newHouse(t, func(c *Config) { c.Limits.Channels = 3 })
	t.Cleanup(func() { close(answer) }) // before the house ends, which waits for it
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(string, any) postern.Decision {
			return postern.Decision{Verdict: postern.VerdictHold, Level: postern.LevelSource}
		}
		p.Await = func(context.Context, func(string)) error { // as what hangs does
			asked <- struct{}{}
			<-answer
			return errors.New("too late")
		}
	})
	c := h.connect(t)
	for range 3 {
		ch := ask(t, c, "exec", "true")
		<-asked
		_ = ch.Close()
		for { // until the node has closed it too
			if _, err := ch.Read(make([]byte, 1)); err != nil {
				break
			}
		}
	}
	ch, _, err := c.OpenChannel("session", nil)
	var why *ssh.OpenChannelError
	if !errors.As(err, &why) || why.Reason != ssh.ResourceShortage {
		t.Errorf("one more was opened: %v %v", ch, err)
	}
}

// TestWaitedCopy: what people were asked for ends as what they were not.
func TestWaitedCopy(t *testing.T) {
	h := newHouse(t)
	dir := place(t, "")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(_ string, f any) postern.Decision {
			d := postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
			if f.(*facts.Facts).Verb == facts.Write {
				d.Verdict = postern.VerdictHold
			}
			return d
		}
		p.Await = func(_ context.Context, progress func(string)) error {
			progress("waiting for leads")
			return nil
		}
	})
	file := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(file, []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := h.stock(t, "scp", "-O", file, "node:"+dir+"/a"); code != 0 || !strings.Contains(errs, "postern: waiting for leads") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "a")); string(b) != "a" {
		t.Errorf("%q arrived: %v", b, err)
	}
}

// TestOpenFolders: folders count as files do, for what is in them is kept.
func TestOpenFolders(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.Files = 4 })
	ch := ask(t, h.connect(t), "subsystem", "sftp")
	said := bufio.NewReader(ch)
	text := func(s string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }
	var id uint32
	exchange := func(kind byte, rest ...byte) (answer byte, handle string) {
		t.Helper()
		body := rest
		if kind != 1 {
			id++
			body = append(binary.BigEndian.AppendUint32(nil, id), rest...)
		}
		if _, err := ch.Write(append(append(binary.BigEndian.AppendUint32(nil, uint32(1+len(body))), kind), body...)); err != nil {
			t.Fatal(err)
		}
		var size [4]byte
		if _, err := io.ReadFull(said, size[:]); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(said, got); err != nil {
			t.Fatal(err)
		}
		if got[0] == 102 { // SSH_FXP_HANDLE
			handle = string(got[9:])
		}
		return got[0], handle
	}
	exchange(1, 0, 0, 0, 3)
	var handles []string
	for range 20 {
		if kind, handle := exchange(11, text("/")...); kind == 102 {
			handles = append(handles, handle)
		}
	}
	if len(handles) != 4 {
		t.Fatalf("%d folders are open", len(handles))
	}
	exchange(4, text(handles[0])...)
	if kind, _ := exchange(11, text("/")...); kind != 102 {
		t.Error("one was closed, and none can be opened")
	}
}

// TestAside: what comes early is kept within bounds, for each file and for all together.
func TestAside(t *testing.T) {
	var a aside
	tiny := newDigest(&a)
	for i := range int64(1 << 18) {
		tiny.part(2*i+1, []byte{0})
	}
	if n := len(tiny.ahead); n > maxAhead/partCost {
		t.Errorf("%d tiny parts are kept", n)
	}
	var all []*digest
	p := make([]byte, packet)
	for range 2 * maxAside / maxAhead {
		d := newDigest(&a)
		for i := range int64(maxAhead/packet - 8) {
			d.part(1+i*packet, p)
		}
		all = append(all, d)
	}
	if n := a.bytes.Load(); n > maxAside+2*packet {
		t.Errorf("%d bytes are kept", n)
	}
	for _, d := range append(all, tiny) {
		d.lose()
	}
	if n := a.bytes.Load(); n != 0 {
		t.Errorf("%d bytes are kept in the end", n)
	}
}
