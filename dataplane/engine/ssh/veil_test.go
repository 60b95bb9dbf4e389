package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/detect"
	"github.com/posterngate/postern/pkg/postern"
	facts "github.com/posterngate/postern/pkg/ssh"
	"github.com/posterngate/postern/test/wait"
)

func hidden(kinds ...string) postern.Obligation {
	rule := &postern.ContentRule{}
	for _, k := range kinds {
		rule.Detect = append(rule.Detect, postern.DetectRule{Kind: k, Mask: &postern.MaskRule{Name: "hidden", Method: postern.MaskRedact, Value: "***"}})
	}
	return postern.Obligation{Content: rule}
}

func maskSet(t testing.TB, kinds ...string) *detect.Set {
	t.Helper()
	set, err := masks(&postern.Decision{Obligations: []postern.Obligation{hidden(kinds...)}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// escapes are sequences that a person does not see.
var escapes = []string{"\x1b[0m", "\x1b[31m", "\x1b[1;4;38;5;196m", "\x1b[?25l", "\x1b[?25h", "\x1b]0;a title\x07", "\x1b]8;;\x1b\\", "\x1b(B", "\x1b[m", "\x1b>", "\x1b="}

var escapeForm = regexp.MustCompile("\x1b\\[[0-9;?]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1b\\(.|\x1b[=>]|\x00")

// seen is what a person sees of a stream.
func seen(p []byte) string { return escapeForm.ReplaceAllString(string(p), "") }

// TestVeil: a planted value is never in what the client gets, however the host's words are
// cut, with whatever in them and whenever the window changes or somebody waits; and what
// is not masked comes as it is.
func TestVeil(t *testing.T) {
	const rounds = 10_000
	set := maskSet(t, "email", "card", "secrets")
	planted := []string{"alice@example.com", "4111 1111 1111 1111", "ghp_" + strings.Repeat("a1B2", 9), "zacharias.quill@sub.sample.example"}
	words := []string{"the", "quick", "fox", "total", "12", "[ok]", "at", "root:", "drwxr-xr-x", "—", "ü"}
	for round := range rounds {
		r := rand.New(rand.NewPCG(1, uint64(round)))
		pick := func(list []string) string { return list[r.IntN(len(list))] }
		secret := pick(planted)
		var text strings.Builder
		say := func(s string) {
			for i := range len(s) {
				if r.IntN(6) == 0 {
					text.WriteString(pick(escapes))
				}
				text.WriteByte(s[i])
			}
		}
		filler := func() {
			for range r.IntN(12) {
				text.WriteString(pick(words) + pick([]string{" ", " ", "\r\n", "\x1b[1m "}))
			}
		}
		filler()
		from := text.Len()
		say(secret)
		to := text.Len()
		text.WriteString(pick([]string{" ", "\r\n", "\t|", ", "}))
		filler()
		all := []byte(text.String())
		var got bytes.Buffer
		v := newVeil(set, func(p []byte) error { got.Write(p); return nil })
		v.resize(uint32(r.IntN(2) * (200 + r.IntN(100))))
		flushed := false
		for rest := all; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(1+r.IntN(40)))
			if err := v.write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
			switch r.IntN(8) {
			case 0:
				v.resize(uint32(200 + r.IntN(100)))
			case 1:
				v.flush()
				flushed = true
			}
		}
		if err := v.end(); err != nil {
			t.Fatal(err)
		}
		part := 12 // nor the better part of it
		if flushed {
			part = len(secret) // the beginning of a word that a person waits for is harmless
		}
		for n := len(secret); n >= part; n-- {
			if strings.Contains(seen(got.Bytes()), secret[:n]) {
				t.Fatalf("round %d: %q shows %q in\n%q", round, secret, secret[:n], got.Bytes())
			}
		}
		if !bytes.HasPrefix(got.Bytes(), all[:from]) || !bytes.HasSuffix(got.Bytes(), all[to:]) {
			t.Fatalf("round %d: around the value it says\n%q, and the host said\n%q", round, got.Bytes(), all)
		}
	}
}

// TestVeilWaits: a prompt shows soon although nothing follows, and what may be the
// beginning of something does not.
func TestVeilWaits(t *testing.T) {
	var mu sync.Mutex
	var got bytes.Buffer
	v := newVeil(maskSet(t, "email"), func(p []byte) error { mu.Lock(); defer mu.Unlock(); got.Write(p); return nil })
	has := func() string { mu.Lock(); defer mu.Unlock(); return got.String() }
	if err := v.write([]byte("login")); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "the prompt shows", func() bool { return has() == "login" })
	for _, part := range []string{"\r\nalice@exam", "ple.com"} { // as they drip
		if err := v.write([]byte(part)); err != nil {
			t.Fatal(err)
		}
		v.flush()
		if strings.Contains(has(), "alice") {
			t.Fatalf("shown: %q", has())
		}
	}
	if err := v.end(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(has(), "alice") || strings.Contains(has(), "ple.com") || !strings.Contains(has(), "\r\n") {
		t.Errorf("shown: %q", has())
	}
	failed := errors.New("gone")
	w := newVeil(maskSet(t, "email"), func([]byte) error { return failed })
	if err := w.write([]byte("x y")); !errors.Is(err, failed) {
		t.Errorf("%v", err)
	}
}

// TestMasked is the same through a host: commands, terminals, the guarded shell, and what
// is recorded.
func TestMasked(t *testing.T) {
	h := newHouse(t)
	dir := place(t, "")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"plain": "user alice@example.com is in\n", "colours": "ali\x1b[0mce@exa\x1b[31mmple.com\n",
		"drips":  "#!/bin/sh\nprintf 'alice@exam'\nsleep 1\nprintf 'ple.com'\nsleep 1\necho ' done'\n",
		"beside": "#!/bin/sh\nprintf 'alice@example.com\\n' >&2\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	only(h, func(f *facts.Facts) bool { return f.Verb == facts.Exec || f.Verb == facts.Shell }, hidden("email"))
	c := h.connect(t)
	check := func(what string, got []byte, wants string) {
		t.Helper()
		if s := seen(got); strings.Contains(s, "alice") || strings.Contains(s, "ple.com") || !strings.Contains(s, wants) {
			t.Errorf("%s: %q", what, got)
		}
	}
	for line, want := range map[string]string{
		"cat " + dir + "/plain": " is in\n", "cat " + dir + "/colours": "*", dir + "/drips": " done", dir + "/beside": "*",
		"cat " + dir + "/plain " + dir + "/colours": "user ",
	} {
		out, said, err := c.run(testContext(t), line)
		if err != nil {
			t.Fatalf("%s: %v %s", line, err, said)
		}
		check(line, append(out, said...), want)
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.RequestPty("xterm", 24, 20, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var out bytes.Buffer
	s.Stdout = writer(func(p []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return out.Write(p) })
	shown := func() string { mu.Lock(); defer mu.Unlock(); return out.String() }
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(in, "PS1='$ '; cd %s; %s/drips; echo e''nd\n", dir, dir)
	if err := s.WindowChange(24, 30); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "the shell has said all", func() bool { return strings.Contains(shown(), "end") })
	fmt.Fprintln(in, "cat colours plain; exit")
	_ = s.Wait()
	check("terminal", []byte(shown()), " is in")
	var raw []byte
	for _, e := range h.door.Last().Executions() {
		if strings.Contains(seen(e.Data), "alice@") {
			t.Errorf("recorded: %q", e.Data)
		}
		raw = append(raw, e.Raw...)
	}
	if !bytes.Contains(raw, []byte("user alice@example.com is in")) {
		t.Errorf("what the masks hid is not told: %q", raw)
	}
	// What has no place in a stream is refused.
	only(h, func(*facts.Facts) bool { return true }, postern.Obligation{Content: &postern.ContentRule{Fields: []postern.FieldRule{{Path: "/email"}}}})
	if out, _, err := c.run(testContext(t), "echo hello"); err == nil || len(out) > 0 {
		t.Errorf("a mask that cannot be kept: %q %v", out, err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// TestMaskedGuard: what the guarded shell masks is masked in every line of it.
func TestMaskedGuard(t *testing.T) {
	h := newHouse(t)
	name := place(t, "")
	if err := os.WriteFile(name, []byte("user alice@example.com is in\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	only(h, func(f *facts.Facts) bool { return f.Verb == facts.Exec })
	decide := h.door
	decide.Set(func(p *enginetest.Policy) {
		inner := p.Decide
		p.Decide = func(text string, f any) postern.Decision {
			if fa, ok := f.(*facts.Facts); ok && fa.Verb == facts.Shell {
				return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource, Obligations: []postern.Obligation{{Guard: true}, hidden("email")}}
			}
			return inner(text, f)
		}
	})
	s, err := h.connect(t).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 200, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s.Stdout, s.Stdin = &out, strings.NewReader("cat "+name+"\rexit\r")
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(30*time.Second, func() { _ = s.Close() })
	defer late.Stop()
	_ = s.Wait()
	if strings.Contains(out.String(), "alice@") || !strings.Contains(out.String(), " is in") {
		t.Errorf("shown: %q", out.String())
	}
}
