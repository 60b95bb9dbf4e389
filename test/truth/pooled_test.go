package truth

import (
	"os"
	"slices"
	"testing"

	"github.com/posterngate/postern/test/twoworlds"
)

// lasting are the classes of entries that may leave something behind, or find something.
var lasting = []string{"namespace", "settings", "session", "messages", "notification", "startup", "literals", "statements", "copy", "skip", "control"}

// TestPooled judges entries one after the other in sessions that have each other's
// connections: what one leaves must not be there for the next, and nothing that the
// catalogue promises may hang on a connection being new. In the short form, those that may
// leave or find something.
func TestPooled(t *testing.T) {
	short := os.Getenv(majorsVar) == ""
	levels := []twoworlds.Level{twoworlds.Source}
	if !short {
		levels = []twoworlds.Level{twoworlds.Result, twoworlds.Source}
	}
	entries := load(t)
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.Want == Bounded || short && !slices.Contains(lasting, e.Class) })
	w := twoworlds.Start(t, twoworlds.Options{Levels: levels, Pooled: true})
	s := score{title: "pooled, PostgreSQL " + w.PG[0].Version, cells: map[cell]*count{}, unheld: map[string]bool{}}
	judged := 0
	for _, l := range levels {
		for i := range entries {
			e := &entries[i]
			if !e.Alone(l) {
				continue
			}
			found, err := Judge(t.Context(), t, w, e, l, short)
			if err != nil {
				t.Fatalf("%s: %v", e.ID, err)
			}
			judged++
			s.add(e, l, found)
			for _, f := range found {
				t.Error(f.String())
			}
		}
	}
	s.print(t.Output())
	total.merge(&s)
	// Each was judged in two worlds, in one session of each at least.
	if n := w.Logins(); judged < 50 || n == 0 || n > judged {
		t.Errorf("%d entries were judged with %d logins: connections were not used again", judged, n)
	}
}
