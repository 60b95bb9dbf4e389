package http

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
)

// TestPassword: git, which knows of a name and a password and sends them once it is asked for
// them, reads what is behind the gateway.
func TestPassword(t *testing.T) {
	h := newHouse(t)
	ref := strings.Repeat("a1", 20) + "\trefs/heads/main\n"
	for path, says := range map[string]string{"/r.git/info/refs": ref, "/r.git/HEAD": "ref: refs/heads/main\n"} {
		h.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, says) })
	}
	for password, fine := range map[string]bool{enginetest.Token: true, "another": false} {
		c := exec.CommandContext(t.Context(), "git", "-c", "http.extraHeader=Postern-Task: t.target", "ls-remote", "http://postern:"+password+"@"+h.addr+"/r.git", "refs/heads/main")
		c.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "HOME="+t.TempDir(), "GIT_ASKPASS=true")
		out, err := c.CombinedOutput()
		if (err == nil && string(out) == ref) != fine {
			t.Errorf("%v: %s", err, out)
		}
	}
}
