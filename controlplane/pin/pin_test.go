package pin_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/pin"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

const world = `
kind: Resource
metadata: {name: tickets}
spec: {protocol: http, endpoint: {host: 127.0.0.1, port: 1, http: {auth: {scheme: none}}}}
---
kind: Resource
metadata: {name: other}
spec: {protocol: http, endpoint: {host: 127.0.0.1, port: 1, http: {auth: {scheme: none}}}}
---
kind: Task
metadata: {name: helpdesk}
spec:
  purpose: a test
  duration: 1h
  resources: {names: [tickets]}
  permit:
    - {methods: [POST], path: /mcp, mcp: {tools: ["*"], review: leads}}
    - {methods: [POST], path: /free, mcp: {tools: ["*"]}}
---
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}], timeout: 15m}
---
kind: ApprovalRule
metadata: {name: friends}
spec: {all: [{group: friends, atLeast: 1}], timeout: 15m}
---
kind: Task
metadata: {name: desk}
spec: {purpose: a test, duration: 1h, resources: {names: [tickets]}, permit: [{methods: [GET], path: /}]}
`

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func service(t *testing.T, mem store.Store, holds ...*typesv1.Hold) *pin.Service {
	t.Helper()
	objects, err := object.ParseYAML(strings.NewReader(world))
	if err != nil {
		t.Fatal(err)
	}
	snapshot, rejected := policy.Compile(postern.Version{Epoch: "e", Revision: 1}, objects)
	if len(rejected) > 0 {
		t.Fatal(rejected)
	}
	grant := func(_ context.Context, id postern.GrantID) (*typesv1.Grant, error) {
		g := &typesv1.Grant{Id: string(id), Task: "helpdesk", State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(now.Add(time.Hour))}
		switch id {
		case "g-1", "g-2":
		case "g-desk":
			g.Task = "desk"
		case "g-over":
			g.EndTime = timestamppb.New(now)
		default:
			return nil, fault.New(codes.NotFound, "no grant")
		}
		return g, nil
	}
	hold := func(_ context.Context, id string) (*typesv1.Hold, error) {
		for _, h := range holds {
			if h.GetId() == id {
				return h, nil
			}
		}
		return nil, fault.New(codes.NotFound, "no hold")
	}
	return pin.New(pin.Config{
		Store: mem, Snapshot: func() *policy.Snapshot { return snapshot }, Grant: grant, Hold: hold, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
	})
}

func ask(grant, path string) *nodev1.PinServerRequest {
	return &nodev1.PinServerRequest{Grant: grant, Resource: "tickets", Path: path}
}

func tell(grant, path string, hash byte, names ...string) *nodev1.PinServerRequest {
	r := ask(grant, path)
	r.List = mcp.Tools
	for _, name := range names {
		r.Said = append(r.Said, &nodev1.Pin{Name: name, Now: bytes.Repeat([]byte{hash}, 32)})
	}
	return r
}

