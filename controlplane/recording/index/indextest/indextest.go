// Package indextest holds implementations of index.Index to their contract.
package indextest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// Run tests what open gives. open is called once a test, and is to give an Index that
// is empty.
func Run(t *testing.T, open func(t *testing.T) index.Index) {
	t.Run("Commit", func(t *testing.T) { commit(t, open(t)) })
	t.Run("Together", func(t *testing.T) { together(t, open(t)) })
	t.Run("OneWins", func(t *testing.T) { oneWins(t, open(t)) })
	t.Run("Sessions", func(t *testing.T) { sessions(t, open(t)) })
	t.Run("Statements", func(t *testing.T) { statements(t, open(t)) })
	t.Run("Search", func(t *testing.T) { search(t, open(t)) })
	t.Run("Who", func(t *testing.T) { who(t, open(t)) })
	t.Run("WhoWasThere", func(t *testing.T) { whoWasThere(t, open(t)) })
	t.Run("Usage", func(t *testing.T) { usage(t, open(t)) })
	t.Run("Takers", func(t *testing.T) { takers(t, open(t)) })
	t.Run("End", func(t *testing.T) { end(t, open(t)) })
	t.Run("BusyHour", func(t *testing.T) { busyHour(t, open(t)) })
	t.Run("ManyWords", func(t *testing.T) { manyWords(t, open(t)) })
	t.Run("Forget", func(t *testing.T) { forget(t, open(t)) })
	t.Run("LongNames", func(t *testing.T) { longNames(t, open(t)) })
	t.Run("Raw", func(t *testing.T) { raw(t, open(t)) })
}

var began = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

