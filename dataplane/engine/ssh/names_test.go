package ssh

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pkg/sftp"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
	facts "github.com/posterngate/postern/pkg/ssh"
)

// moving is a folder that is judged, and one with links out of what is permitted that is put in
// its place before the host is told the name.
type moving struct{ dir, secret string }

func newMoving(t *testing.T) *moving {
	m := &moving{dir: place(t, "")}
	m.secret = filepath.Join(place(t, "away-"), "secret")
	files := map[string]string{m.secret: "secret", m.at("in/file"): "inside"}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"in/sub", "links"} {
		if err := os.Mkdir(m.at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"links/file": m.secret, "links/sub": filepath.Dir(m.secret)} {
		if err := os.Symlink(to, m.at(name)); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m *moving) at(name string) string { return filepath.Join(m.dir, name) }

// swap puts the links in the folder's place.
func (m *moving) swap(rename func(from, to string) error) error {
	if err := rename(m.at("in"), m.at("old")); err != nil {
		return err
	}
	return rename(m.at("links"), m.at("in"))
}

// uses are the ways to use the names.
func (m *moving) uses(t *testing.T, h *house) map[string]func(c *sftp.Client) error {
	file := m.at("in/file")
	return map[string]func(c *sftp.Client) error{
		"read":     func(c *sftp.Client) error { return second(c.Open(file)) },
		"write":    func(c *sftp.Client) error { return second(c.OpenFile(file, os.O_WRONLY|os.O_TRUNC)) },
		"both":     func(c *sftp.Client) error { return second(c.OpenFile(file, os.O_RDWR)) },
		"stat":     func(c *sftp.Client) error { return second(c.Stat(file)) },
		"lstat":    func(c *sftp.Client) error { return second(c.Lstat(file)) },
		"readlink": func(c *sftp.Client) error { return second(c.ReadLink(file)) },
		"list":     func(c *sftp.Client) error { return second(c.ReadDir(m.at("in/sub"))) },
		"setstat":  func(c *sftp.Client) error { return c.Chmod(file, 0o666) },
		"mkdir":    func(c *sftp.Client) error { return c.Mkdir(m.at("in/sub/new")) },
		"remove":   func(c *sftp.Client) error { return c.Remove(m.at("in/sub/secret")) },
		"rename":   func(c *sftp.Client) error { return c.Rename(m.at("in/sub/secret"), m.at("mine")) },
		"scp": func(*sftp.Client) error {
			if said := said(t, h.connect(t), "scp -f "+file, "\x00\x00\x00\x00"); strings.Contains(said, "\nsecret") || !strings.Contains(said, "was moved") {
				t.Errorf("scp: %q", said)
			}
			return fs.ErrPermission
		},
		"scp -t": func(*sftp.Client) error {
			if said := said(t, h.connect(t), "scp -t "+file, "C0644 3 file\nnew\x00"); !strings.Contains(said, "was moved") {
				t.Errorf("scp -t: %q", said)
			}
			return fs.ErrPermission
		},
		"scp -rt": func(*sftp.Client) error {
			if said := said(t, h.connect(t), "scp -rt "+m.at("in/sub"), "D0755 0 new\nE\n"); !strings.Contains(said, "was moved") {
				t.Errorf("scp -rt: %q", said)
			}
			return fs.ErrPermission
		},
	}
}

// unharmed makes sure that nothing was done to what is not permitted.
func (m *moving) unharmed(t *testing.T) {
	t.Helper()
	if text, err := os.ReadFile(m.secret); err != nil || string(text) != "secret" {
		t.Errorf("what is not permitted is %q now, %v", text, err)
	}
	if info, err := os.Stat(m.secret); err != nil || info.Mode() != 0o600 {
		t.Errorf("what is not permitted is %v now, %v", info, err)
	}
	entries, err := os.ReadDir(filepath.Dir(m.secret))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside it there are %v, %v", entries, err)
	}
}

// within allows the files below dir, and says what comes of a first use of them.
func (m *moving) within(h *house, used func() postern.Verdict) {
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(_ string, f any) postern.Decision {
			fa := f.(*facts.Facts)
			if fa.Verb == facts.Files {
				return postern.Decision{Verdict: postern.VerdictAllow}
			}
			for _, name := range fa.Paths {
				if !strings.HasPrefix(name, m.dir+"/") {
					return postern.Decision{Rule: "t/permit", Reason: "not allowed here"}
				}
			}
			return postern.Decision{Verdict: used(), Rule: "t/permit"}
		}
	})
}

// TestMovedWhilePeopleAreAsked: what people say yes to is what is done, or nothing.
func TestMovedWhilePeopleAreAsked(t *testing.T) {
	for name := range (&moving{}).uses(nil, nil) {
		t.Run(name, func(t *testing.T) {
			h, m := newHouse(t), newMoving(t)
			m.within(h, func() postern.Verdict { return postern.VerdictHold })
			var once atomic.Bool
			h.door.Set(func(p *enginetest.Policy) {
				p.Await = func(context.Context, func(string)) error {
					if once.Swap(true) {
						return nil
					}
					return m.swap(os.Rename)
				}
			})
			if err := m.uses(t, h)[name](sftpClient(t, h)); err == nil {
				t.Error("it was done")
			}
			m.unharmed(t)
		})
	}
}

// TestMovedByAnotherSession: nobody moves a name to elsewhere between its judging and its use.
func TestMovedByAnotherSession(t *testing.T) {
	for name := range (&moving{}).uses(nil, nil) {
		t.Run(name, func(t *testing.T) {
			h, m := newHouse(t), newMoving(t)
			mover := sftpClient(t, h)
			var once atomic.Bool
			m.within(h, func() postern.Verdict {
				if !once.Swap(true) {
					if err := m.swap(mover.PosixRename); err != nil {
						t.Error(err)
					}
				}
				return postern.VerdictAllow
			})
			if err := m.uses(t, h)[name](sftpClient(t, h)); err == nil {
				t.Error("it was done")
			}
			m.unharmed(t)
		})
	}
}

// TestFolderInAFilesPlace: a folder is not moved by a yes to moving a file.
func TestFolderInAFilesPlace(t *testing.T) {
	h, m := newHouse(t), newMoving(t)
	m.within(h, func() postern.Verdict { return postern.VerdictHold })
	h.door.Set(func(p *enginetest.Policy) {
		p.Await = func(context.Context, func(string)) error {
			if err := os.Remove(m.at("in/file")); err != nil {
				return err
			}
			return os.Mkdir(m.at("in/file"), 0o755)
		}
	})
	if err := sftpClient(t, h).Rename(m.at("in/file"), m.at("other")); err == nil {
		t.Error("a folder was moved")
	}
	if _, err := os.Stat(m.at("in/file")); err != nil {
		t.Error(err)
	}
}
