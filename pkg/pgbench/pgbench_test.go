package pgbench

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// notes writes what pgbench would of two clients: one that does 1,000 transactions a
// second from second 1 to 3, and one that does 500 from second 2 to 4. Every tenth is
// written down.
func notes(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var b strings.Builder
	line := func(client, no, us int) {
		fmt.Fprintf(&b, "%d %d %d 0 %d %d\n", client, no, 100+no/10%10, us/1e6, us%1e6)
	}
	for no := 0; no <= 2000; no += 10 {
		line(0, no, 1e6+no*1000)
	}
	for no := 0; no <= 1000; no += 10 {
		line(1, no, 2e6+no*2000)
	}
	if err := os.WriteFile(filepath.Join(dir, "log.1"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRateIsOfTheTimeInWhichAllWereAtWork(t *testing.T) {
	var tx Transactions
	if err := tx.read(notes(t), 2); err != nil {
		t.Fatal(err)
	}
	if !tx.Steady || tx.Begin != time.Unix(2, 0) || tx.End != time.Unix(3, 0) || math.Abs(tx.Rate-1500) > 1 {
		t.Errorf("steady %t, from %v to %v, %v a second; want 1500 from second 2 to 3", tx.Steady, tx.Begin, tx.End, tx.Rate)
	}
	if n := tx.Between(time.Unix(2, 5e8), time.Unix(3, 0)); math.Abs(n-750) > 1 {
		t.Errorf("%v transactions in half a second, want 750", n)
	}
	if p := tx.Percentile(.5); p < 100*time.Microsecond || p > 109*time.Microsecond || tx.Percentile(.999) != 109*time.Microsecond {
		t.Errorf("p50 %v, p99.9 %v", p, tx.Percentile(.999))
	}
}

func TestBadNotesAreErrors(t *testing.T) {
	for name, text := range map[string]string{"short line": "0 1 2\n", "not a number": "0 x 2 0 1 1\n", "another client": "9 1 2 0 1 1\n", "one line": "0 1 2 0 1 1\n"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "log.1"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var tx Transactions
		if err := tx.read(dir, 1); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestWhatPgbenchSays(t *testing.T) {
	done, failed, err := processed("x\nnumber of transactions actually processed: 400/400\nnumber of failed transactions: 3 (0.7%)\n")
	if done != 400 || failed != 3 || err != nil {
		t.Errorf("%d, %d, %v", done, failed, err)
	}
	if _, _, err := processed("nothing"); err == nil {
		t.Error("nothing was processed, and that was no error")
	}
}
