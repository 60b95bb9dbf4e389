package run

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestFailures: nothing is no error, and of many the first are told.
func TestFailures(t *testing.T) {
	var f Failures
	f.Add(nil)
	if err := f.Err(); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	f.Add(context.Canceled)
	for i := range 10_000 {
		f.Add(fmt.Errorf("thing %d", i))
	}
	err := f.Err()
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "thing 1\nand 9998 more") {
		t.Errorf("of 10001: %v", err)
	}
}
