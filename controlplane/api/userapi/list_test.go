package userapi_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/test/wait"
)

func TestList(t *testing.T) {
	h := newHouse(t)
	var text strings.Builder
	for i := range 60 {
		fmt.Fprintf(&text, "---\nkind: Mask\nmetadata: {name: m-%02d, labels: {third: \"%v\", team: %s}}\nspec: {method: \"null\"}\n", i, i%3 == 0, []string{"sales", "hr"}[i%2])
	}
	h.apply(t, text.String())
	h.apply(t, "kind: RoleBinding\nmetadata: {name: scoped}\nspec: {role: viewer, subjects: [{group: sales}], scope: {labels: {team: sales}}}")
	for name, c := range map[string]struct {
		by     string
		labels map[string]string
		size   int32
		want   int
		pages  int
	}{
		"all":            {"ada", nil, 0, 60, 1},
		"pages":          {"ada", nil, 25, 60, 3},
		"exact pages":    {"ada", nil, 20, 60, 3},
		"labels":         {"ada", map[string]string{"third": "true"}, 7, 20, 3},
		"scope":          {"sam:sales", nil, 20, 30, 2},
		"scope, labels":  {"sam:sales", map[string]string{"third": "true"}, 0, 10, 1},
		"label is wrong": {"ada", map[string]string{"third": "maybe"}, 0, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			req := &apiv1.ListRequest{Kind: "mask", PageSize: c.size, Labels: c.labels}
			var names []string
			for page := 1; ; page++ {
				r, err := h.policy(c.by).List(t.Context(), connect.NewRequest(req))
				if err != nil {
					t.Fatal(err)
				}
				if r.Msg.GetVersion().GetEpoch() == "" || r.Msg.GetVersion().GetRevision() == 0 {
					t.Errorf("version: %v", r.Msg.GetVersion())
				}
				for _, o := range r.Msg.GetObjects() {
					names = append(names, object.Name(o))
				}
				if req.PageToken = r.Msg.GetNextPageToken(); req.GetPageToken() == "" {
					if page != c.pages {
						t.Errorf("%d pages, want %d", page, c.pages)
					}
					break
				}
			}
			if len(names) != c.want {
				t.Errorf("%d objects, want %d: %v", len(names), c.want, names)
			}
		})
	}
	first, err := h.policy("ada").List(t.Context(), connect.NewRequest(&apiv1.ListRequest{Kind: "mask", PageSize: 5}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.policy("ada").List(t.Context(), connect.NewRequest(&apiv1.ListRequest{Kind: "task", PageToken: first.Msg.GetNextPageToken()}))
	refused(t, err, connect.CodeInvalidArgument, "page_token")
	_, err = h.policy("ada").List(t.Context(), connect.NewRequest(&apiv1.ListRequest{Kind: "mask", PageSize: -1}))
	refused(t, err, connect.CodeInvalidArgument, "page_size")
}

// TestAListIsWhatMayBeRead: what somebody may not get no list shows them, and what they may
// get all lists do (GHSA-xp3c-3jw3-4vcr).
func TestAListIsWhatMayBeRead(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world+`
---
kind: RoleBinding
metadata: {name: scoped, labels: {team: sales}}
spec: {role: viewer, subjects: [{group: sales}], scope: {labels: {team: sales}}}
---
kind: Mask
metadata: {name: theirs, labels: {team: hr}}
spec: {method: "null"}
---
kind: Secret
metadata: {name: ours, labels: {team: sales}}
spec: {data: {value: x}}
`)
	list := func(by, kind string) (names []string) {
		req := &apiv1.ListRequest{Kind: kind, PageSize: 1} // each page must keep to it
		for {
			r, err := h.policy(by).List(t.Context(), connect.NewRequest(req))
			if err != nil {
				refused(t, err, connect.CodePermissionDenied)
				return nil
			}
			for _, o := range r.Msg.GetObjects() {
				names = append(names, object.Name(o))
			}
			if req.PageToken = r.Msg.GetNextPageToken(); req.GetPageToken() == "" {
				return names
			}
		}
	}
	may := map[string]int{}
	for _, kind := range object.Kinds() {
		for _, name := range list("ada", kind) {
			for _, by := range []string{"sam:sales", "vic:viewers", "olga:operators", "alice:analysts", "ada"} {
				_, err := h.policy(by).Get(t.Context(), connect.NewRequest(&apiv1.GetRequest{Kind: kind, Name: name}))
				if listed := slices.Contains(list(by, kind), name); listed != (err == nil) {
					t.Errorf("%s: %s/%s is listed: %v, and read: %v", by, kind, name, listed, err)
				}
				if err == nil {
					may[by]++
				}
			}
		}
	}
	if all := may["ada"]; may["alice:analysts"] != 0 || may["sam:sales"] == 0 || may["sam:sales"] >= may["vic:viewers"] || may["vic:viewers"] >= all || all < 9 {
		t.Errorf("who may read how many: %v", may)
	}
}

func TestWatch(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world)
	h.apply(t, "kind: RoleBinding\nmetadata: {name: scoped}\nspec: {role: viewer, subjects: [{group: sales}], scope: {labels: {team: sales}}}")
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	defer cancel()
	s, err := h.policy("sam:sales").Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	next := func() string {
		t.Helper()
		if !s.Receive() {
			t.Fatalf("the watch ended: %v", s.Err())
		}
		if o := s.Msg().GetObject(); o != nil {
			return s.Msg().GetEvent() + " " + object.Ref(o)
		}
		return s.Msg().GetEvent()
	}
	want := func(events ...string) {
		t.Helper()
		got := make(map[string]bool)
		for range events {
			got[next()] = true
		}
		for _, e := range events {
			if !got[e] {
				t.Errorf("not told of %q, but of %v", e, got)
			}
		}
	}
	want("put resource/warehouse", "put task/sales-report")
	want("synced")
	h.apply(t, "kind: Mask\nmetadata: {name: theirs}\nspec: {method: \"null\"}\n---\nkind: Mask\nmetadata: {name: ours, labels: {team: sales}}\nspec: {method: \"null\"}")
	want("put mask/ours")
	h.apply(t, "kind: Mask\nmetadata: {name: ours, labels: {team: hr}}\nspec: {method: \"null\"}")
	want("delete mask/ours")
	if _, err := h.policy("ada").Delete(ctx, connect.NewRequest(&apiv1.DeleteRequest{Kind: "rolebinding", Name: "scoped"})); err != nil {
		t.Fatal(err)
	}
	if s.Receive() {
		t.Errorf("told of %v after the role was taken away", s.Msg())
	}
	refused(t, s.Err(), connect.CodePermissionDenied)
	bad, err := h.policy("ada").Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Kinds: []string{"pod"}}))
	if err != nil {
		t.Fatal(err)
	}
	if bad.Receive() {
		t.Errorf("told of %v", bad.Msg())
	}
	refused(t, bad.Err(), connect.CodeInvalidArgument, "kind")
}
