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
