package recording_test

import (
	"context"
	"crypto"
	"strings"
	"testing"

	"github.com/posterngate/postern/controlplane/recording"
	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/controlplane/recording/index/postgres"
	"github.com/posterngate/postern/controlplane/store/storetest"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/test/servers"
)

// TestRefusedByTheIndex: what the index says it cannot keep is refused, however many there are
// and whether or not others are stored; where the index is not there nothing is.
func TestRefusedByTheIndex(t *testing.T) {
	pg := servers.Postgres(t)
	pg.SQL(t, `CREATE DATABASE narrow TEMPLATE template0 ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C'`)
	x, err := postgres.Open(t.Context(), postgres.Config{URL: pg.SuperDSN("narrow")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	blobs, err := blob.OpenFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = blobs.Close() })
	var told []string
	s, err := recording.New(recording.Config{
		Blobs: blobs, Index: x, Store: storetest.NewMemory(), Keys: ring{},
		NodeKeys: func(string) ([]crypto.PublicKey, error) { return []crypto.PublicKey{nodeKey.Public()}, nil },
		Rejected: func(_ context.Context, r recording.Rejection) error {
			told = append(told, r.Session)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	begun := func(id, text string) *nodev1.ShipRequest {
		p := newTape(t, id)
		p.open()
		p.add(record.Event{Kind: record.KindIntent, Statement: 1, Text: text, Verdict: postern.VerdictAllow})
		p.cut(0)
		return &nodev1.ShipRequest{Session: id, Chunk: p.chunks[0]}
	}
	one, two := begun("bad-1", `select "Ж"`), begun("bad-2", `select "Ж"`)
	for _, c := range []*nodev1.ShipRequest{one, two, one} {
		if r, err := s.Ingest(t.Context(), "node-1", c); err != nil || !strings.Contains(r.GetReject(), "invalid byte sequence") || r.GetNextIndex() != 0 {
			t.Errorf("%v, %v", r, err)
		}
	}
	if r, err := s.Ingest(t.Context(), "node-1", begun("good", `select "é"`)); err != nil || r.GetReject() != "" || r.GetNextIndex() != 1 {
		t.Errorf("good: %v, %v", r, err)
	}
	pg.SQL(t, `ALTER DATABASE narrow ALLOW_CONNECTIONS false`)
	pg.SQL(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'narrow'`)
	if r, err := s.Ingest(t.Context(), "node-1", begun("bad-3", `select "Ж"`)); err == nil {
		t.Errorf("answered without an index: %v", r)
	}
	if got := strings.Join(told, " "); got != "bad-1 bad-2 bad-1" {
		t.Errorf("told of %s", got)
	}
}