// update is chunk number n of a session that began so many minutes in.
func update(id string, n uint32, minute int) *index.Update {
	return &index.Update{
		Session: &typesv1.Session{Id: id, Subject: "alice", Grant: "g", Task: "sales-report", Resource: "warehouse", Protocol: "postgres", Node: "n1", Region: "eu",
			ClientAddress: "127.0.0.1:1", ClientProgram: "psql", Version: &typesv1.Version{Epoch: "e", Revision: 3},
			StartTime: timestamppb.New(began.Add(time.Duration(minute) * time.Minute)), LastTime: timestamppb.New(began.Add(time.Duration(minute) * time.Minute)),
			Recording: "open", Account: "app", Workload: "w", Database: "shop", Groups: []string{"analysts"}, Actors: []string{"helper", "bot"}, Doubt: "nobody knows the grant"},
		Head: index.Head{Next: n + 1, Previous: record.Hash{byte(n + 1)}, Node: "n1", Span: record.Span{First: 1, Last: uint64(n + 1), Open: true}, OpenFrom: n,
			Tally: record.Tally{Events: 5, Statements: 4, Denied: 3, Rows: 2, Bytes: 1, Statement: 4}},
		Chunks: []index.Stored{{Hash: record.Hash{byte(n + 1)}, Size: 100}},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func commit(t *testing.T, x index.Index) {
	ctx := context.Background()
	h, err := x.Head(ctx, "s")
	must(t, err)
	if h.Next != 0 || h.Node != "" {
		t.Errorf("head of nothing: %+v", h)
	}
	for _, id := range []postern.SessionID{"s", "s\x00", "s\xff", ""} {
		if _, err := x.Session(ctx, id); !errors.Is(err, index.ErrNotFound) {
			t.Errorf("session %q: %v", id, err)
		}
	}
	if _, err := x.Chunk(ctx, "s", 0); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("chunk: %v", err)
	}
	if err := x.Commit(ctx, update("s", 1, 0)); !errors.Is(err, index.ErrConflict) {
		t.Errorf("chunk 1 before chunk 0: %v", err)
	}
	must(t, x.Commit(ctx, update("s", 0, 0)))
	if err := x.Commit(ctx, update("s", 0, 0)); !errors.Is(err, index.ErrConflict) {
		t.Errorf("chunk 0 twice: %v", err)
	}
	if err := x.Commit(ctx, update("s", 2, 0)); !errors.Is(err, index.ErrConflict) {
		t.Errorf("chunk 2 before chunk 1: %v", err)
	}
	u := update("s", 1, 0)
	u.Head.Sealed, u.Head.NodeKey = true, []byte("key")
	u.Session.Account = "another" // it is known once the session has logged in
	u.Session.EndTime, u.Session.EndReason, u.Session.Recording = timestamppb.New(began.Add(time.Hour)), "done", "sealed"
	must(t, x.Commit(ctx, u))
	h, err = x.Head(ctx, "s")
	must(t, err)
	if h.Next != 2 || h.Previous != u.Head.Previous || h.Span != u.Head.Span || h.OpenFrom != 1 || !h.Sealed || h.Node != "n1" || h.Tally != u.Head.Tally || string(h.NodeKey) != "key" {
		t.Errorf("head: %+v", h)
	}
	got, err := x.Chunk(ctx, "s", 1)
	if err != nil || got != u.Chunks[0].Hash {
		t.Errorf("chunk 1: %v, %v", got, err)
	}
	s, err := x.Session(ctx, "s")
	must(t, err)
	want := proto.CloneOf(u.Session)
	want.Statements, want.Denied, want.Rows, want.Bytes, want.Chunks = 4, 3, 2, 1, 2
	if !proto.Equal(s, want) {
		t.Errorf("session:\n%v\n%v", s, want)
	}
}

// together commits a chunk and its seal at once, of a session that begins and one that goes on.
func together(t *testing.T, x index.Index) {
	ctx := context.Background()
	must(t, x.Commit(ctx, update("s-1", 0, 0)))
	for id, from := range map[postern.SessionID]uint32{"s-0": 0, "s-1": 1} {
		u := update(string(id), from+1, 0)
		u.Head.Sealed = true
		u.Chunks = []index.Stored{{Hash: record.Hash{7}, Size: 100}, {Hash: record.Hash{8}, Size: 200}}
		must(t, x.Commit(ctx, u))
		if h, err := x.Head(ctx, id); err != nil || h.Next != from+2 || !h.Sealed {
			t.Errorf("%s: head %+v, %v", id, h, err)
		}
		for i, want := range u.Chunks {
			if got, err := x.Chunk(ctx, id, from+uint32(i)); err != nil || got != want.Hash {
				t.Errorf("%s: chunk %d: %v, %v", id, from+uint32(i), got, err)
			}
		}
		if err := x.Commit(ctx, u); !errors.Is(err, index.ErrConflict) {
			t.Errorf("%s: twice: %v", id, err)
		}
		seal := update(string(id), from+1, 0)
		if err := x.Commit(ctx, seal); !errors.Is(err, index.ErrConflict) {
			t.Errorf("%s: the seal again, alone: %v", id, err)
		}
	}
}

// end ends recordings without a seal, and goes on with one.
func end(t *testing.T, x index.Index) {
	ctx := context.Background()
	for _, id := range []string{"s-1", "s-2", "s-3"} {
		u := update(id, 0, 0)
		if id == "s-2" {
			u.Session.EndTime, u.Session.EndReason = timestamppb.New(began.Add(time.Hour)), "done"
		}
		must(t, x.Commit(ctx, u))
	}
	u := update("s-3", 1, 0)
	u.Head.Sealed, u.Session.Recording, u.Session.EndTime = true, "sealed", timestamppb.New(began)
	must(t, x.Commit(ctx, u))
	open := func(after string, limit int) (ids []string) {
		t.Helper()
		list, err := x.Open(ctx, postern.SessionID(after), limit)
		must(t, err)
		for _, s := range list {
			ids = append(ids, s.GetId())
		}
		return ids
	}
	if got := open("", 10); !slices.Equal(got, []string{"s-1", "s-2"}) {
		t.Errorf("open: %v", got)
	}
	if got := open("s-1", 10); !slices.Equal(got, []string{"s-2"}) || len(open("", 1)) != 1 {
		t.Errorf("open behind the first: %v", got)
	}
	for _, c := range []struct {
		id   string
		next uint32
		err  error
	}{{"s-1", 0, index.ErrConflict}, {"s-1", 2, index.ErrConflict}, {"s-1", 1, nil}, {"s-1", 1, index.ErrConflict}, {"s-2", 1, nil}, {"s-3", 2, index.ErrConflict}, {"none", 0, index.ErrConflict}} {
		if err := x.End(ctx, postern.SessionID(c.id), c.next, "lost"); !errors.Is(err, c.err) {
			t.Errorf("end %s at %d: %v, want %v", c.id, c.next, err, c.err)
		}
	}
	for id, reason := range map[postern.SessionID]string{"s-1": "lost", "s-2": "done"} {
		s, err := x.Session(ctx, id)
		must(t, err)
		h, err := x.Head(ctx, id)
		must(t, err)
		if s.GetRecording() != "truncated" || s.GetEndTime() == nil || s.GetEndReason() != reason || !h.Lost || h.Sealed || h.Next != 1 {
			t.Errorf("%v %+v", s, h)
		}
	}
	if s, err := x.Session(ctx, "s-1"); err != nil || !s.GetEndTime().AsTime().Equal(began) {
		t.Errorf("it ends with its last event: %v %v", s, err)
	}
	must(t, x.Commit(ctx, update("s-1", 1, 0)))
	if h, err := x.Head(ctx, "s-1"); err != nil || h.Lost || h.Next != 2 {
		t.Errorf("it went on: %+v %v", h, err)
	}
	if got := open("", 10); !slices.Equal(got, []string{"s-1"}) {
		t.Errorf("open again: %v", got)
	}
}

// oneWins commits one chunk from many sides.
func oneWins(t *testing.T, x index.Index) {
	for n := range uint32(5) {
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				err := x.Commit(context.Background(), update("s", n, 0))
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, index.ErrConflict):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("chunk %d: %d won", n, won.Load())
		}
	}
}

