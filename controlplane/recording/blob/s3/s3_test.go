package s3_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
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

// TestVersions: in a bucket that keeps versions nothing is left of what was deleted, neither
// before it is known that it does nor afterwards.
func TestVersions(t *testing.T) {
	server := servers.ObjectStore(t, servers.S3Options{ObjectLock: true})
	blobtest.Run(t, func(t *testing.T) blob.Blobs {
		c := config(server)
		c.Prefix = strings.ToLower(rand.Text()) + "/"
		return open(t, c)
	})
	c := config(server)
	c.Prefix = "here/"
	b := open(t, c)
	for _, name := range []string{"a/0", "a/1", "a/0"} {
		if err := b.Create(t.Context(), name, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if left, err := server.Versions(t.Context(), "here/"); err != nil || len(left) != 0 {
			t.Errorf("left of %s: %q, %v", name, left, err)
		}
	}
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
	for range 2 { // before and after it is known that the bucket keeps versions
		if err := b.Delete(ctx, "recordings/v1/0"); err == nil {
			t.Error("a blob was let go before its time")
		}
	}
	if got, err := b.Read(ctx, "recordings/v1/0"); err != nil || string(got) != "kept" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestRefused: what is too large for the store, or for what stands before it, is told from a
// store that takes nothing.
func TestRefused(t *testing.T) {
	server := servers.ObjectStore(t, servers.S3Options{})
	ca, err := os.ReadFile(server.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	to, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	behind := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // which is signed
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path.Base(r.URL.Path) {
		case "proxy":
			http.Error(w, "<html>", http.StatusRequestEntityTooLarge)
		case "store":
			http.Error(w, `<Error><Code>EntityTooLarge</Code><Message>too large</Message></Error>`, http.StatusBadRequest)
		case "forbidden":
			http.Error(w, `<Error><Code>AccessDenied</Code><Message>no</Message></Error>`, http.StatusForbidden)
		case "broken":
			http.Error(w, `<Error><Code>InternalError</Code><Message>no</Message></Error>`, http.StatusInternalServerError)
		default:
			behind.ServeHTTP(w, r)
		}
	}))
	defer front.Close()
	c := config(server)
	c.Endpoint, c.CA = front.URL, ""
	b := open(t, c)
	for name, refused := range map[string]bool{"proxy": true, "store": true, "forbidden": false, "broken": false} {
		if err := b.Create(t.Context(), "r/"+name, []byte("x")); err == nil || errors.Is(err, blob.ErrRefused) != refused {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := b.Create(t.Context(), "r/fine", []byte("x")); err != nil {
		t.Error(err)
	}
}
