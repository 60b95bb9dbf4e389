// Package storetest holds every implementation of store.Store to its contract, and has
// one in memory for the tests of others.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/run"
)

// Run holds a store to the contract. open makes an empty store, and closes it when its
// test ends; reopen closes the store and opens it again with what it held, as a restart
// of its server does (nil where the store does not outlive its process).
func Run(t *testing.T, open func(t *testing.T) store.Store, reopen func(t *testing.T, s store.Store) store.Store) {
	for name, test := range map[string]func(*testing.T, store.Store){
		"reads what was written":       readsWrites,
		"reads several at once":        readsAll,
		"lists in order and in pages":  lists,
		"commits all or nothing":       allOrNothing,
		"keeps its limits":             limits,
		"watches every change once":    watches,
		"watches from the past":        watchesPast,
		"tells of progress":            progress,
		"refuses the future":           future,
		"keeps its epoch":              epoch,
		"has one leader":               leads,
		"fences a leader that is gone": fences,
		"counts under contention":      contends,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
	if reopen == nil {
		return
	}
	t.Run("survives a restart", func(t *testing.T) {
		s := open(t)
		rev := commit(t, s, put("task", "a", "1", 0))
		before, err := s.Epoch(t.Context())
		check(t, err)
		s = reopen(t, s)
		e, err := s.Get(t.Context(), store.Key{Kind: "task", Name: "a"})
		check(t, err)
		if string(e.Value) != "1" || e.Revision != rev {
			t.Errorf("after the restart: %q at %d, want 1 at %d", e.Value, e.Revision, rev)
		}
		after, err := s.Epoch(t.Context())
		check(t, err)
		if before != after {
			t.Errorf("epoch changed from %s to %s", before, after)
		}
		w, err := s.Watch(t.Context(), rev, "task")
		check(t, err)
		defer w.Close()
		if b := next(t, w); len(b.Events) != 1 || b.Events[0].Name != "a" {
			t.Errorf("watch from before the restart tells %+v", b)
		}
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(kind, name, value string, revision int64) store.Op {
	return store.Op{Key: store.Key{Kind: kind, Name: name}, Value: []byte(value), If: revision}
}

func commit(t *testing.T, s store.Store, ops ...store.Op) int64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), ops...)
	check(t, err)
	return rev
}

// next is the next batch with events.
func next(t *testing.T, w store.Watcher) store.Batch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		b, err := w.Next(ctx)
		check(t, err)
		if len(b.Events) > 0 {
			return b
		}
	}
}

func readsWrites(t *testing.T, s store.Store) {
	k := store.Key{Kind: "task", Name: "a"}
	if _, err := s.Get(t.Context(), k); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("read of nothing: %v", err)
	}
	rev := commit(t, s, put("task", "a", "1", 0))
	e, err := s.Get(t.Context(), k)
	check(t, err)
	if e.Key != k || string(e.Value) != "1" || e.Revision != rev {
		t.Errorf("read %+v, want 1 at %d", e, rev)
	}
	again := commit(t, s, put("task", "a", "2", rev))
	if again <= rev {
		t.Errorf("revision went from %d to %d", rev, again)
	}
	commit(t, s, store.Op{Key: k, Delete: true, If: again})
	if _, err := s.Get(t.Context(), k); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("read of what was deleted: %v", err)
	}
	check(t, s.Ping(t.Context()))
}

