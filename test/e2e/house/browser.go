package house

import (
	"context"
	_ "embed" // the driver
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/test/servers"
)

//go:embed browser.cjs
var driver []byte

// A Step is one thing that somebody does in a browser; see browser.cjs.
type Step struct {
	Open   string `json:"open,omitempty"`
	SignIn string `json:"signIn,omitempty"`
	Then   string `json:"then,omitempty"` // where a sign-in leads to
	Fill   string `json:"fill,omitempty"`
	With   string `json:"with,omitempty"`
	Press  string `json:"press,omitempty"`
	Key    string `json:"key,omitempty"`
	Click  string `json:"click,omitempty"`
	See    string `json:"see,omitempty"`
	Wait   string `json:"wait,omitempty"`
	Text   string `json:"text,omitempty"`
}

// A Browsed is what a browser saw.
type Browsed struct {
	Texts, Complaints []string
	Headers           map[string]string
	URL               string
	Cookies           []Crumb
}

// A Crumb is one cookie.
type Crumb struct {
	Name, Value, Domain, SameSite, Path string
	Secure, HTTPOnly                    bool
}

// Browse drives a Chromium of its own.
func Browse(t testing.TB, steps ...Step) Browsed {
	t.Helper()
	b := servers.Chromium(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	script := filepath.Join(t.TempDir(), "browser.cjs")
	if err := os.WriteFile(script, driver, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "node", script)
	cmd.Env = append(os.Environ(), "NODE_PATH="+b.Modules, "CHROMIUM="+b.Chromium, "STEPS="+string(Must(json.Marshal(steps))(t)))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the browser: %v\n%s", err, stderr.String())
	}
	var s Browsed
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, c := range s.Complaints { // of scripts and of what the policy of the page forbids
		if !strings.HasPrefix(c, "Failed to load resource") {
			t.Errorf("the browser complains: %s", c)
		}
	}
	return s
}
