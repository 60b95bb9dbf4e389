package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	"github.com/posterngate/postern/pkg/record"
)

// HTTPClient trusts the fleet's CA.
func (f *Fleet) HTTPClient(t testing.TB) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// APIToken is the token for the API that a person's login left behind.
func (f *Fleet) APIToken(t testing.TB, who string) string {
	t.Helper()
	f.login(t, who)
	b, err := os.ReadFile(filepath.Join(f.Home(t, who), "tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	var tokens struct {
		API struct {
			ID string `json:"idToken"`
		} `json:"api"`
	}
	if err := json.Unmarshal(b, &tokens); err != nil || tokens.API.ID == "" {
		t.Fatalf("%s has no token: %v", who, err)
	}
	return tokens.API.ID
}

// Recorder reads recordings through the API, faster than the command line would.
type Recorder struct {
	client apiv1connect.SessionServiceClient
	token  string
}

// Recorder reads as bob, an auditor.
func (f *Fleet) Recorder(t testing.TB) *Recorder {
	t.Helper()
	return &Recorder{apiv1connect.NewSessionServiceClient(f.HTTPClient(t), f.Addr), f.APIToken(t, "bob")}
}

// Events are the events of one recording; its seal is not checked.
func (r *Recorder) Events(ctx context.Context, session string) iter.Seq2[*record.Event, error] {
	return record.Events(r.chunks(ctx, session, new([]byte)))
}

// Verify checks one recording as "postern sessions verify" does.
func (r *Recorder) Verify(ctx context.Context, session string) (record.Report, error) {
	var der []byte
	var chunks [][]byte
	for c, err := range r.chunks(ctx, session, &der) {
		if err != nil {
			return record.Report{}, err
		}
		chunks = append(chunks, c)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return record.Report{}, err
	}
	return record.Verify(func(yield func([]byte, error) bool) {
		for _, c := range chunks {
			if !yield(c, nil) {
				return
			}
		}
	}, key)
}

func (r *Recorder) chunks(ctx context.Context, session string, key *[]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		req := connect.NewRequest(&apiv1.ReadRecordingRequest{Id: session})
		req.Header().Set("Authorization", "Bearer "+r.token)
		stream, err := r.client.ReadRecording(ctx, req)
		if err != nil {
			yield(nil, err)
			return
		}
		defer stream.Close()
		for stream.Receive() {
			if k := stream.Msg().GetNodeKey(); len(k) > 0 {
				*key = k
			}
			if !yield(stream.Msg().GetChunk(), nil) {
				return
			}
		}
		if err := stream.Err(); err != nil {
			yield(nil, err)
		}
	}
}