// TestPins: what one grant's client saw another's is held to, by whichever replica it is
// told, and another task's is not.
func TestPins(t *testing.T) {
	mem := storetest.NewMemory()
	one, two := service(t, mem), service(t, mem)
	must := func(s *pin.Service, r *nodev1.PinServerRequest) *nodev1.ServerPins {
		t.Helper()
		resp, err := s.Pin(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetPins()
	}
	if pins := must(one, ask("g-1", "/mcp")); len(pins.GetLists()) != 0 {
		t.Error(pins)
	}
	if entries, _, err := mem.List(t.Context(), pin.Kind, "", 0); err != nil || len(entries) != 0 {
		t.Errorf("asking alone is remembered: %v %v", entries, err)
	}
	must(one, tell("g-1", "/mcp", 1, "search", "refund"))
	first := func(pins *nodev1.ServerPins) byte { return pins.GetLists()[0].GetPins()[0].GetFirst()[0] }
	if pins := must(two, tell("g-2", "/mcp", 2, "search")); first(pins) != 1 || pins.GetLists()[0].GetPins()[0].GetNow()[0] != 2 {
		t.Error(pins)
	}
	if pins := must(one, ask("g-1", "/mcp")); pins.GetLists()[0].GetPins()[0].GetNow()[0] != 2 {
		t.Error(pins)
	}
	for _, elsewhere := range []*nodev1.PinServerRequest{ask("g-desk", "/mcp"), ask("g-1", "/other")} {
		if pins := must(one, elsewhere); len(pins.GetLists()) != 0 {
			t.Errorf("%v: %v", elsewhere, pins)
		}
	}
	// Nodes that tell at once lose nothing of each other's.
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if _, err := []*pin.Service{one, two}[i%2].Pin(context.Background(), tell("g-1", "/mcp", 1, fmt.Sprint("tool-", i))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if pins := must(one, ask("g-1", "/mcp")); len(pins.GetLists()[0].GetPins()) != 22 {
		t.Error(pins)
	}
}

func TestNoPins(t *testing.T) {
	s := service(t, storetest.NewMemory())
	bad := tell("g-1", "/mcp", 1, "x")
	bad.List = "secrets"
	other := ask("g-1", "/mcp")
	other.Resource = "other"
	for what, c := range map[string]struct {
		req  *nodev1.PinServerRequest
		code codes.Code
	}{
		"no path":                   {ask("g-1", ""), codes.InvalidArgument},
		"a long path":               {ask("g-1", "/"+strings.Repeat("x", 3000)), codes.InvalidArgument},
		"a grant that is over":      {ask("g-over", "/mcp"), codes.PermissionDenied},
		"no grant":                  {ask("g-9", "/mcp"), codes.NotFound},
		"a resource of other tasks": {other, codes.PermissionDenied},
		"a list that is not pinned": {bad, codes.InvalidArgument},
	} {
		if _, err := s.Pin(t.Context(), c.req); fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range 65 {
		_, err := s.Pin(t.Context(), tell("g-1", fmt.Sprint("/", i), 1, "x"))
		if (err != nil) != (i == 64) || i == 64 && fault.CodeOf(err) != codes.ResourceExhausted {
			t.Errorf("server %d: %v", i, err)
		}
	}
	if _, err := s.Pin(t.Context(), tell("g-desk", "/mcp", 1, "x")); err != nil {
		t.Errorf("another task has no room: %v", err)
	}
}

// TestWhoLetsBe: a node that says that people have let a change be is believed where a
// hold says so too, and for just that change.
func TestWhoLetsBe(t *testing.T) {
	const said, notAll = `{"name":"search"}`, "(the text of what has changed is not all here: it is too long, or was not heard by this node)"
	changed := sha256.Sum256([]byte(said))
	is := func(b byte) string {
		if b == 2 {
			return "sha256:" + hex.EncodeToString(changed[:])
		}
		return "sha256:" + strings.Repeat(fmt.Sprintf("%02x", b), 32)
	}
	shown := func(tool string, was, now byte) string {
		return fmt.Sprintf("the tool %q has changed: it was %s and is %s", tool, is(was), is(now))
	}
	hold := func(change func(*typesv1.Hold), asked ...string) *typesv1.Hold {
		h := &typesv1.Hold{
			Id: "h-1", State: typesv1.HoldState_HOLD_STATE_CONSUMED, Scope: "statement", Grant: "g-1", Task: "helpdesk", Resource: "tickets", Rule: "leads",
			Statement: "tools/call search at /mcp",
		}
		for _, text := range asked {
			h.Parameters = append(h.Parameters, &typesv1.Parameter{Value: &text})
		}
		if change != nil {
			change(h)
		}
		return h
	}
	good := shown("search", 1, 2) + "; " + shown("other", 1, 3) + "\n" + said + "\n" + notAll
	for name, c := range map[string]struct {
		hold *typesv1.Hold
		path string
		let  bool
	}{
		"people said yes":             {hold(nil, `{"q":"x"}`, good), "/mcp", true},
		"no hold":                     {nil, "/mcp", false},
		"a hold that waits":           {hold(func(h *typesv1.Hold) { h.State = typesv1.HoldState_HOLD_STATE_PENDING }, good), "/mcp", false},
		"a yes that nobody used":      {hold(func(h *typesv1.Hold) { h.State = typesv1.HoldState_HOLD_STATE_APPROVED }, good), "/mcp", false},
		"a no":                        {hold(func(h *typesv1.Hold) { h.State = typesv1.HoldState_HOLD_STATE_REFUSED }, good), "/mcp", false},
		"another grant":               {hold(func(h *typesv1.Hold) { h.Grant = "g-2" }, good), "/mcp", false},
		"another resource":            {hold(func(h *typesv1.Hold) { h.Resource = "other" }, good), "/mcp", false},
		"another path":                {hold(func(h *typesv1.Hold) { h.Statement = "tools/call search at /other" }, good), "/mcp", false},
		"a session":                   {hold(func(h *typesv1.Hold) { h.Scope = "session" }, good), "/mcp", false},
		"a rule that is easier":       {hold(func(h *typesv1.Hold) { h.Rule = "friends" }, good), "/mcp", false},
		"a permit without a review":   {hold(func(h *typesv1.Hold) { h.Statement = "tools/call search at /free" }, good), "/free", false},
		"nothing was shown":           {hold(nil), "/mcp", false},
		"another change was shown":    {hold(nil, shown("search", 1, 3)+"\n"+notAll), "/mcp", false},
		"another tool was shown":      {hold(nil, shown("other", 1, 2)+"\n"+said), "/mcp", false},
		"it was shown below the line": {hold(nil, shown("other", 1, 3)+"\n"+notAll+"\n"+shown("search", 1, 2)), "/mcp", false},
		"it is in a name":             {hold(nil, shown("; "+shown("search", 1, 2)+"; ", 1, 2)+"\n"+said), "/mcp", false},
		"a client said it":            {hold(nil, shown("search", 1, 2)+"\n"+said, shown("other", 1, 3)+"\n"+notAll), "/mcp", false},
		"without its text, as said":   {hold(nil, shown("search", 1, 2)+"\n"+notAll), "/mcp", true},
		"without its text":            {hold(nil, shown("search", 1, 2)), "/mcp", false},
		"with another text":           {hold(nil, shown("search", 1, 2)+"\n{\"name\":\"search\",\"description\":\"as before\"}"), "/mcp", false},
		"with words beside the hash":  {hold(nil, shown("search", 1, 2)+"; it searches, as before\n"+said), "/mcp", false},
	} {
		t.Run(name, func(t *testing.T) {
			mem := storetest.NewMemory()
			s := service(t, mem, c.hold)
			now := tell("g-1", c.path, 2, "search")
			now.Said[0].Now = changed[:]
			for _, told := range []*nodev1.PinServerRequest{tell("g-1", c.path, 1, "search"), now} {
				if _, err := s.Pin(t.Context(), told); err != nil {
					t.Fatal(err)
				}
			}
			accept := ask("g-1", c.path)
			accept.List, accept.Hold = mcp.Tools, "h-1"
			accept.Accepted = now.GetSaid()
			_, err := s.Pin(t.Context(), accept)
			if (err == nil) != c.let || err != nil && fault.CodeOf(err) != codes.PermissionDenied {
				t.Errorf("%v", err)
			}
			resp, err := s.Pin(t.Context(), ask("g-1", c.path))
			if err != nil {
				t.Fatal(err)
			}
			if p := resp.GetPins().GetLists()[0].GetPins()[0]; p.GetAccepted() != c.let || bytes.Equal(p.GetFirst(), changed[:]) != c.let {
				t.Errorf("it is %v", p)
			}
			if c.let { // once more changes nothing
				if _, err := s.Pin(t.Context(), accept); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
