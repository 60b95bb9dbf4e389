//go:build unix && !linux

package fleet

import "testing"

// A Namespace is for Linux alone.
type Namespace struct{ Host string }

// NewNamespace fails the test.
func NewNamespace(t testing.TB, _ int) *Namespace {
	t.Fatal("network namespaces are for Linux alone")
	return nil
}

func (*Namespace) enter() error { return nil }
