package fleet

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
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
	return func(yield func(*record.Event, error) bool) {
		chunks, _, key, err := r.read(ctx, session)
		if err != nil {
			yield(nil, err)
			return
		}
		record.Events(chunks, key)(yield)
	}
}

// Verify checks one recording as "postern sessions verify" does.
func (r *Recorder) Verify(ctx context.Context, session string) (record.Report, error) {
	chunks, node, key, err := r.read(ctx, session)
	if err != nil {
		return record.Report{}, err
	}
	return record.Verify(chunks, node, key)
}

// DataKey is the key with which the chunks of one recording are sealed.
func (r *Recorder) DataKey(ctx context.Context, session string) (*record.DataKey, error) {
	_, _, key, err := r.read(ctx, session)
	return key, err
}

// read reads all chunks of a recording, and its two keys.
func (r *Recorder) read(ctx context.Context, session string) (_ iter.Seq2[[]byte, error], node crypto.PublicKey, key *record.DataKey, err error) {
	req := connect.NewRequest(&apiv1.ReadRecordingRequest{Id: session})
	req.Header().Set("Authorization", "Bearer "+r.token)
	stream, err := r.client.ReadRecording(ctx, req)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	var chunks [][]byte
	for stream.Receive() {
		m := stream.Msg()
		if k := m.GetNodeKey(); len(k) > 0 {
			if node, err = x509.ParsePKIXPublicKey(k); err != nil {
				return nil, nil, nil, err
			}
		}
		if k := m.GetDataKey(); len(k) > 0 {
			if key, err = record.OpenDataKey(k); err != nil {
				return nil, nil, nil, err
			}
		}
		chunks = append(chunks, m.GetChunk())
	}
	if err := stream.Err(); err != nil {
		return nil, nil, nil, err
	}
	if key == nil {
		return nil, nil, nil, errors.New("the recording came without its key")
	}
	return func(yield func([]byte, error) bool) {
		for _, c := range chunks {
			if !yield(c, nil) {
				return
			}
		}
	}, node, key, nil
}
