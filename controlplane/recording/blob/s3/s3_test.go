package s3_test

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/controlplane/recording/blob/blobtest"
	"github.com/posterngate/postern/controlplane/recording/blob/s3"
	"github.com/posterngate/postern/test/servers"
)

func open(t *testing.T, c s3.Config) *blob.Bucket {
	t.Helper()
	b, err := s3.Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func config(s *servers.S3) s3.Config {
	return s3.Config{Bucket: s.Bucket, Region: s.Region, Endpoint: s.Endpoint, CA: s.CAFile, CredentialsFile: s.CredentialsFile}
}

func TestBlobs(t *testing.T) {
	server := servers.ObjectStore(t, servers.S3Options{})
	blobtest.Run(t, func(t *testing.T) blob.Blobs {
		c := config(server)
		c.Prefix = strings.ToLower(rand.Text()) + "/"
		return open(t, c)
	})
}

// TestSigned shows that the server looks at signatures, and that what is wrong is said
// when the bucket is opened.
func TestSigned(t *testing.T) {
	server := servers.ObjectStore(t, servers.S3Options{})
	wrong := filepath.Join(t.TempDir(), "credentials")
	text, err := os.ReadFile(server.CredentialsFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wrong, append([]byte(strings.TrimSpace(string(text))), "x\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*s3.Config){
		"secret": func(c *s3.Config) { c.CredentialsFile = wrong },
		"bucket": func(c *s3.Config) { c.Bucket = "none" },
		"CA":     func(c *s3.Config) { c.CA = "" },
	} {
		c := config(server)
		change(&c)
		if b, err := s3.Open(context.Background(), c); err == nil {
			_ = b.Close()
			t.Errorf("a wrong %s was taken", name)
		}
	}
}

// TestRetention asks the store to hold a blob against everybody.
func TestRetention(t *testing.T) {
	server := servers.ObjectStore(t, servers.S3Options{ObjectLock: true})
	c := config(server)
	c.Retention = time.Hour
	b := open(t, c)
	ctx := context.Background()
	if err := b.Create(ctx, "recordings/v1/0", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	if err := server.DeleteVersions(ctx, "recordings/v1/0"); err == nil {
		t.Error("a blob was deleted before its time")
	}
	if got, err := b.Read(ctx, "recordings/v1/0"); err != nil || string(got) != "kept" {
		t.Errorf("%q, %v", got, err)
	}
}
