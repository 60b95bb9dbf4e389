package controlplane

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/audit/tree"
	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
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

// TestLately: a session that is open since long is not lost behind many that came and went.
func TestLately(t *testing.T) {
	at := func(id string, second int64) *typesv1.Session {
		return &typesv1.Session{Id: id, StartTime: &timestamppb.Timestamp{Seconds: second}}
	}
	list := func(_ context.Context, f index.Filter) ([]*typesv1.Session, error) {
		if f.Subject != "nightly" || f.Limit != index.MaxPage {
			t.Errorf("asked for %+v", f)
		}
		if f.Live {
			return []*typesv1.Session{at("now", 30), at("since long", 1)}, nil
		}
		return []*typesv1.Session{at("now", 30), at("over", 29)}, nil
	}
	all, err := lately(t.Context(), list, "nightly")
	var ids []string
	for _, s := range all {
		ids = append(ids, s.GetId())
	}
	if err != nil || !slices.Equal(ids, []string{"now", "over", "since long"}) {
		t.Errorf("sessions are %q, %v", ids, err)
	}
}
