package budget

import (
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/policy"
)

// TestPace: so many at once, so many more as time passes, and anew under another rate.
func TestPace(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	p := &Pace{}
	passes := func(r policy.Rate, tries int) (n int) {
		for range tries {
			if p.Allow(now, r) {
				n++
			}
		}
		return n
	}
	minute := policy.Rate{N: 6, Per: time.Minute}
	for _, c := range []struct {
		after time.Duration
		rate  policy.Rate
		tries int
		want  int
	}{
		{0, minute, 10, 6}, {9 * time.Second, minute, 10, 0}, {time.Second, minute, 10, 1}, {30 * time.Second, minute, 10, 3},
		{time.Hour, minute, 10, 6}, {0, policy.Rate{N: 2, Per: time.Second}, 10, 2}, {0, policy.Rate{}, 10, 10},
	} {
		now = now.Add(c.after)
		if got := passes(c.rate, c.tries); got != c.want {
			t.Errorf("%s later %d of %d passed under %s, want %d", c.after, got, c.tries, c.rate, c.want)
		}
	}
	if (*Pace)(nil).Allow(now, minute) || !(*Pace)(nil).Allow(now, policy.Rate{}) {
		t.Error("without a pace a rate is not kept")
	}
}