func sessions(t *testing.T, x index.Index) {
	ctx := context.Background()
	for i := range 10 {
		u := update(fmt.Sprintf("s%d", i), 0, i/2) // two begin at one time
		if i%3 == 0 {
			u.Session.Subject = "bob"
		}
		if i == 2 {
			u.Session.Workload = ""
		}
		if i == 4 {
			u.Session.Task, u.Session.Resource = "other", "shop"
		}
		if i < 5 {
			u.Session.EndTime = timestamppb.New(began)
		}
		must(t, x.Commit(ctx, u))
	}
	list := func(f index.Filter) (ids string) {
		t.Helper()
		if f.Limit == 0 {
			f.Limit = index.MaxPage
		}
		got, err := x.Sessions(ctx, f)
		must(t, err)
		for _, s := range got {
			ids += s.GetId()[1:]
		}
		return ids
	}
	at := func(m int) time.Time { return began.Add(time.Duration(m) * time.Minute) }
	for _, c := range []struct {
		f    index.Filter
		want string
	}{
		{index.Filter{}, "9876543210"},
		{index.Filter{Limit: 3}, "987"},
		{index.Filter{Before: &index.Place{Start: at(3), ID: "s7"}}, "6543210"},
		{index.Filter{Before: &index.Place{Start: at(3), ID: "s6"}, Limit: 2}, "54"},
		{index.Filter{Subject: "bob"}, "9630"},
		{index.Filter{People: true}, "2"},
		{index.Filter{Live: true}, "98765"},
		{index.Filter{Task: "other"}, "4"},
		{index.Filter{Resource: "warehouse", Live: true, Subject: "bob"}, "96"},
		{index.Filter{Since: at(3)}, "9876"},
		{index.Filter{Until: at(1)}, "10"},
		{index.Filter{Since: at(1), Until: at(2)}, "32"},
		{index.Filter{Subject: "' OR 1=1 --"}, ""},
	} {
		if got := list(c.f); got != c.want {
			t.Errorf("%+v: %s, want %s", c.f, got, c.want)
		}
	}
}

func statements(t *testing.T, x index.Index) {
	ctx := context.Background()
	u := update("s", 0, 0)
	touched := []record.Touch{{Column: "sales.orders.email", Role: record.RoleOutput, Mask: "email"}}
	u.Statements = []index.Statement{
		{Number: 1, Seq: 2, Time: began, Text: "select 1", Verdict: postern.VerdictAllow, Rule: "r", Touched: touched},
		{Number: 2, Seq: 3, Time: began, Text: "drop", Verdict: postern.VerdictDeny, Rule: "r", Reason: "no"},
		{Number: 3, Seq: 4, Time: began, Text: "delete", Verdict: postern.VerdictHold},
	}
	u.Outcomes = []index.Outcome{{Number: 1, Verdict: postern.VerdictAllow, Rows: 5, Bytes: 50, Affected: -1, Tag: "SELECT 5", Duration: time.Millisecond}}
	must(t, x.Commit(ctx, u))
	v := update("s", 1, 0)
	v.Earlier = 3
	v.Statements = []index.Statement{{Number: 3, Seq: 6, Time: began.Add(time.Hour), Text: "delete", Verdict: postern.VerdictAllow, Rule: "later", Touched: touched}}
	v.Outcomes = []index.Outcome{{Number: 3, Verdict: postern.VerdictAllow, Affected: 1, Code: "23503"}}
	must(t, x.Commit(ctx, v))
	got, err := x.Statements(ctx, "s", 0, 10)
	must(t, err)
	if len(got) != 3 {
		t.Fatalf("%d statements", len(got))
	}
	if r := got[0]; r.Text != "select 1" || r.Verdict != postern.VerdictAllow || !r.Time.Equal(began) || len(r.Touched) != 1 || r.Touched[0] != touched[0] || r.Outcome == nil || *r.Outcome != u.Outcomes[0] {
		t.Errorf("%+v %+v", r, r.Outcome)
	}
	if r := got[1]; r.Verdict != postern.VerdictDeny || r.Reason != "no" || r.Outcome != nil {
		t.Errorf("%+v", r)
	}
	if r := got[2]; r.Text != "delete" || r.Seq != 6 || !r.Time.Equal(began.Add(time.Hour)) || r.Verdict != postern.VerdictAllow || r.Rule != "later" || len(r.Touched) != 1 || r.Outcome == nil || r.Outcome.Code != "23503" {
		t.Errorf("%+v", r)
	}
	if got, err := x.Statements(ctx, "s", 1, 1); err != nil || len(got) != 1 || got[0].Number != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := x.Statements(ctx, "none", 0, 1); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
