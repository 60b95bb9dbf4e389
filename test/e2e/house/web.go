package house

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/test/servers"
)

const webWorld = "50-web.yaml"

// startWeb starts the sample host, furnished as deploy/dev does.
func (h *House) startWeb(t testing.TB, config ...string) {
	t.Helper()
	web := servers.SSH(t, config...)
	for _, dir := range []string{"bin", "log", "run", "www"} {
		if err := os.MkdirAll(filepath.Join(web.Dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := Must(os.ReadFile(filepath.Join(root(t), "deploy/dev/web/systemctl")))(t)
	for name, text := range map[string]string{"bin/systemctl": string(script), "www/index.html": "<h1>shop</h1>\n", "log/shop.log": "order " + CanaryID + " of " + CanaryEmail + ": paid\n"} {
		if err := os.WriteFile(filepath.Join(web.Dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.Web = web
}

// applyWeb applies the sample company's host, as ada.
func (h *House) applyWeb(t testing.TB) {
	t.Helper()
	login := object.Bare("secret", "web-1")
	login.GetSecret().Spec = &typesv1.SecretSpec{Data: map[string]string{"username": h.Web.User, "privateKey": string(h.Web.UserKey)}}
	objects := append([]*typesv1.Object{login}, h.Objects(t, string(Must(os.ReadFile(filepath.Join(root(t), "deploy/dev/world", webWorld)))(t)))...)
	Must(h.API("ada").Policy.Apply(t.Context(), Request(&apiv1.ApplyRequest{Objects: objects})))(t)
}

// expandWeb fills in what is only known now.
func (h *House) expandWeb(text string) string {
	if h.Web == nil {
		return text
	}
	return strings.NewReplacer(
		"${WEB_HOST}", h.Web.Host, "${WEB_PORT}", fmt.Sprint(h.Web.Port), "${WEB_HOST_KEY}", h.Web.HostKey, "${WEB_DIR}", h.Web.Dir,
	).Replace(text)
}

// SSHArgs are the stock client's options for a node, with the certificate in dir, as the
// CLI's grant --ssh has left it there; and the port.
func (h *House) SSHArgs(n *Node, dir, task string) []string {
	_, port, _ := net.SplitHostPort(n.SSH)
	return []string{
		"-F", "none", "-i", filepath.Join(dir, task), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "UserKnownHostsFile=" + filepath.Join(dir, "known_hosts"), "-o", "GlobalKnownHostsFile=none",
		"-o", "StrictHostKeyChecking=yes", "-o", "Port=" + port,
	}
}
