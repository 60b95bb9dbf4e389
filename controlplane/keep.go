package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/controlplane/recording/blob/s3"
	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/postgres"
	"github.com/posterngate/postern/controlplane/recording/index/sqlite"
	"github.com/posterngate/postern/controlplane/store"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
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
	db := postgres.Config{URL: c.URL, Connections: c.Connections}
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("password of the recordings' index: %w", err)
		}
		db.Password = strings.TrimRight(string(text), "\r\n")
	}
	return postgres.Open(ctx, db)
}

// recordingsDir holds what is embedded of recordings.
func recordingsDir(cfg config.Config) string { return filepath.Join(cfg.DataDir, "recordings") }

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