func readsAll(t *testing.T, s store.Store) {
	a, b, none := store.Key{Kind: "task", Name: "a"}, store.Key{Kind: "lock", Name: "b"}, store.Key{Kind: "task", Name: "none"}
	if got, err := s.GetAll(t.Context(), none); err != nil || len(got) != 0 {
		t.Errorf("read of nothing: %v, %v", got, err)
	}
	first := commit(t, s, put("task", "a", "1", 0))
	second := commit(t, s, put("lock", "b", "2", 0))
	got, err := s.GetAll(t.Context(), b, none, a, b)
	check(t, err)
	want := []store.Entry{{Key: b, Value: []byte("2"), Revision: second}, {Key: a, Value: []byte("1"), Revision: first}, {Key: b, Value: []byte("2"), Revision: second}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
	if got, err := s.GetAll(t.Context(), slices.Repeat([]store.Key{none}, store.MaxOps)...); err != nil || len(got) != 0 {
		t.Errorf("as many as may be: %v, %v", got, err)
	}
	for _, n := range []int{0, store.MaxOps + 1} {
		if _, err := s.GetAll(t.Context(), make([]store.Key, n)...); err == nil {
			t.Errorf("%d keys were read", n)
		}
	}
}

func lists(t *testing.T, s store.Store) {
	var want []string
	for i := range 12 { // 1080 entries: more than one page of any store
		var ops []store.Op
		for j := range 90 {
			name := fmt.Sprintf("n-%04d", i*90+j)
			want = append(want, name)
			ops = append(ops, put("task", name, name, 0))
		}
		commit(t, s, ops...)
	}
	commit(t, s, put("tasks", "other", "x", 0), put("tas", "k", "x", 0))
	entries, rev, err := s.List(t.Context(), "task", "", 0)
	check(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("listed %d names, want %d in order", len(got), len(want))
	}
	if now := commit(t, s, put("task", "z", "", 0)); now != rev+1 {
		t.Errorf("listing was at %d, the next commit at %d", rev, now)
	}
	page, _, err := s.List(t.Context(), "task", "n-0099", 3)
	check(t, err)
	if len(page) != 3 || page[0].Name != "n-0100" || page[2].Name != "n-0102" {
		t.Errorf("page after n-0099: %+v", page)
	}
	if none, _, err := s.List(t.Context(), "task", "z", 0); err != nil || len(none) != 0 {
		t.Errorf("after the last: %v, %v", none, err)
	}
}

func allOrNothing(t *testing.T, s store.Store) {
	rev := commit(t, s, put("task", "a", "1", 0), put("task", "b", "1", 0))
	_, err := s.Commit(t.Context(), put("task", "a", "2", rev), put("task", "b", "2", rev+7))
	var conflict *store.ConflictError
	if !errors.As(err, &conflict) {
		t.Fatalf("commit on a wrong revision: %v", err)
	}
	if conflict.Name != "b" || conflict.Want != rev+7 || conflict.Have != rev {
		t.Errorf("conflict = %+v", conflict)
	}
	if e, _ := s.Get(t.Context(), store.Key{Kind: "task", Name: "a"}); string(e.Value) != "1" {
		t.Errorf("half of a transaction was done: a = %q", e.Value)
	}
	if _, err := s.Commit(t.Context(), put("task", "a", "2", 0)); !errors.As(err, &conflict) || conflict.Have != rev {
		t.Errorf("create of what exists: %v", err)
	}
	if _, err := s.Commit(t.Context(), put("task", "c", "1", 3)); !errors.As(err, &conflict) || conflict.Have != 0 {
		t.Errorf("update of what does not exist: %v", err)
	}
	commit(t, s, store.Op{Key: store.Key{Kind: "task", Name: "a"}, Check: true, If: rev}, put("task", "b", "2", store.AnyRevision))
	_, err = s.Commit(t.Context(), store.Op{Key: store.Key{Kind: "task", Name: "b"}, Check: true, If: rev}, put("task", "a", "3", store.AnyRevision))
	if !errors.As(err, &conflict) || conflict.Name != "b" {
		t.Errorf("commit whose check fails: %v", err)
	}
	commit(t, s, store.Op{Key: store.Key{Kind: "task", Name: "none"}, Delete: true, If: store.AnyRevision}, put("task", "d", "1", 0))
}

func limits(t *testing.T, s store.Store) {
	many := make([]store.Op, store.MaxOps+1)
	for i := range many {
		many[i] = put("task", fmt.Sprint("n", i), "", store.AnyRevision)
	}
	heavy := make([]store.Op, 20)
	for i := range heavy {
		heavy[i] = put("task", fmt.Sprint("n", i), strings.Repeat("x", store.MaxValueBytes), store.AnyRevision)
	}
	for name, ops := range map[string][]store.Op{
		"nothing":       nil,
		"too many":      many,
		"too heavy":     heavy,
		"too long":      {put("task", "a", strings.Repeat("x", store.MaxValueBytes+1), store.AnyRevision)},
		"twice":         {put("task", "a", "1", store.AnyRevision), put("task", "a", "2", store.AnyRevision)},
		"no name":       {put("task", "", "1", store.AnyRevision)},
		"no kind":       {put("", "a", "1", store.AnyRevision)},
		"slash in kind": {put("task/x", "a", "1", store.AnyRevision)},
		"name too long": {put("task", strings.Repeat("n", store.MaxNameBytes+1), "1", store.AnyRevision)},
	} {
		if _, err := s.Commit(t.Context(), ops...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	commit(t, s, many[:store.MaxOps]...)
	commit(t, s, heavy[:store.MaxCommitBytes/store.MaxValueBytes]...)
}

func watches(t *testing.T, s store.Store) {
	w, err := s.Watch(t.Context(), 0, "task", "lock")
	check(t, err)
	defer w.Close()
	rev := commit(t, s, put("task", "a", "1", 0), put("lock", "a", "1", 0), put("mask", "a", "1", 0))
	b := next(t, w)
	if b.Revision != rev || len(b.Events) != 2 {
		t.Fatalf("batch = %+v, want two events at %d", b, rev)
	}
	for _, e := range b.Events {
		if e.Kind == "mask" || e.Deleted || string(e.Value) != "1" || e.Revision != rev {
			t.Errorf("event = %+v", e)
		}
	}
	gone := commit(t, s, store.Op{Key: store.Key{Kind: "task", Name: "a"}, Delete: true, If: rev})
	if b = next(t, w); len(b.Events) != 1 || !b.Events[0].Deleted || b.Events[0].Value != nil || b.Events[0].Revision != gone {
		t.Errorf("batch of a deletion = %+v", b)
	}
	// Who waited for a while only misses nothing.
	over, stop := context.WithCancel(t.Context())
	stop()
	for err = nil; err == nil; {
		_, err = w.Next(over)
	}
	later := commit(t, s, put("task", "a", "2", 0))
	if b = next(t, w); len(b.Events) != 1 || b.Events[0].Revision != later {
		t.Errorf("batch after a wait that ended = %+v", b)
	}
	// Whatever is merged, a transaction is never split, and nothing is told twice.
	var last int64
	for i := range 50 {
		ops := make([]store.Op, 40)
		for j := range ops {
			ops[j] = put("task", fmt.Sprint("n-", j), fmt.Sprint(i, strings.Repeat("x", 1000)), store.AnyRevision)
		}
		last = commit(t, s, ops...)
	}
	count := make(map[int64]int)
	for b.Revision < last {
		b = next(t, w)
		whole := make(map[int64]int)
		for _, e := range b.Events {
			whole[e.Revision]++
			if e.Revision > b.Revision {
				t.Fatalf("event at %d in a batch up to %d", e.Revision, b.Revision)
			}
		}
		for r, n := range whole {
			if n != 40 || count[r] != 0 {
				t.Fatalf("revision %d: %d events in this batch, %d before", r, n, count[r])
			}
			count[r] = n
		}
	}
	if len(count) != 50 {
		t.Errorf("%d revisions were told, want 50", len(count))
	}
	w.Close()
	if _, err := w.Next(t.Context()); err == nil {
		t.Error("a closed watch goes on")
	}
}

func watchesPast(t *testing.T, s store.Store) {
	first := commit(t, s, put("task", "a", "1", 0))
	commit(t, s, put("task", "a", "2", first))
	w, err := s.Watch(t.Context(), first, "task")
	check(t, err)
	defer w.Close()
	var values []string
	for len(values) < 2 {
		for _, e := range next(t, w).Events {
			values = append(values, string(e.Value))
		}
	}
	if !reflect.DeepEqual(values, []string{"1", "2"}) {
		t.Errorf("told %v", values)
	}
}

func progress(t *testing.T, s store.Store) {
	w, err := s.Watch(t.Context(), 0, "task")
	check(t, err)
	defer w.Close()
	rev := commit(t, s, put("mask", "a", "1", 0))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 2 { // a change of another kind is progress, and so is time
		b, err := w.Next(ctx)
		check(t, err)
		if len(b.Events) != 0 || b.Revision < rev {
			t.Errorf("batch = %+v, want progress to %d", b, rev)
		}
	}
}

func future(t *testing.T, s store.Store) {
	rev := commit(t, s, put("task", "a", "1", 0))
	if w, err := s.Watch(t.Context(), rev+1000, "task"); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("watch from the future: %v, %v", w, err)
	}
}

func epoch(t *testing.T, s store.Store) {
	a, err := s.Epoch(t.Context())
	check(t, err)
	b, err := s.Epoch(t.Context())
	check(t, err)
	if a == "" || a != b {
		t.Errorf("epochs %q and %q", a, b)
	}
	c, err := s.NewEpoch(t.Context())
	check(t, err)
	entries, _, err := s.List(t.Context(), store.KindEpoch, "", 0)
	check(t, err)
	if c == a || len(entries) != 1 || string(entries[0].Value) != c {
		t.Errorf("new epoch %q after %q, kept as %+v", c, a, entries)
	}
}

func leads(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := run.New(ctx)
	var now, most, terms atomic.Int64
	for i := range 3 {
		g.Go(fmt.Sprint("candidate ", i), func(ctx context.Context) error {
			return s.Lead(ctx, "sweeper", func(ctx context.Context, guard store.Op) error {
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				defer now.Add(-1)
				_, err := s.Commit(ctx, guard, put("swept", fmt.Sprint("by-", guard.If), "x", 0))
				if terms.Add(1) == 4 {
					cancel()
				}
				return err // ends the term: somebody leads again
			})
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if most.Load() != 1 {
		t.Errorf("%d leaders at once", most.Load())
	}
	entries, _, err := s.List(t.Context(), "swept", "", 0)
	check(t, err)
	if len(entries) != 4 {
		t.Errorf("%d terms wrote, want 4", len(entries))
	}
}

func fences(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := run.New(ctx)
	guards := make(chan store.Op, 2)
	g.Go("candidate", func(ctx context.Context) error {
		return s.Lead(ctx, "sweeper", func(ctx context.Context, guard store.Op) error {
			select {
			case guards <- guard:
				return errors.New("the term ends")
			default:
				<-ctx.Done()
				return nil
			}
		})
	})
	old := <-guards
	<-guards // elected anew
	var conflict *store.ConflictError
	if _, err := s.Commit(t.Context(), old, put("swept", "late", "x", 0)); !errors.As(err, &conflict) || conflict.Key != old.Key {
		t.Errorf("a leader of the past wrote: %v", err)
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func contends(t *testing.T, s store.Store) {
	const writers, each = 4, 25
	k := store.Key{Kind: "counter", Name: "n"}
	g := run.New(t.Context())
	for i := range writers {
		g.Go(fmt.Sprint("writer ", i), func(ctx context.Context) error {
			for done := 0; done < each; {
				e, err := s.Get(ctx, k)
				if err != nil && !errors.Is(err, store.ErrNotFound) {
					return err
				}
				_, err = s.Commit(ctx, store.Op{Key: k, Value: append(e.Value, 'x'), If: e.Revision})
				var conflict *store.ConflictError
				switch {
				case err == nil:
					done++
				case !errors.As(err, &conflict):
					return err
				}
			}
			return nil
		})
	}
	check(t, g.Wait())
	e, err := s.Get(t.Context(), k)
	check(t, err)
	if len(e.Value) != writers*each {
		t.Errorf("%d writes are left of %d", len(e.Value), writers*each)
	}
}
