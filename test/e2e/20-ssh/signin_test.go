package ssh

import (
	"crypto/tls"
	"crypto/x509"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

// TestSignIn: somebody with a stock ssh and nothing of ours signs in on any device. The
// page says who is about to be let in.
func TestSignIn(t *testing.T) {
	h := house.Start(t, house.Options{SSH: true})
	alice := signedIn(t, h, "alice")
	alice.take(t, "web-status") // for known_hosts alone
	dir := t.TempDir()
	// ssh asks through a program, which answers once the file is there: an Enter.
	ask := filepath.Join(dir, "ask")
	script := "#!/bin/sh\ni=0\nwhile [ ! -e " + dir + "/answer ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done\ncat " + dir + "/answer\n"
	house.Must(0, os.WriteFile(ask, []byte(script), 0o755))(t)
	begin := func(task string) *house.Session {
		t.Helper()
		_ = os.Remove(dir + "/answer")
		args := append(h.SSHArgs(h.Nodes[0], alice.dir, "web-status"), "-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=keyboard-interactive", "-T", at(task), "uptime")
		cmd := exec.Command("ssh", args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C", "SSH_ASKPASS=" + ask, "SSH_ASKPASS_REQUIRE=force"}
		return house.Begin(t, cmd)
	}
	enter := func() { house.Must(0, os.WriteFile(dir+"/answer", []byte("\n"), 0o600))(t) }
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(h.CA)
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	where := regexp.MustCompile(`(https://\S+/sign-in/(\S+))\s`)
	for _, c := range []struct {
		who, task, deny string
		code            int
		says            string
	}{
		{"alice", "web-status", "", 0, "load average"},
		{"alice", "web-status", "1", 255, "nobody has signed in"},
		{"carol", "web-status", "", 255, "no binding offers task"}, // whom no binding gives it
	} {
		s := begin(c.task)
		found := where.FindStringSubmatch(s.Expect("your address"))
		resp := house.Must(web.Get(found[1]))(t)
		page := string(house.Must(io.ReadAll(resp.Body))(t))
		resp.Body.Close()
		house.Has(t, page, found[2], "127.0.0.1:", c.task, "web-1", h.Nodes[0].Name)
		link := regexp.MustCompile(`href="([^"]+)"`).FindStringSubmatch(page)
		if link == nil || !strings.HasPrefix(link[1], h.Issuer) {
			t.Fatalf("the page leads to %v", link)
		}
		form := url.Values{"user_code": {found[2]}, "name": {c.who}, "password": {c.who}}
		if c.deny != "" {
			form.Set("deny", c.deny)
		}
		answered := house.Must(http.PostForm(html.UnescapeString(link[1]), form))(t)
		answered.Body.Close()
		enter()
		if r := s.Wait(); r.Code != c.code || !strings.Contains(r.Out, c.says) {
			t.Errorf("%s %s: %+v", c.who, c.deny, r)
		}
	}
}
