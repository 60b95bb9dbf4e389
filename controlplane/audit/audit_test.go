package audit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/run"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func fixed() time.Time { return noon }

func task(name, value string, revision int64) store.Op {
	return store.Op{Key: store.Key{Kind: "task", Name: name}, Value: []byte(value), If: revision}
}

func TestCommitIsOneTransaction(t *testing.T) {
	m := storetest.NewMemory()
	l := audit.New(m, fixed)
	rev, err := l.Commit(t.Context(), audit.Entry{Actor: "ada", Action: "Create", Object: "task/a"}, task("a", "1", 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []store.Key{{Kind: "task", Name: "a"}, {Kind: audit.KindEntry, Name: "00000000000000000001"}} {
		if e, err := m.Get(t.Context(), k); err != nil || e.Revision != rev {
			t.Errorf("%s: at %d, %v; want %d", k, e.Revision, err, rev)
		}
	}
	// A change that comes too late leaves no entry, and its own conflict is named even when
	// another replica has appended meanwhile.
	other := audit.New(m, fixed)
	if err := other.Append(t.Context(), audit.Entry{Actor: "bob"}); err != nil {
		t.Fatal(err)
	}
	_, err = l.Commit(t.Context(), audit.Entry{Actor: "ada", Action: "Create", Object: "task/a"}, task("a", "2", 0))
	var conflict *store.ConflictError
	if !errors.As(err, &conflict) || conflict.Kind != "task" || audit.IsConflict(err) {
		t.Errorf("error = %v, want a conflict of task/a", err)
	}
	if keys := m.Keys(audit.KindEntry); len(keys) != 2 {
		t.Errorf("entries: %v", keys)
	}
}

func TestContention(t *testing.T) {
	m := storetest.NewMemory()
	g := run.New(t.Context())
	const replicas, writers, each = 3, 4, 20
	for r := range replicas {
		l := audit.New(m, time.Now)
		for w := range writers {
			g.Go(fmt.Sprint(r, w), func(ctx context.Context) error {
				for i := range each {
					name := fmt.Sprint(r, "-", w, "-", i)
					if _, err := l.Commit(ctx, audit.Entry{Actor: "ada", Object: "task/" + name}, task(name, "1", 0)); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	last, err := audit.New(m, time.Now).Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(replicas * writers * each); last.GetSequence() != want || len(m.Keys("task")) != int(want) {
		t.Errorf("%d entries and %d tasks, want %d", last.GetSequence(), len(m.Keys("task")), want)
	}
}

func TestTimeNeverGoesBack(t *testing.T) {
	m := storetest.NewMemory()
	now := noon
	l := audit.New(m, func() time.Time { return now })
	for range 2 {
		if err := l.Append(t.Context(), audit.Entry{Actor: "ada"}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(-time.Hour)
	}
	entries, _, err := l.List(t.Context(), audit.Query{Since: noon})
	if err != nil || len(entries) != 2 {
		t.Errorf("since noon: %v, %v", entries, err)
	}
}

func TestOpAppendsWithinACommit(t *testing.T) {
	m := storetest.NewMemory()
	l := audit.New(m, fixed)
	ctx, wrote := audit.Watched(t.Context())
	ops, done, err := l.Op(ctx, audit.Entry{Actor: "ada", Object: "task/a"})
	if err != nil {
		t.Fatal(err)
	}
	late, _, err := l.Op(ctx, audit.Entry{Actor: "ada", Object: "task/b"})
	if err != nil {
		t.Fatal(err)
	}
	rev, err := m.Commit(ctx, append(ops, task("a", "1", 0))...)
	if err != nil {
		t.Fatal(err)
	}
	if wrote() {
		t.Error("noted before it was done")
	}
	done(rev)
	if !wrote() {
		t.Error("not noted")
	}
	if _, err := m.Commit(ctx, late...); !audit.IsConflict(err) {
		t.Errorf("the second entry at the same place: %v", err)
	}
}

func fill(t *testing.T, n int) (*storetest.Memory, *audit.Log) {
	t.Helper()
	m := storetest.NewMemory()
	now := noon
	l := audit.New(m, func() time.Time { now = now.Add(time.Second); return now })
	for i := range n {
		e := audit.Entry{Actor: []string{"ada", "bob"}[i%2], Action: "Update", Object: fmt.Sprintf("task/t%d mask/m", i%10)}
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	return m, l
}

func TestList(t *testing.T) {
	_, l := fill(t, 1200)
	var got []int64
	for before := int64(0); ; {
		page, next, err := l.List(t.Context(), audit.Query{Actor: "bob", Object: "task/t3", Before: before, Limit: 7})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			got = append(got, e.GetSequence())
		}
		if before = next; next == 0 {
			break
		}
	}
	if len(got) != 120 || got[0] != 1194 || got[119] != 4 {
		t.Errorf("%d entries from %v", len(got), got)
	}
	page, next, err := l.List(t.Context(), audit.Query{Since: noon.Add(1190 * time.Second), Object: "mask/m"})
	if err != nil || len(page) != 11 || next != 0 {
		t.Errorf("since: %d entries, next %d, %v", len(page), next, err)
	}
	if page, _, _ := l.List(t.Context(), audit.Query{Object: "task/t"}); len(page) != 0 {
		t.Error("a part of a name was found as the whole")
	}
}

// TestTells: the log is read back to its beginning, and who asked in vain before leaves no trace
// that would be taken for the thing itself.
func TestTells(t *testing.T) {
	m := storetest.NewMemory()
	l := audit.New(m, fixed)
	if known, err := l.Tells(t.Context(), "node.register", "node/n1"); known || err != nil {
		t.Errorf("an empty log tells of it: %v", err)
	}
	for i := range 6000 {
		e := audit.Entry{Actor: "ada", Action: "DrainNode", Object: "node/n2"}
		if i == 0 {
			e.Action, e.Object = "node.register", "node/n1"
		}
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	for object, want := range map[string]bool{"node/n1": true, "node/n2": false, "node/n": false} {
		if known, err := l.Tells(t.Context(), "node.register", object); known != want || err != nil {
			t.Errorf("%s: %v, %v", object, known, err)
		}
	}
}

func TestVerifyFindsEveryChange(t *testing.T) {
	key := func(n int) store.Key { return store.Key{Kind: audit.KindEntry, Name: fmt.Sprintf("%020d", n)} }
	read := func(t *testing.T, m *storetest.Memory, n int) *apiv1.AuditEntry {
		s, err := m.Get(t.Context(), key(n))
		if err != nil {
			t.Fatal(err)
		}
		e := &apiv1.AuditEntry{}
		if err := proto.Unmarshal(s.Value, e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	write := func(t *testing.T, m *storetest.Memory, n int, e *apiv1.AuditEntry) {
		v, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		m.Tamper(key(n), v)
	}
	for name, tamper := range map[string]func(*testing.T, *storetest.Memory){
		"actor": func(t *testing.T, m *storetest.Memory) { e := read(t, m, 5); e.Actor = "eve"; write(t, m, 5, e) },
		"time":  func(t *testing.T, m *storetest.Memory) { e := read(t, m, 5); e.Time.Nanos++; write(t, m, 5, e) },
		"moved": func(t *testing.T, m *storetest.Memory) {
			e := read(t, m, 5)
			e.Actor += e.Address + "x"
			write(t, m, 5, e)
		},
		"swapped": func(t *testing.T, m *storetest.Memory) {
			a, b := read(t, m, 5), read(t, m, 6)
			write(t, m, 5, b)
			write(t, m, 6, a)
		},
		"last":    func(t *testing.T, m *storetest.Memory) { e := read(t, m, 10); e.Outcome = "no"; write(t, m, 10, e) },
		"garbage": func(t *testing.T, m *storetest.Memory) { m.Tamper(key(5), []byte{0xff}) },
		"dropped": func(t *testing.T, m *storetest.Memory) {
			if _, err := m.Commit(t.Context(), store.Op{Key: key(10), Delete: true, If: store.AnyRevision}); err != nil {
				t.Fatal(err)
			}
		},
		"added": func(t *testing.T, m *storetest.Memory) { write(t, m, 11, &apiv1.AuditEntry{Sequence: 11}) },
	} {
		t.Run(name, func(t *testing.T) {
			m, l := fill(t, 10)
			if last, err := l.Verify(t.Context()); err != nil || last.GetSequence() != 10 {
				t.Fatalf("before: %v, %v", last, err)
			}
			tamper(t, m)
			var broken *audit.BrokenError
			if _, err := l.Verify(t.Context()); !errors.As(err, &broken) {
				t.Errorf("not found: %v", err)
			}
		})
	}
}
