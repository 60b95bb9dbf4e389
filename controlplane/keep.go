package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/controlplane/recording/blob/s3"
	"github.com/posterngate/postern/controlplane/recording/export"
	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/postgres"
	"github.com/posterngate/postern/controlplane/recording/index/sqlite"
	"github.com/posterngate/postern/controlplane/store"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/trail"
)

// blobs are what the server keeps recordings in, and closes.
type blobs interface {
	blob.Blobs
	Close() error
}

func openBlobs(ctx context.Context, cfg config.Config) (blobs, error) {
	if c := cfg.Recordings.S3; c != nil {
		return s3.Open(ctx, s3.Config{
			Bucket: c.Bucket, Prefix: c.Prefix, Region: c.Region, Endpoint: c.Endpoint, CA: c.CA,
			CredentialsFile: c.CredentialsFile, Retention: time.Duration(c.Retention),
		})
	}
	return blob.OpenFolder(filepath.Join(recordingsDir(cfg), "chunks"))
}

func openIndex(ctx context.Context, cfg config.Config) (index.Index, error) {
	c := cfg.Recordings.Postgres
	if c == nil {
		return sqlite.Open(ctx, filepath.Join(recordingsDir(cfg), "index.db"))
	}
	db := postgres.Config{URL: c.URL, Connections: int(c.Connections)}
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("password of the recordings' index: %w", err)
		}
		db.Password = strings.TrimRight(string(text), "\r\n")
	}
	return postgres.Open(ctx, db)
}

// openExport is whom recordings and the audit log are told to, or nil.
func (s *Server) openExport() (func([]export.Record) error, error) {
	var to []func([]export.Record) error
	cfg := &s.cfg.Recordings
	if cfg.ExportFile != "" {
		f, err := export.Open(cfg.ExportFile)
		if err != nil {
			return nil, err
		}
		to = append(to, f.Write)
	}
	if cfg.ExportOTLP != "" {
		o, err := export.DialOTLP(cfg.ExportOTLP, cfg.ExportOTLPCA, s.log)
		if err != nil {
			return nil, err
		}
		s.collector, to = o, append(to, o.Write)
	}
	if len(to) == 0 {
		return nil, nil
	}
	return func(records []export.Record) error {
		for _, tell := range to {
			if err := tell(records); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// exportAudit tells whom recordings are told to of the audit log.
func (s *Server) exportAudit(ctx context.Context) error {
	return s.audit.Follow(ctx, "export", func(page []*apiv1.AuditEntry) error {
		records := make([]export.Record, len(page))
		for i, e := range page {
			records[i] = export.Entry(e)
		}
		return s.exporting(records)
	})
}

// recordingsDir holds what is embedded of recordings.
func recordingsDir(cfg config.Config) string { return filepath.Join(cfg.DataDir, "recordings") }

// sessionsOf are a subject's newest sessions under a task, and whether there are more. Those
// that may be made up in their name are none.
func (s *Server) sessionsOf(ctx context.Context, subject, task string) ([]*typesv1.Session, bool, error) {
	sessions, err := s.recordings.List(ctx, index.Filter{Subject: subject, Task: task, Limit: index.MaxPage})
	more := len(sessions) == index.MaxPage
	return slices.DeleteFunc(sessions, func(one *typesv1.Session) bool { return one.GetDoubt() != "" }), more, err
}

// bindings are those that stand now.
func (s *Server) bindings() ([]*typesv1.Binding, error) {
	var out []*typesv1.Binding
	for _, e := range s.cache.List("binding") {
		o, err := store.DecodeObject(e)
		if err != nil {
			return nil, err
		}
		out = append(out, o.GetBinding())
	}
	return out, nil
}

// exists reports whether there is an object of a kind, as this replica has heard.
func (s *Server) exists(kind, name string) bool {
	_, ok := s.cache.Get(store.Key{Kind: kind, Name: name})
	return ok
}

// retainEvery is how often it is looked for recordings whose time is over.
const retainEvery = time.Hour

// retain lets recordings go while this replica leads.
func (s *Server) retain(ctx context.Context) error {
	keep := keepFor(s.cfg.Recordings)
	return s.store.Lead(ctx, "recordings-retention", func(ctx context.Context, guard store.Op) error {
		tick := time.NewTicker(retainEvery)
		defer tick.Stop()
		for {
			gone := 0
			doubt, err := steady(ctx, s.store, guard, time.Now())
			switch {
			case err != nil:
			case doubt > 0:
				s.log.InfoContext(ctx, "recordings are let go once the clock has gone on steadily for a day", "left", doubt.Round(time.Minute))
			default:
				gone, err = s.recordings.Retain(ctx, time.Now().Add(-keep), s.forgetting, s.keeping)
			}
			if gone > 0 {
				s.log.InfoContext(ctx, "old recordings were let go", "sessions", gone)
			}
			if err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "old recordings stay", "error", err)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
	})
}

const (
	// clockKind has in the store by which clock recordings are let go: how it goes on.
	clockKind = "retention"
	// steadyFor is for how long that clock must have gone on without a leap, and leap what is
	// one: more than it should be from one look to the next.
	steadyFor = 24 * time.Hour
	leap      = 6 * retainEvery
)

// steady is how long it takes until a clock may be believed by which recordings go for ever:
// nothing once it has gone on for a day as it should, over all replicas and restarts. Where the
// control plane was away, or a clock has leapt, whoever looks after it has that long to see.
func steady(ctx context.Context, s store.Store, guard store.Op, now time.Time) (left time.Duration, err error) {
	key := store.Key{Kind: clockKind, Name: "clock"}
	var clock struct{ Since, Seen time.Time }
	e, err := s.Get(ctx, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, err
	}
	if err != nil || json.Unmarshal(e.Value, &clock) != nil || now.Sub(clock.Seen).Abs() > leap {
		clock.Since = now
	}
	clock.Seen = now
	value, err := json.Marshal(clock)
	if err != nil {
		return 0, err
	}
	if _, err := s.Commit(ctx, guard, store.Op{Key: key, Value: value, If: e.Revision}); err != nil {
		return 0, fmt.Errorf("note how the clock goes on: %w", err)
	}
	return max(0, steadyFor-now.Sub(clock.Since)), nil
}

// lockSlack is how much later than a recording began the store may have locked the last of it,
// in almost all cases: before, it would be tried each hour in vain.
const lockSlack = 24 * time.Hour

// keepFor is how long recordings are kept from their beginning, and not tried to be let go.
func keepFor(c config.Recordings) time.Duration {
	keep := time.Duration(c.Keep)
	if c.S3 != nil && c.S3.Retention > 0 {
		keep = max(keep, time.Duration(c.S3.Retention)+lockSlack)
	}
	return keep
}

// forgetting writes down which recordings are about to go.
func (s *Server) forgetting(ctx context.Context, ids []postern.SessionID) error {
	return s.audit.Append(ctx, audit.Entry{Actor: "postern", Action: trail.Expired, Outcome: "ok", Detail: map[string]any{"sessions": ids}})
}

// keeping writes down that recordings stay that were about to go.
func (s *Server) keeping(ctx context.Context, ids []postern.SessionID) error {
	return s.audit.Append(ctx, audit.Entry{Actor: "postern", Action: trail.Kept, Outcome: "ok", Detail: map[string]any{"sessions": ids}})
}
