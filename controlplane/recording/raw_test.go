package recording_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/recording/index"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
)

// rawKey is of those who may read what is raw; the control plane has not got it.
var rawKey, _ = secret.ParsePrivateKey(bytes.Repeat([]byte{6}, 32))

// rawOf is the raw recording of a session, in three chunks.
func rawOf(t testing.TB, session string) *tape {
	p := newTape(t, session)
	p.session.ID = record.RawID(p.session.ID)
	var err error
	if p.key, p.wrapped, err = record.NewDataKey(rawKey.PublicKey(), p.session.ID); err != nil {
		t.Fatal(err)
	}
	p.open()
	p.cut(0)
	p.add(record.Event{Kind: record.KindChunk, Statement: 1, Tag: "body", Data: []byte("as it was")})
	p.add(record.Event{Kind: record.KindClosed, Reason: "the client went away"})
	p.cut(0)
	p.seal("node-1", nodeKey, false)
	return p
}

// readRaw opens what is raw of a session as those can who have the key.
func readRaw(t *testing.T, h *house, id string) (out string) {
	t.Helper()
	s, err := h.Get(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	var chunks [][]byte
	if err := h.ReadRaw(context.Background(), s, func(_ uint32, data, _ []byte) error { chunks = append(chunks, data); return nil }); err != nil {
		t.Fatal(err)
	}
	first, err := record.ParseChunk(chunks[0])
	if err != nil {
		t.Fatal(err)
	}
	raw, err := first.Key.Unwrap(rawKey, first.Session)
	if err != nil {
		t.Fatal(err)
	}
	key, err := record.OpenDataKey(raw.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range record.Events(each(chunks), key) {
		if err != nil {
			t.Fatal(err)
		}
		out += string(e.Data)
	}
	return out
}

// TestRaw keeps what is raw beside its session, without being able to read it.
func TestRaw(t *testing.T) {
	h := open(t, t.TempDir())
	ctx := context.Background()
	raw := rawOf(t, "s-1")
	if r := ship(t, h, raw, 0); r.GetReject() == "" {
		t.Error("what is raw of a session that is not known was taken")
	}
	main := usual(t, "s-1")
	ship(t, h, main, 0)
	if r, err := h.Ingest(ctx, "node-2", &nodev1.ShipRequest{Session: string(raw.session.ID), Index: 0, Chunk: raw.chunks[0]}); err != nil || r.GetReject() == "" {
		t.Errorf("what is raw was taken of another node: %v, %v", r, err)
	}
	shipAll(t, h, raw)
	shipAll(t, h, main)
	if r := ship(t, h, raw, 1); r.GetNextIndex() != 3 || r.GetReject() != "" {
		t.Errorf("chunk 1 again: %v", r)
	}
	if got := readRaw(t, h, "s-1"); got != "as it was" {
		t.Errorf("read %q", got)
	}
	if _, err := h.Get(ctx, "s-1_raw"); err == nil {
		t.Error("what is raw is got as a session")
	}
	if _, err := h.DataKey(ctx, "s-1_raw"); err == nil {
		t.Error("the control plane has a key of what is raw")
	}
	if err := h.Hold(ctx, "s-1_raw", "case 7"); err == nil {
		t.Error("what is raw is held by itself")
	}
	noRaw, err := h.Get(ctx, "s-1")
	if err != nil || noRaw.GetStatements() != 3 {
		t.Errorf("%v, %v", noRaw, err)
	}
	list, err := h.List(ctx, index.Filter{Limit: 10})
	if err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	used, err := h.index.Usage(ctx, index.Usage{})
	if err != nil || len(used) != 1 || used[0].Sessions != 1 {
		t.Errorf("%v, %v", used, err)
	}
	who, err := h.index.Who(ctx, index.Who{Limit: 10})
	if err != nil || len(who) != 1 {
		t.Errorf("%v, %v", who, err)
	}
	below := map[string]int{}
	for name, err := range h.blobs.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		below[name[:strings.LastIndexByte(name, '/')]]++
	}
	if below["raw/v1/2026/01/02/s-1_raw"] != 3 || below["recordings/v1/2026/01/02/s-1"] != 4 || len(below) != 2 {
		t.Errorf("blobs lie at %v", below)
	}
	rows, err := h.index.Statements(ctx, "s-1_raw", 0, 10)
	if err != nil || len(rows) != 0 {
		t.Errorf("the index has %v", rows)
	}
}

// TestRawIsLetGoWithItsSession, and held with it.
func TestRawIsLetGoWithItsSession(t *testing.T) {
	h := open(t, t.TempDir())
	ctx := context.Background()
	for _, id := range []string{"s-1", "s-2"} {
		shipAll(t, h, usual(t, id))
		shipAll(t, h, rawOf(t, id))
	}
	if err := h.Hold(ctx, "s-2", "case 7"); err != nil {
		t.Fatal(err)
	}
	told := map[postern.SessionID]bool{}
	n, err := h.Retain(ctx, began.Add(48*time.Hour), func(_ context.Context, ids []postern.SessionID) error {
		for _, id := range ids {
			told[id] = true
		}
		return nil
	}, nil)
	if n != 2 || err != nil || !told["s-1"] || !told["s-1_raw"] || len(told) != 2 {
		t.Errorf("%d went, %v: %v", n, err, told)
	}
	if gone, err := h.index.Forget(ctx, []postern.SessionID{"s-2_raw"}); err != nil || len(gone) != 0 {
		t.Errorf("of a session that is held went %v, %v", gone, err)
	}
	if got := readRaw(t, h, "s-2"); got != "as it was" {
		t.Errorf("read %q", got)
	}
	for name, err := range h.blobs.List(ctx, "") {
		if err != nil || strings.Contains(name, "s-1") {
			t.Errorf("%s is left, %v", name, err)
		}
	}
}

// TestRawIsIndexedAgain after its session, where only blobs are left.
func TestRawIsIndexedAgain(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	shipAll(t, h, usual(t, "s-1"))
	shipAll(t, h, rawOf(t, "s-1"))
	ctx := context.Background()
	again := open(t, t.TempDir())
	for name, err := range h.blobs.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		data, err := h.blobs.Read(ctx, name)
		if err == nil {
			err = again.blobs.Create(ctx, name, data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n, err := again.Reconcile(ctx); n != 7 || err != nil {
		t.Errorf("%d were taken, %v", n, err)
	}
	if got := readRaw(t, again, "s-1"); got != "as it was" {
		t.Errorf("read %q", got)
	}
}
