package approve

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/store"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// TestAskingOnAndOn has somebody ask and take it back without end: how often is bounded, and of
// what is settled the newest stay, those of others all.
func TestAskingOnAndOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.start()
		live := func() {
			f.grant("g-1", alice)
			f.grant("g-2", &typesv1.Subject{Name: "carol"})
		}
		live()
		theirs := f.open(ask("g-2", "s-2", "DELETE 1"))
		if _, err := f.Withdraw(t.Context(), person("carol"), theirs.GetId()); err != nil {
			t.Fatal(err)
		}
		waits := f.open(ask("g-1", "s-1", "DELETE 0"))
		n, last := 0, ""
		again := func() error {
			n++
			h, err := f.OpenHold(t.Context(), "n1", ask("g-1", "s-1", fmt.Sprintf("DELETE %d", n)))
			if err != nil {
				return err
			}
			last = h.GetId()
			synctest.Wait() // the replica hears of it
			_, err = f.Withdraw(t.Context(), person("alice"), last)
			return err
		}
		for range maxAsked - 1 {
			if err := again(); err != nil {
				t.Fatal(err)
			}
		}
		code(t, again(), codes.ResourceExhausted, "asked people 60 times within a minute")
		f.open(ask("g-2", "s-2", "DELETE 2"))
		if f.open(ask("g-1", "s-9", "DELETE 0")).GetId() != waits.GetId() {
			t.Error("what waits already is asked again")
		}
		for range 5 {
			time.Sleep(lately)
			live()
			for range maxAsked {
				if err := again(); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		ids := map[string]bool{}
		for _, id := range f.store.Keys(kind) {
			ids[id] = true
		}
		if len(ids) > maxKept+3 || !ids[last] || !ids[theirs.GetId()] {
			t.Errorf("%d are kept of %d, the newest: %v, another's: %v", len(ids), n, ids[last], ids[theirs.GetId()])
		}
		if q := len(f.store.Keys(questionKind)); q > maxKept+3 {
			t.Errorf("%d questions are kept", q)
		}
	})
}

// TestTheYesOfAGrant stays for as long as the grant may live: by it the grant is judged.
func TestTheYesOfAGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.start()
		f.grant("g-1", alice)
		h, op, err := f.PrepareGrant(&typesv1.Grant{Id: "g-1", Subject: alice, Task: "purge-order"}, "leads", "OPS-7: month end", 8*24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.store.Commit(t.Context(), op); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Review(t.Context(), bob, h.GetId(), true, "", nil); err != nil {
			t.Fatal(err)
		}
		kept := func() bool {
			synctest.Wait()
			_, err := f.store.Get(t.Context(), store.Key{Kind: kind, Name: h.GetId()})
			return err == nil
		}
		time.Sleep(keep + 12*time.Hour)
		if !kept() {
			t.Error("it is forgotten while the grant lives")
		}
		time.Sleep(24 * time.Hour)
		if kept() {
			t.Error("it is kept for ever")
		}
	})
}
