package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"
)

// TestSilentControlPlane: that nothing has answered in time is no failure of the command, but of the way.
func TestSilentControlPlane(t *testing.T) {
	var stderr strings.Builder
	a := &app{env: Env{Stderr: &stderr, Getenv: func(name string) string { return map[string]string{"POSTERN_ADDR": "https://c:1"}[name] }}}
	err := connect.NewError(connect.CodeDeadlineExceeded, fmt.Errorf("dial tcp: %w", context.DeadlineExceeded)) // as of a dial that took too long
	if code := a.exit(a.root(), err); code != exitUnreachable || !strings.Contains(stderr.String(), "the control plane does not answer: dial tcp") || !strings.Contains(stderr.String(), "is https://c:1 right") {
		t.Errorf("%d: %s", code, &stderr)
	}
}
