package recording_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/controlplane/recording"
	"github.com/posterngate/postern/controlplane/recording/blob/s3"
	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/postgres"
	"github.com/posterngate/postern/controlplane/store/storetest"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/test/servers"
)

// TestKilledStores kills the index's database and the object store at random moments
// while sessions ship: whatever was acknowledged is there, once.
func TestKilledStores(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Minute)
	defer cancel()
	runs := 2
	if text := os.Getenv("POSTERN_FAULTS_RUNS"); text != "" {
		var err error
		if runs, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	store := servers.ObjectStore(t, servers.S3Options{})
	dir, err := os.MkdirTemp("", "postern-faults-") // not below t.TempDir, which is closed to the server's user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	settings := servers.PGOptions{Settings: map[string]string{"fsync": "on", "synchronous_commit": "on"}}
	pg, stop, err := servers.StartPostgres(ctx, dir, settings, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	blobs, err := s3.Open(ctx, s3.Config{Bucket: store.Bucket, Region: store.Region, Endpoint: store.Endpoint, CA: store.CAFile, CredentialsFile: store.CredentialsFile})
	if err != nil {
		t.Fatal(err)
	}
	defer blobs.Close()
	x, err := postgres.Open(ctx, postgres.Config{URL: pg.SuperDSN("postgres")})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	s, err := recording.New(recording.Config{
		Blobs: blobs, Index: x, Store: storetest.NewMemory(), Keys: ring{},
		NodeKeys: func(string) ([]crypto.PublicKey, error) { return []crypto.PublicKey{nodeKey.Public()}, nil },
		Rejected: func(_ context.Context, r recording.Rejection) error {
			t.Errorf("rejected: %+v", r)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}

	done := make(chan struct{})
	var mu sync.Mutex
	var sessions []string
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				id := fmt.Sprintf("s-%d-%d", w, n)
				if !shipThrough(ctx, t, s, usual(t, id)) {
					return
				}
				mu.Lock()
				sessions = append(sessions, id)
				mu.Unlock()
			}
		})
	}
	for range runs {
		pause(ctx, 50+rand.N(200))
		pg.Kill()
		if pg, stop, err = servers.StartPostgres(ctx, dir, settings, func(s string) { t.Log(s) }); err != nil {
			t.Fatal(err)
		}
		pause(ctx, 50+rand.N(200))
		store.Kill()
		if err := store.Restart(ctx); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
	if len(sessions) < 4 {
		t.Fatalf("only %d sessions were shipped", len(sessions))
	}
	lost := 0
	for _, id := range sessions {
		lost += missing(ctx, t, s, x, id)
	}
	t.Logf("%d kills of each, %d sessions acknowledged: %d lost or twice", runs, len(sessions), lost)
}

func pause(ctx context.Context, ms int) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(ms) * time.Millisecond):
	}
}

// shipThrough ships a session until all of it is acknowledged, as nodes do.
func shipThrough(ctx context.Context, t *testing.T, s *recording.Service, p *tape) bool {
	for i := 0; i < len(p.chunks); {
		req := &nodev1.ShipRequest{Session: string(p.session.ID), Index: uint32(i), Chunk: p.chunks[i]}
		if i == len(p.chunks)-2 && rand.N(4) > 0 { // else as an earlier version of a node
			req.Seal = p.chunks[i+1]
		}
		one, cancel := context.WithTimeout(ctx, 30*time.Second)
		resp, err := s.Ingest(one, "node-1", req)
		cancel()
		switch {
		case ctx.Err() != nil:
			t.Error("the stores did not come back")
			return false
		case err != nil:
			pause(ctx, 20)
		case resp.GetReject() != "":
			t.Errorf("chunk %d of %s: %s", i, p.session.ID, resp.GetReject())
			return false
		default:
			i = int(resp.GetNextIndex())
		}
	}
	return true
}

// asked asks again while a connection turns out to be one to the server that was killed.
func asked(ask func() error) error {
	for {
		err := ask()
		if pg := (*pgconn.PgError)(nil); !errors.As(err, &pg) || pg.Code != "57P01" {
			return err
		}
	}
}

// missing tells whether something of an acknowledged session is not there, or twice.
func missing(ctx context.Context, t *testing.T, s *recording.Service, x *postgres.Index, id string) int {
	var chunks [][]byte
	var key []byte
	err := asked(func() error {
		chunks, key = nil, nil
		return s.Read(ctx, id, 0, false, func(_ uint32, data, k []byte) error {
			chunks = append(chunks, data)
			if k != nil {
				key = k
			}
			return nil
		})
	})
	var rows []index.Row
	rowsErr := asked(func() (err error) {
		rows, err = x.Statements(ctx, postern.SessionID(id), 0, index.MaxPage)
		return err
	})
	var found []index.Found
	findErr := asked(func() (err error) {
		found, err = x.Search(ctx, index.Query{Session: id, Limit: index.MaxPage})
		return err
	})
	if err != nil || rowsErr != nil || findErr != nil || len(chunks) != 4 || len(rows) != 3 || len(found) != 3 || key == nil {
		t.Errorf("%s: %d chunks, %d rows, %d found; %v %v %v", id, len(chunks), len(rows), len(found), err, rowsErr, findErr)
		return 1
	}
	for i, c := range chunks {
		if chunk, err := record.ParseChunk(c); err != nil || chunk.Index != uint32(i) {
			t.Errorf("%s: chunk %d: %v", id, i, err)
			return 1
		}
	}
	return 0
}
