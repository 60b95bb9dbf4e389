package approve

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/store"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/run"
)

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.grant("g-1", alice)
		f.start()
		asked, said := f.open(ask("g-1", "s-1", "DELETE 1")), f.open(ask("g-1", "s-1", "DELETE 2"))
		if _, err := f.Review(t.Context(), bob, said.GetId(), true, "", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(29 * time.Minute)
		synctest.Wait()
		if s := f.state(asked.GetId()) + " " + f.state(said.GetId()); s != "pending approved" {
			t.Errorf("before: %s", s)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := f.state(asked.GetId()) + " " + f.state(said.GetId()); s != "expired expired" {
			t.Errorf("after: %s", s)
		}
		_, err := f.Review(t.Context(), bob, asked.GetId(), true, "", nil)
		code(t, err, codes.FailedPrecondition, "expired")
		if h := f.open(ask("g-1", "s-1", "DELETE 1")); h.GetId() == asked.GetId() {
			t.Error("an expired hold answers")
		}
		time.Sleep(31 * time.Minute) // the grant's end is the hold's
		f.grant("g-1", alice)
		time.Sleep(50 * time.Minute)
		late := f.open(ask("g-1", "s-1", "DELETE 3"))
		if left := time.Until(late.GetExpireTime().AsTime()); left > 10*time.Minute {
			t.Errorf("a hold outlives its grant by %s", left-10*time.Minute)
		}
		time.Sleep(8 * 24 * time.Hour)
		synctest.Wait()
		if keys := append(f.store.Keys(kind), f.store.Keys(questionKind)...); len(keys) != 0 {
			t.Errorf("not forgotten: %v", keys)
		}
	})
}

// TestDamagedHold: one that cannot be read keeps nobody from the others.
func TestDamagedHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.grant("g-1", alice)
		if _, err := f.store.Commit(t.Context(), store.Op{Key: holdKey("damaged"), Value: []byte("damaged")}); err != nil {
			t.Fatal(err)
		}
		f.start()
		asked, said := f.open(ask("g-1", "s-1", "DELETE 1")), f.open(ask("g-1", "s-1", "DELETE 2"))
		if _, err := f.Review(t.Context(), bob, said.GetId(), true, "", nil); err != nil {
			t.Fatal(err)
		}
		listed, err := f.List(t.Context(), bob, false, false)
		if err != nil || len(listed) != 2 {
			t.Errorf("listed %v, %v", listed, err)
		}
		if of, err := f.Open(t.Context(), "alice"); err != nil || len(of) != 2 {
			t.Errorf("of alice %v, %v", of, err)
		}
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if s := f.state(asked.GetId()) + " " + f.state(said.GetId()); s != "expired expired" {
			t.Errorf("after their time: %s", s)
		}
	})
}

// TestLargestHold: what may be asked can be answered, at whatever length, and asked of others.
func TestLargestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.policy(rules)
		f.grant("g-1", alice)
		f.start()
		req := ask("g-1", "s-1", strings.Repeat("x", maxStatementBytes))
		req.Rule, req.Reason = "soon", strings.Repeat("r", maxReasonBytes)
		for range maxParameters {
			req.Parameters = append(req.Parameters, &typesv1.Parameter{Value: new(strings.Repeat("v", maxParameterBytes/maxParameters))})
		}
		var err error
		for n := 0; err == nil && n < 10; n++ { // each a question of its own
			req.Statement = string(rune('a'+n)) + req.Statement[1:]
			req.Masked = append(req.Masked, slices.Repeat([]string{"column_1"}, 50)...)
			_, err = f.OpenHold(t.Context(), "n1", req)
		}
		code(t, err, codes.ResourceExhausted, "too large to be shown")
		time.Sleep(5*time.Minute + time.Second)
		synctest.Wait()
		holds, err := f.List(t.Context(), person("dora", "directors"), false, true)
		if err != nil || len(holds) == 0 {
			t.Fatalf("asked of directors: %d, %v", len(holds), err)
		}
		for _, h := range holds {
			for _, by := range []Caller{person("dora", "directors"), person("lea", "leads")} {
				if _, err := f.Review(t.Context(), by, h.GetId(), true, strings.Repeat("y", maxReasonBytes), nil); err != nil {
					t.Error(err)
				}
			}
			if s := f.state(h.GetId()); s != "approved" {
				t.Error(s)
			}
		}
	})
}

