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
			if ok, _ := p.Allow(now, r); ok {
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
	none, _ := (*Pace)(nil).Allow(now, minute)
	any, _ := (*Pace)(nil).Allow(now, policy.Rate{})
	if none || !any {
		t.Error("without a pace a rate is not kept")
	}
}

// TestPaceSaysWhen: who comes too soon is told when it is not.
func TestPaceSaysWhen(t *testing.T) {
	var p Pace
	now, r := time.Now(), policy.Rate{N: 2, Per: time.Minute}
	for range 2 {
		if ok, after := p.Allow(now, r); !ok || after != 0 {
			t.Fatalf("%v %v", ok, after)
		}
	}
	ok, after := p.Allow(now.Add(10*time.Second), r)
	if ok || after.Round(time.Millisecond) != 20*time.Second {
		t.Errorf("%v %v", ok, after)
	}
	if ok, _ := p.Allow(now.Add(10*time.Second+after+time.Millisecond), r); !ok {
		t.Error("it was not so")
	}
}
