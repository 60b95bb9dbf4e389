package fleet

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/posterngate/postern/test/wait"
)

// Eventually asks check until it says nil, and fails the test with its last answer once
// the time is over. It returns how long that took.
func Eventually(t testing.TB, within time.Duration, what string, check func() error) time.Duration {
	t.Helper()
	took, err := eventually(context.Background(), within, check)
	if err != nil {
		t.Fatalf("%s: not within %s: %v", what, within, err)
	}
	return took
}

// patience is what every wait has at the least. Who promises a time looks at how long it
// took.
const patience = wait.Patience

func eventually(ctx context.Context, within time.Duration, check func() error) (time.Duration, error) {
	began := time.Now()
	within = max(within, patience)
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return time.Since(began), nil
		}
		select {
		case <-ctx.Done():
			return time.Since(began), fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
