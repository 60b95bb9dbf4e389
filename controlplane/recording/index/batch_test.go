package index_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

func updateOf(id string) *index.Update { return &index.Update{Session: &typesv1.Session{Id: id}} }

// TestBatcher shows that one bad update does not harm the others of its batch, and that
// no batch has two of one session.
func TestBatcher(t *testing.T) {
	bad := errors.New("bad")
	var mu sync.Mutex
	done := map[string]int{}
	b := &index.Batcher{Commit: func(_ context.Context, us []*index.Update) ([]error, error) {
		seen := map[string]bool{}
		for _, u := range us {
			if seen[u.Session.GetId()] {
				t.Error("two of one session")
			}
			seen[u.Session.GetId()] = true
			if u.Session.GetId() == "bad" {
				return nil, bad
			}
		}
		mu.Lock()
		defer mu.Unlock()
		out := make([]error, len(us))
		for i, u := range us {
			done[u.Session.GetId()]++
			if strings.HasPrefix(u.Session.GetId(), "c") {
				out[i] = index.ErrConflict
			}
		}
		return out, nil
	}}
	var wg sync.WaitGroup
	for i := range 200 {
		id, want := fmt.Sprintf("s%d", i/2), error(nil)
		switch i % 10 {
		case 3:
			id, want = "bad", bad
		case 4:
			id, want = fmt.Sprintf("c%d", i), index.ErrConflict
		}
		wg.Go(func() {
			if err := b.Do(context.Background(), updateOf(id)); !errors.Is(err, want) {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	wg.Wait()
	n := 0
	for _, c := range done {
		n += c
	}
	if n != 180 {
		t.Errorf("%d were made", n)
	}
}

func TestBatcherLeft(t *testing.T) {
	began, go_ := make(chan struct{}), make(chan struct{})
	b := &index.Batcher{Commit: func(_ context.Context, us []*index.Update) ([]error, error) {
		if us[0].Session.GetId() == "slow" {
			close(began)
			<-go_
		}
		return make([]error, len(us)), nil
	}}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.Do(context.Background(), updateOf("slow")); err != nil {
			t.Error(err)
		}
	})
	<-began
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Do(ctx, updateOf("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("left: %v", err)
	}
	close(go_)
	wg.Wait()
}

func TestWords(t *testing.T) {
	got := index.Words(`SELECT c."E-Mail" FROM sales.Customers_2 c WHERE x='Grüße, Welt' AND c.y = 'x' -- ` + strings.Repeat("ü", 40))
	want := []string{"select", "c", "e", "mail", "from", "sales", "customers_2", "where", "x", "grüße", "welt", "and", "y", strings.Repeat("ü", 32)}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	terms, prefix := index.Terms("Customers* from")
	if !slices.Equal(terms, []string{"customers", "from"}) || !slices.Equal(prefix, []bool{true, false}) {
		t.Errorf("%q %v", terms, prefix)
	}
}
