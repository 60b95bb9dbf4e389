package servers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/posterngate/postern/test/ports"
)

const versitygwPackage = "github.com/versity/versitygw/cmd/versitygw"

var versitygwHelper = helper{
	name:     "versitygw",
	packages: []string{versitygwPackage},
	flags:    []string{"-trimpath", "-ldflags", "-s -w"},
	about:    "a minute or two",
}

// S3Options change a private object store; the zero value is right for most.
type S3Options struct {
	ObjectLock bool // the bucket can be told to hold its objects
}

// S3 is a running object store with Amazon's API, which checks signatures, and one
// bucket in it.
type S3 struct {
	Endpoint        string // https://127.0.0.1:port
	Region          string
	Bucket          string
	CAFile          string
	CredentialsFile string // in the form of AWS's shared credentials file

	bin, dir string
	files    files
	ca       []byte
	port     int
	secret   string
	proc     *process
}

const s3Access = "postern"

// ObjectStore starts an object store for one test; it is gone at the test's end.
func ObjectStore(t testing.TB, o S3Options) *S3 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	bin, err := build(ctx, versitygwHelper, logTo(t))
	if err != nil {
		t.Fatal(err)
	}
	s := &S3{Region: "us-east-1", Bucket: "recordings", bin: filepath.Join(bin, "versitygw"), dir: folder(t, "s3"), secret: randomHex()}
	if s.files, s.ca, err = identity(s.dir, "s3"); err != nil {
		t.Fatal(err)
	}
	s.CAFile, s.CredentialsFile = s.files.ca, filepath.Join(s.dir, "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", s3Access, s.secret)
	if err := os.WriteFile(s.CredentialsFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for try := 1; ; try++ {
		var err error
		if s.port, err = ports.Take(); err != nil {
			t.Fatal(err)
		}
		s.Endpoint = "https://127.0.0.1:" + strconv.Itoa(s.port)
		if err = s.Restart(ctx); err == nil {
			break
		}
		if !portClash(err) || try == portTries {
			t.Fatalf("start the object store: %v", err)
		}
	}
	t.Cleanup(func() { s.proc.stop(syscall.SIGTERM) })
	_, err = s.client().CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &s.Bucket, ObjectLockEnabledForBucket: aws.Bool(o.ObjectLock)})
	if err != nil {
		t.Fatalf("make a bucket: %v\n%s", err, s.proc.tail())
	}
	return s
}

// Kill ends the store at once, as a crash would.
func (s *S3) Kill() { s.proc.kill() }

// Restart starts a store that was killed, with what it had, and waits until it answers.
func (s *S3) Restart(ctx context.Context) (err error) {
	data, versions := filepath.Join(s.dir, "data"), filepath.Join(s.dir, "versions")
	for _, dir := range []string{data, versions} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	cmd := exec.Command(s.bin, "--port", "127.0.0.1:"+strconv.Itoa(s.port), "--cert", s.files.cert, "--key", s.files.key,
		"--region", s.Region, "--health", "/health", "--quiet", "posix", "--versioning-dir", versions, data)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s3Access, "ROOT_SECRET_KEY="+s.secret)
	if s.proc, err = start("versitygw", cmd, filepath.Join(s.dir, "s3.log")); err != nil {
		return err
	}
	client := &http.Client{Transport: s.transport()}
	defer client.CloseIdleConnections()
	err = waitReady(ctx, s.proc, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/health", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
	if err != nil {
		s.proc.kill()
	}
	return err
}

func (s *S3) transport() *http.Transport {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ca)
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
}

func (s *S3) client() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: &s.Endpoint, Region: s.Region, UsePathStyle: true, HTTPClient: &http.Client{Transport: s.transport()},
		Credentials: credentials.NewStaticCredentialsProvider(s3Access, s.secret, ""),
	})
}

// Versions are the versions of all objects whose names begin so, and the markers of those that
// were deleted, as "NAME VERSION".
func (s *S3) Versions(ctx context.Context, prefix string) (all []string, err error) {
	list, err := s.client().ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &s.Bucket, Prefix: &prefix})
	if err != nil {
		return nil, err
	}
	for _, v := range list.Versions {
		all = append(all, *v.Key+" "+*v.VersionId)
	}
	for _, m := range list.DeleteMarkers {
		all = append(all, *m.Key+" "+*m.VersionId)
	}
	return all, nil
}

// DeleteVersions deletes every version of an object, with the rights of the store's
// owner.
func (s *S3) DeleteVersions(ctx context.Context, name string) error {
	list, err := s.client().ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &s.Bucket, Prefix: &name})
	if err != nil {
		return err
	}
	for _, v := range list.Versions {
		if _, err := s.client().DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.Bucket, Key: v.Key, VersionId: v.VersionId}); err != nil {
			return err
		}
	}
	return nil
}
