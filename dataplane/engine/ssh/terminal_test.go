package ssh

import (
	"io"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/pkg/postern"
	facts "github.com/posterngate/postern/pkg/ssh"
)

// TestSizesAreRecorded: a terminal is shown again as wide as it was at each moment.
func TestSizesAreRecorded(t *testing.T) {
	for name, guarded := range map[string]bool{"the host's shell": false, "a guarded one": true} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			only(h, func(*facts.Facts) bool { return true }, postern.Obligation{Guard: guarded})
			s, err := h.connect(t).NewSession()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
				t.Fatal(err)
			}
			in, err := s.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := s.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Shell(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 1)); err != nil { // it runs
				t.Fatal(err)
			}
			for _, columns := range []int{132, 132, 40} {
				if err := s.WindowChange(50, columns); err != nil {
					t.Fatal(err)
				}
			}
			// A request that is answered comes after those that are not.
			if _, err := s.SendRequest("env", true, ssh.Marshal(struct{ Name, Value string }{"X", "x"})); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(in, "exit\r"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, out); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(h.door.Last().Executions()[0].Sizes, " "); got != "80x24 132x50 40x50" {
				t.Errorf("recorded %q", got)
			}
		})
	}
}
