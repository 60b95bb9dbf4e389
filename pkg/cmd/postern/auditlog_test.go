package main

import (
	"testing"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

func TestChangesAreJoined(t *testing.T) {
	got := wholeChanges([]*apiv1.AuditEntry{ // newest first
		{Sequence: 3, Changes: []*apiv1.AuditChange{{Object: "task/a", Action: "updated", After: `2}`}, {Object: "task/b", Action: "deleted", Before: `{}`}}},
		{Sequence: 2, Changes: []*apiv1.AuditChange{{Object: "task/a", Action: "updated", Before: `{"x": 1}`, After: `{"x": `, More: true}}},
		{Sequence: 1},
	})
	if len(got) != 1 || len(got[3]) != 2 || got[3][0].GetBefore() != `{"x": 1}` || got[3][0].GetAfter() != `{"x": 2}` || got[3][1].GetObject() != "task/b" {
		t.Fatalf("changes: %v", got)
	}
	if diff := lineDiff(asYAML(got[3][0].GetBefore()), asYAML(got[3][0].GetAfter())); diff != "- x: 1\n+ x: 2\n" {
		t.Errorf("diff:\n%s", diff)
	}
	if text := asYAML(`{"x": `); text != "{\"x\":\n" {
		t.Errorf("not whole: %q", text)
	}
}
