package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/test/servers"
)

//go:embed web/systemctl
var webSystemctl []byte

// webWorld is the part of the sample company that needs the host.
const webWorld = "world/50-web.yaml"

// startWeb starts the sample host. Where there is no sshd and none can be installed, the
// house comes up without it, and says what would bring it.
func (h *house) startWeb(ctx context.Context) error {
	s, err := servers.StartSSH(ctx, filepath.Join(h.dir, "web"), h.log)
	if err != nil {
		h.log(fmt.Sprintf("  no sample host web-1: %s (Debian: sudo apt-get install openssh-server)", err))
		return nil
	}
	h.web = s
	for _, dir := range []string{"bin", "log", "run", "www"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"www/index.html": "<h1>shop</h1>\n",
		"log/shop.log":   "order 17 of bela.brandt@example.com: paid\norder 18 of chen.costa@example.com: the card was declined\n",
	} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(s.Dir, "bin", "systemctl"), webSystemctl, 0o755) //nolint:gosec // it is a program
}

// webSecret is the host's login.
func (h *house) webSecret() *typesv1.Object {
	o := object.Bare("secret", "web-1")
	o.GetSecret().Spec = &typesv1.SecretSpec{Data: map[string]string{"username": h.web.User, "privateKey": string(h.web.UserKey)}}
	return o
}

func (h *house) expandWeb(text string) string {
	return strings.NewReplacer(
		"${WEB_HOST}", h.web.Host, "${WEB_PORT}", fmt.Sprint(h.web.Port), "${WEB_HOST_KEY}", h.web.HostKey, "${WEB_DIR}", h.web.Dir,
	).Replace(text)
}

// webLine is the banner's line for the host.
func (h *house) webLine() string {
	if h.web == nil {
		return "(no sample host: it needs openssh-server)"
	}
	return "POSTERN_TOKEN=$POSTERN_TOKEN_ALICE bin/postern ssh web-status -- uptime"
}
