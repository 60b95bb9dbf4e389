package controlplane

import (
	"context"
	"path/filepath"
	"time"

	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/controlplane/recording/blob/s3"
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

// recordingsDir holds what is embedded of recordings.
func recordingsDir(cfg config.Config) string { return filepath.Join(cfg.DataDir, "recordings") }
