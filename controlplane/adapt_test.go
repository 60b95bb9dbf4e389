package controlplane

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/audit/tree"
	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/pkg/telemetry"
)

// TestKeyFileGone: no key is made for a store that another one has sealed.
func TestKeyFileGone(t *testing.T) {
	silent := slog.New(slog.DiscardHandler)
	cfg := config.Config{DataDir: t.TempDir()}
	cfg.KeyFile = filepath.Join(cfg.DataDir, "keeper.key")
	s, err := openStore(t.Context(), cfg, silent)
	if err != nil {
		t.Fatal(err)
	}
	keeper, err := openKeeper(t.Context(), cfg, s)
	if err == nil {
		_, err = authority.Open(t.Context(), authority.Config{Store: s, Keeper: keeper, Audit: audit.New(s, time.Now), Logger: silent})
	}
	if err := errors.Join(err, s.Close(), os.Remove(cfg.KeyFile)); err != nil {
		t.Fatal(err)
	}
	_, err = New(t.Context(), cfg, &telemetry.T{Logger: silent})
	if err == nil || !strings.Contains(err.Error(), "there is no "+cfg.KeyFile) {
		t.Errorf("New = %v", err)
	}
	if _, err := os.Stat(cfg.KeyFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key was made all the same: %v", err)
	}
}

// TestAuditKeyGone: a log is not gone on with under a key that its readers do not know, unless
// somebody has asked for one.
func TestAuditKeyGone(t *testing.T) {
	silent := slog.New(slog.DiscardHandler)
	cfg := config.Config{DataDir: t.TempDir()}
	cfg.KeyFile, cfg.AuditKey, cfg.AuditDir = filepath.Join(cfg.DataDir, "keeper.key"), filepath.Join(cfg.DataDir, "audit.key"), filepath.Join(cfg.DataDir, "audit")
	key, err := tree.OpenKey(cfg.AuditKey)
	if err != nil {
		t.Fatal(err)
	}
	log, err := tree.Open(t.Context(), cfg.AuditDir, key, silent)
	if err == nil {
		err = errors.Join(log.Append(t.Context(), 0, [][]byte{[]byte("an entry")}), log.Close(t.Context()))
	}
	if _, told := NewAuditKey(cfg); told == nil {
		t.Error("a key that is there was replaced")
	}
	if err := errors.Join(err, os.Remove(cfg.AuditKey)); err != nil {
		t.Fatal(err)
	}
	_, err = New(t.Context(), cfg, &telemetry.T{Logger: silent})
	for what, err := range map[string]error{"New": err, "checkKeys": checkKeys(cfg)} {
		if err == nil || !strings.Contains(err.Error(), "there is no "+cfg.AuditKey) {
			t.Errorf("%s = %v", what, err)
		}
	}
	if _, err := os.Stat(cfg.AuditKey); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key was made all the same: %v", err)
	}
	verifier, err := NewAuditKey(cfg)
	if err != nil || verifier == key.Verifier || checkKeys(cfg) != nil {
		t.Errorf("NewAuditKey = %q, %v; then %v", verifier, err, checkKeys(cfg))
	}
	if old, err := os.ReadFile(cfg.AuditKey + ".pub.old"); err != nil || strings.TrimSpace(string(old)) != key.Verifier {
		t.Errorf("of the lost key's public half is left %q, %v", old, err)
	}
}