// TestLateYes has people answer when the one who asked has stopped waiting.
func TestLateYes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.grant("g-1", alice)
		f.start()
		h := f.open(ask("g-1", "s-1", "DELETE 1"))
		began := time.Now()
		_, err := f.Follow(t.Context(), h.GetId(), func(*typesv1.Hold) error { return nil })
		code(t, err, codes.DeadlineExceeded, "nobody approved")
		if took := time.Since(began); took != 15*time.Minute || f.state(h.GetId()) != "pending" {
			t.Errorf("after %s the hold is %s", took, f.state(h.GetId()))
		}
		time.Sleep(10 * time.Minute)
		if _, err := f.Review(t.Context(), bob, h.GetId(), true, "", nil); err != nil {
			t.Fatal(err)
		}
		again := f.open(ask("g-1", "s-2", "DELETE 1"))
		if again.GetId() != h.GetId() || stateWord(again) != "approved" {
			t.Errorf("the retry is told %v", again)
		}
		if _, err := f.Consume(t.Context(), "n-1", again.GetId(), again.GetDigest(), "s-2"); err != nil {
			t.Error(err)
		}
	})
}

// TestWaiting has a session wait at one replica while people answer at another.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.grant("g-1", alice)
		f.start()
		other := f.replica()
		wait := func(ctx context.Context, id string) (states *[]string, done chan error) {
			states, done = new([]string), make(chan error, 1)
			g := run.New(t.Context())
			g.Go("wait", func(context.Context) error {
				_, err := f.Follow(ctx, id, func(h *typesv1.Hold) error {
					*states = append(*states, stateWord(h))
					return nil
				})
				done <- err
				return nil
			})
			synctest.Wait()
			return states, done
		}
		h := f.open(ask("g-1", "s-1", "DELETE 1"))
		states, done := wait(t.Context(), h.GetId())
		time.Sleep(time.Minute)
		f.store.BreakWatches()
		if _, err := other.Review(t.Context(), bob, h.GetId(), true, "", nil); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil || !slices.Equal(*states, []string{"pending", "approved"}) {
			t.Errorf("heard %v, %v", *states, err)
		}

		h = f.open(ask("g-1", "s-1", "DELETE 2"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, done = wait(ctx, h.GetId())
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after the wait: %v", err)
		}
		cancel()
		if s := f.state(h.GetId()); s != "pending" {
			t.Errorf("a wait that timed out left the hold %s", s)
		}

		// Two wait for the same; the first that goes does not take it away.
		ctx1, cancel1 := context.WithCancel(t.Context())
		ctx2, cancel2 := context.WithCancel(t.Context())
		_, done1 := wait(ctx1, h.GetId())
		_, done2 := wait(ctx2, h.GetId())
		cancel1()
		<-done1
		if s := f.state(h.GetId()); s != "pending" {
			t.Errorf("one of two gave up, and the hold is %s", s)
		}
		cancel2()
		<-done2
		if s := f.state(h.GetId()); s != "withdrawn" {
			t.Errorf("all gave up, and the hold is %s", s)
		}
	})
}

// TestShutdownWithdrawsNothing ends the replica while a session waits.
func TestShutdownWithdrawsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.grant("g-1", alice)
		h := f.open(ask("g-1", "s-1", "DELETE 1"))
		ctx, cancel := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("approve", f.Run)
		g.Go("wait", func(ctx context.Context) error {
			_, err := f.Follow(ctx, h.GetId(), func(*typesv1.Hold) error { return nil })
			return err
		})
		synctest.Wait()
		cancel()
		_ = g.Wait()
		if s := f.state(h.GetId()); s != "pending" {
			t.Errorf("hold is %s", s)
		}
	})
}

func TestWatchShowsWhatConcerns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.grant("g-1", alice)
		f.grant("g-2", &typesv1.Subject{Name: "carol"})
		f.start()
		mine := f.open(ask("g-1", "s-1", "DELETE 1"))
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		seen := map[string][]string{}
		g := run.New(ctx)
		for _, by := range []Caller{person("alice"), bob, person("eve", "analysts")} {
			name := by.Subject.Name
			g.Go(name, func(ctx context.Context) error {
				return f.Watch(ctx, by, func(h *typesv1.Hold) error {
					mu.Lock()
					defer mu.Unlock()
					seen[name] = append(seen[name], h.GetSubject()+" "+stateWord(h))
					return nil
				})
			})
			synctest.Wait()
		}
		f.open(ask("g-2", "s-2", "DELETE 1"))
		synctest.Wait()
		if _, err := f.Withdraw(t.Context(), person("alice"), mine.GetId()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		_ = g.Wait()
		want := map[string][]string{
			"alice": {"alice pending", "alice withdrawn"},
			"bob":   {"alice pending", "carol pending", "alice withdrawn"},
		}
		for name, w := range want {
			if !slices.Equal(seen[name], w) {
				t.Errorf("%s saw %v, want %v", name, seen[name], w)
			}
		}
		if len(seen["eve"]) != 0 {
			t.Errorf("eve saw %v", seen["eve"])
		}
		holds, err := f.List(t.Context(), bob, false, true)
		if err != nil || len(holds) != 1 || holds[0].GetSubject() != "carol" {
			t.Errorf("listed %v, %v", holds, err)
		}
		_, err = f.Withdraw(t.Context(), bob, holds[0].GetId())
		code(t, err, codes.PermissionDenied, "not yours")
	})
}
