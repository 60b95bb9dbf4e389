// Package policytest gives tests a compiled policy from the YAML that operators write.
package policytest

import (
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// First is the version of what Compile gives.
var First = postern.Version{Epoch: "e", Revision: 1}

// Compile is the policy of the documents in yaml, at version First. What cannot be read,
// or is rejected, ends the test.
func Compile(t testing.TB, yaml string) *policy.Snapshot {
	t.Helper()
	return CompileAt(t, First, yaml)
}

// CompileAt is Compile at a version of the caller's.
func CompileAt(t testing.TB, v postern.Version, yaml string) *policy.Snapshot {
	t.Helper()
	objects, err := object.ParseYAML(strings.NewReader(yaml))
	if err != nil {
		t.Fatal(err)
	}
	s, rejected := policy.Compile(v, objects)
	if len(rejected) > 0 {
		t.Fatal(rejected)
	}
	return s
}
