package spool

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/secret"
)

// recordingKey is that of the control plane, which no spool has.
var recordingKey, _ = secret.ParsePrivateKey(bytes.Repeat([]byte{5}, 32))

// dataKey is what the control plane reads a recording with.
func dataKey(t testing.TB, chunks [][]byte) *record.DataKey {
	t.Helper()
	if len(chunks) == 0 {
		t.Fatal("there is no chunk")
	}
	c, err := record.ParseChunk(chunks[0])
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.Key.Unwrap(recordingKey, c.Session)
	if err != nil {
		t.Fatal(err)
	}
	key, err := record.OpenDataKey(raw.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var nodeKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

// shelf is an Uplink that keeps chunks in memory, as the control plane would: in order,
// and each once. Its gate can be shut.
type shelf struct {
	mu      sync.Mutex
	chunks  map[string][][]byte
	sent    int
	breakAt func(n int) bool // whether to break the stream after the n-th chunk, unacknowledged
	refuse  func(c Chunk) string
	fail    func(c Chunk) bool // whether it cannot be stored now; the stream breaks soon after
	shut    bool
	earlier bool // it is of a version that knows of no seal that comes along
	faults  []string
}

func newShelf() *shelf { return &shelf{chunks: map[string][][]byte{}} }

var errBroken = errors.New("the stream broke")

func (s *shelf) Stream(ctx context.Context, next func(context.Context) (Chunk, error), acked func(string, uint32), rejected func(string, uint32, string)) error {
	var soon context.CancelFunc
	for {
		s.mu.Lock()
		shut := s.shut
		s.mu.Unlock()
		if shut {
			return errBroken
		}
		c, err := next(ctx)
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.sent++
		n := s.sent
		if s.refuse != nil {
			if why := s.refuse(c); why != "" {
				s.mu.Unlock()
				rejected(c.Session, c.Index, why)
				continue
			}
		}
		if s.fail != nil && s.fail(c) {
			s.mu.Unlock()
			if soon == nil {
				ctx, soon = context.WithTimeout(ctx, 50*time.Millisecond)
				defer soon()
			}
			continue
		}
		s.keep(c.Session, c.Index, c.Data)
		if len(c.Seal) > 0 && !s.earlier {
			s.keep(c.Session, c.Index+1, c.Seal)
		}
		stored := uint32(len(s.chunks[c.Session]))
		broke := s.breakAt != nil && s.breakAt(n)
		s.mu.Unlock()
		if broke {
			return errBroken
		}
		acked(c.Session, stored)
	}
}

// keep takes one chunk; s.mu is held.
func (s *shelf) keep(session string, index uint32, data []byte) {
	have := s.chunks[session]
	switch {
	case int(index) < len(have):
		if !bytes.Equal(have[index], data) {
			s.faults = append(s.faults, fmt.Sprintf("session %s chunk %d came again with other bytes", session, index))
		}
	case int(index) == len(have):
		s.chunks[session] = append(have, bytes.Clone(data))
	default:
		s.faults = append(s.faults, fmt.Sprintf("session %s chunk %d came before chunk %d", session, index, len(have)))
	}
}

func (s *shelf) session(id string) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.chunks[id])
}

func each(chunks [][]byte) func(func([]byte, error) bool) {
	return func(yield func([]byte, error) bool) {
		for _, c := range chunks {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func (s *shelf) verify(t *testing.T, id string) record.Report {
	t.Helper()
	chunks := s.session(id)
	r, err := record.Verify(each(chunks), nodeKey.Public(), dataKey(t, chunks))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range r.Errors {
		t.Errorf("session %s: %v", id, err)
	}
	return r
}

func (s *shelf) check(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		t.Error(f)
	}
}

const testSegment = minSegment

func testConfig(t testing.TB, up Uplink) Config {
	return Config{Dir: t.TempDir(), Node: "node-1", Key: nodeKey, Uplink: up, RecordingKey: recordingKey.PublicKey, SegmentBytes: testSegment, MaxBytes: 64 * testSegment}
}

// start opens the spool and runs it until the test ends or stop is called.
func start(t testing.TB, cfg Config) (s *Spool, r Recovery, stop func()) {
	t.Helper()
	s, r, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := run.New(context.Background())
	g.Go("spool", s.Run)
	stop = sync.OnceFunc(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	t.Cleanup(stop)
	return s, r, stop
}

// drain waits until all is stored. The bound is for what is stuck: what hundreds of kills
// have left takes a while.
func drain(t testing.TB, s *Spool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
}

func meta(id string) record.Session {
	return record.Session{ID: postern.SessionID(id), Subject: "alice", Task: "sales-report", Resource: "warehouse", Protocol: postern.Postgres, Node: "node-1"}
}

func intent(n uint64) *record.Event {
	return &record.Event{Time: time.Now(), Kind: record.KindIntent, Statement: n, Text: fmt.Sprintf("select %d", n), Verdict: postern.VerdictAllow}
}

func events(t *testing.T, chunks [][]byte) []*record.Event {
	t.Helper()
	var all []*record.Event
	for e, err := range record.Events(each(chunks), dataKey(t, chunks)) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}
