package userapi_test

import (
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

// TestDoctorTellsThatNobodyGetsIn: a lock on a resource, and that no node serves it, are told
// with what to do, beside the levels that hold.
func TestDoctorTellsThatNobodyGetsIn(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world)
	findings := func() string {
		r, err := h.access("vic:viewers").Doctor(t.Context(), connect.NewRequest(&apiv1.DoctorRequest{Task: "sales-report"}))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(r.Msg.GetResources()[0].GetFindings())
	}
	if all := findings(); strings.Contains(all, "nobody") {
		t.Errorf("a resource that is served: %s", all)
	}
	h.hub.down = true
	if all := findings(); !strings.Contains(all, "no node that serves it is connected") || !strings.Contains(all, "postern nodes") {
		t.Errorf("no node is there: %s", all)
	}
	h.hub.down = false
	h.apply(t, "apiVersion: postern/v1\nkind: Lock\nmetadata: {name: shut}\nspec: {resource: warehouse, reason: an audit}\n")
	if all := findings(); !strings.Contains(all, "an audit") || !strings.Contains(all, "postern unlock shut") {
		t.Errorf("it is locked: %s", all)
	}
}
