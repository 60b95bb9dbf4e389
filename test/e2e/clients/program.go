package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/servers"
)

// Curl is curl, which posts JSON.
func Curl(t *testing.T, a API) Client {
	t.Helper()
	return curl{program{servers.Program(t, "curl", "curl"), a, tokenFile(t, a)}}
}

// BufCurl is "buf curl" over gRPC, which knows of the API what reflection tells.
func BufCurl(t *testing.T, a API) Client {
	t.Helper()
	return bufCurl{program{servers.Buf(t), a, tokenFile(t, a)}}
}

// A program calls one method each time it is run.
type program struct {
	path string
	API
	headers string // file
}

// tokenFile keeps the token out of arguments, where every process of the machine sees it.
func tokenFile(t *testing.T, a API) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(file, []byte("Authorization: Bearer "+a.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func (p program) command(ctx context.Context, body []byte, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.Stdin = bytes.NewReader(body)
	return cmd
}

// stream starts a command that runs until the test's end, and returns what it prints.
func (p program) stream(t *testing.T, body []byte, args ...string) io.Reader {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	cmd := p.command(ctx, body, args...)
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &errs
	g := run.New(ctx)
	g.Go(filepath.Base(p.path), func(context.Context) error {
		err := cmd.Run()
		if err != nil {
			err = errors.Join(err, errors.New(errs.String()))
		}
		w.CloseWithError(err)
		return nil
	})
	t.Cleanup(func() {
		cancel()
		_ = r.Close()
		_ = g.Wait()
	})
	return r
}

type curl struct{ program }

func (c curl) args(method, contentType string) []string {
	return []string{"--silent", "--show-error", "--no-buffer", "--cacert", c.CAFile, "--header", "@" + c.headers,
		"--header", "Content-Type: " + contentType, "--data-binary", "@-", c.url(method)}
}

func (c curl) Call(ctx context.Context, method string, req, resp proto.Message) (code, text string) {
	body, err := protojson.Marshal(req)
	if err != nil {
		return Broken, err.Error()
	}
	cmd := c.command(ctx, body, append(c.args(method, "application/json"), "--write-out", "\n%{http_code}")...)
	out, err := cmd.Output()
	if err != nil {
		return Broken, failure(err)
	}
	answer, status, _ := strings.Cut(string(out), "\n")
	return fromJSON(status == "200", []byte(answer), resp)
}

func (c curl) Watch(t *testing.T, req *apiv1.WatchRequest) func() *apiv1.WatchResponse {
	t.Helper()
	r := c.stream(t, frame(t, req), c.args("PolicyService/Watch", streamed)...)
	return func() *apiv1.WatchResponse { t.Helper(); return readFrame(t, r) }
}

type bufCurl struct{ program }

func (b bufCurl) args(method string) []string {
	return []string{"curl", "--protocol", "grpc", "--cacert", b.CAFile, "--header", "@" + b.headers, "--data", "@-", b.url(method)}
}

func (b bufCurl) Call(ctx context.Context, method string, req, resp proto.Message) (code, text string) {
	body, err := protojson.Marshal(req)
	if err != nil {
		return Broken, err.Error()
	}
	out, err := b.command(ctx, body, b.args(method)...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 8 { // gRPC's code, times eight
		return fromJSON(false, exit.Stderr, nil)
	}
	if err != nil {
		return Broken, failure(err)
	}
	return fromJSON(true, out, resp)
}

func (b bufCurl) Watch(t *testing.T, req *apiv1.WatchRequest) func() *apiv1.WatchResponse {
	t.Helper()
	body, err := protojson.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	messages := json.NewDecoder(b.stream(t, body, b.args("PolicyService/Watch")...))
	return func() *apiv1.WatchResponse {
		t.Helper()
		var js json.RawMessage
		if err := messages.Decode(&js); err != nil {
			t.Fatal(err)
		}
		var m apiv1.WatchResponse
		if err := protojson.Unmarshal(js, &m); err != nil {
			t.Fatal(err)
		}
		return &m
	}
}

// failure is an error with what the program said.
func failure(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return err.Error() + ": " + string(exit.Stderr)
	}
	return err.Error()
}
