package userapi_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/api/userapi"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/wait"
)

const world = `
kind: Resource
metadata: {name: warehouse, labels: {team: sales}}
spec:
  protocol: postgres
  endpoint: {host: db.internal, port: 5432, database: warehouse}
  credential: {sealed: warehouse-login}
  catalog: {sealed: warehouse-login}
---
kind: Secret
metadata: {name: warehouse-login}
spec: {data: {value: hunter2-canary}}
---
kind: Mask
metadata: {name: email}
spec: {method: redact, value: "***"}
---
kind: Task
metadata: {name: sales-report, labels: {team: sales}}
spec:
  purpose: monthly sales figures
  resources: {names: [warehouse]}
  permit: [{table: sales.orders, verbs: [select], columns: [id, email], mask: {email: email}}]
  limits: {rows: 100}
  duration: 1h
---
kind: Binding
metadata: {name: analysts}
spec: {subjects: [{group: analysts}], tasks: [sales-report]}
---
kind: RoleBinding
metadata: {name: operators}
spec: {role: operator, subjects: [{group: operators}]}
---
kind: RoleBinding
metadata: {name: viewers}
spec: {role: viewer, subjects: [{group: viewers}]}
`

func TestApplyGetAndRoundTrip(t *testing.T) {
	h := newHouse(t)
	r := h.apply(t, world)
	for _, a := range r.GetApplied() {
		meta := object.Meta(a.GetObject())
		if a.GetAction() != "created" || meta.GetUid() == "" || meta.GetEtag() == "" || meta.GetCreatedBy() != "ada" || meta.GetCreateTime() == nil {
			t.Errorf("applied %s: %v", a.GetAction(), meta)
		}
		got := h.get(t, object.Kind(a.GetObject()), meta.GetName())
		if !proto.Equal(got, a.GetObject()) {
			t.Errorf("got %v, applied %v", got, a.GetObject())
		}
	}
	// What is read can be applied, and changes nothing.
	var all []*typesv1.Object
	for _, a := range r.GetApplied() {
		all = append(all, a.GetObject())
	}
	again, err := h.policy("ada").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: all}))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range again.Msg.GetApplied() {
		if a.GetAction() != "unchanged" {
			t.Errorf("applied again: %s %v", a.GetAction(), a.GetObject())
		}
	}
	entries, _, err := h.audit.List(t.Context(), audit.Query{})
	if err != nil || len(entries) != 2 || entries[1].GetAction() != "login" || !strings.Contains(entries[0].GetObject(), "task/sales-report") {
		t.Errorf("audit: %v, %v", entries, err)
	}
}

func TestSecretsAreNeverReadBack(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world)
	var seen bytes.Buffer
	list, err := h.policy("ada").List(t.Context(), connect.NewRequest(&apiv1.ListRequest{Kind: "secret"}))
	if err != nil {
		t.Fatal(err)
	}
	entries, _, err := h.audit.List(t.Context(), audit.Query{})
	if err != nil {
		t.Fatal(err)
	}
	watch, err := h.policy("ada").Watch(t.Context(), connect.NewRequest(&apiv1.WatchRequest{Kinds: []string{"secret"}}))
	if err != nil || !watch.Receive() {
		t.Fatal(err, watch.Err())
	}
	fmt.Fprint(&seen, list.Msg, entries, h.get(t, "secret", "warehouse-login"), watch.Msg())
	if err := watch.Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(seen.String(), "warehouse-login") || strings.Contains(seen.String(), canary) || strings.Contains(seen.String(), "sealed w") {
		t.Errorf("seen: %s", seen.String())
	}
	stored, err := h.store.Get(t.Context(), store.Key{Kind: "secret", Name: "warehouse-login"})
	if err != nil || bytes.Contains(stored.Value, []byte(canary)) || !bytes.Contains(stored.Value, []byte("sealed warehouse-login of h")) {
		t.Errorf("stored: %q, %v", stored.Value, err)
	}
	// New labels keep the value; a value of the system's own form is not taken.
	s := h.get(t, "secret", "warehouse-login")
	object.Meta(s).Labels = map[string]string{"a": "b"}
	if _, err := h.policy("ada").Update(t.Context(), connect.NewRequest(&apiv1.UpdateRequest{Object: s})); err != nil {
		t.Fatal(err)
	}
	stored, err = h.store.Get(t.Context(), store.Key{Kind: "secret", Name: "warehouse-login"})
	if err != nil || !bytes.Contains(stored.Value, []byte("sealed warehouse-login of h")) {
		t.Errorf("the value was lost: %q, %v", stored.Value, err)
	}
	s = h.get(t, "secret", "warehouse-login")
	s.GetSecret().Spec = &typesv1.SecretSpec{Sealed: []byte("of another")}
	_, err = h.policy("ada").Update(t.Context(), connect.NewRequest(&apiv1.UpdateRequest{Object: s}))
	refused(t, err, connect.CodeInvalidArgument, "spec.sealed")
	// Viewers do not even see their names.
	_, err = h.policy("vic:viewers").Get(t.Context(), connect.NewRequest(&apiv1.GetRequest{Kind: "secret", Name: "warehouse-login"}))
	refused(t, err, connect.CodeNotFound)
}

func TestStaleEtagSaysWhatChanged(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world)
	mine := h.get(t, "task", "sales-report")
	theirs := proto.CloneOf(mine)
	theirs.GetTask().Spec.Limits.Rows = 5
	theirs.GetTask().Spec.Permit[0].Columns = []string{"id", "email", "amount"}
	r, err := h.policy("olga:operators").Update(t.Context(), connect.NewRequest(&apiv1.UpdateRequest{Object: theirs}))
	if err != nil {
		t.Fatal(err)
	}
	mine.GetTask().Spec.Purpose = "mine"
	for _, dry := range []bool{true, false} {
		_, err = h.policy("ada").Update(t.Context(), connect.NewRequest(&apiv1.UpdateRequest{Object: mine, DryRun: dry}))
		refused(t, err, connect.CodeAborted, "task/sales-report has changed", "by olga at 20", "spec.limits.rows", "spec.permit[0].columns[2]")
		if strings.Contains(err.Error(), "spec.purpose") {
			t.Errorf("my own change is named as theirs: %v", err)
		}
	}
	_, err = h.policy("ada").Delete(t.Context(), connect.NewRequest(&apiv1.DeleteRequest{Kind: "task", Name: "sales-report", Etag: object.Meta(mine).GetEtag()}))
	refused(t, err, connect.CodeAborted)
	object.Meta(mine).Etag = ""
	_, err = h.policy("ada").Update(t.Context(), connect.NewRequest(&apiv1.UpdateRequest{Object: mine}))
	refused(t, err, connect.CodeInvalidArgument, "etag: is required")
	object.Meta(mine).Etag = "nonsense"
	_, err = h.policy("ada").Update(t.Context(), connect.NewRequest(&apiv1.UpdateRequest{Object: mine}))
	refused(t, err, connect.CodeInvalidArgument, "is not an etag")
	object.Meta(mine).Etag = object.Meta(r.Msg).GetEtag()
	done, err := h.policy("ada").Update(t.Context(), connect.NewRequest(&apiv1.UpdateRequest{Object: mine}))
	if err != nil {
		t.Fatal(err)
	}
	meta := object.Meta(done.Msg)
	if meta.GetUid() != object.Meta(theirs).GetUid() || meta.GetCreatedBy() != "ada" || !meta.GetUpdateTime().AsTime().After(meta.GetCreateTime().AsTime()) {
		t.Errorf("metadata: %v", meta)
	}
}

// TestDryRunFindsWhatIsTooMuch: what cannot be written is no good dry run.
func TestDryRunFindsWhatIsTooMuch(t *testing.T) {
	h := newHouse(t)
	mask := func(name string, labels int) *typesv1.Object {
		long := map[string]string{}
		for i := range labels {
			long[fmt.Sprintf("l%d", i)] = strings.Repeat("x", 60)
		}
		return &typesv1.Object{Kind: &typesv1.Object_Mask{Mask: &typesv1.Mask{Metadata: &typesv1.Metadata{Name: name, Labels: long}, Spec: &typesv1.MaskSpec{Method: "null"}}}}
	}
	var many []*typesv1.Object
	for i := range userapi.MaxApply {
		many = append(many, mask(fmt.Sprintf("m%d", i), 20))
	}
	for _, dry := range []bool{true, false} {
		_, err := h.policy("ada").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{DryRun: dry, Objects: many}))
		refused(t, err, connect.CodeInvalidArgument, "apply them in parts")
		_, err = h.policy("ada").Create(t.Context(), connect.NewRequest(&apiv1.CreateRequest{DryRun: dry, Object: mask("long", 1200)}))
		refused(t, err, connect.CodeInvalidArgument, "bytes long, more than")
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world)
	before := h.cache.Version()
	mask := &typesv1.Object{Kind: &typesv1.Object_Mask{Mask: &typesv1.Mask{Metadata: &typesv1.Metadata{Name: "fresh"}, Spec: &typesv1.MaskSpec{Method: "null"}}}}
	r, err := h.policy("ada").Create(t.Context(), connect.NewRequest(&apiv1.CreateRequest{Object: mask, DryRun: true}))
	if err != nil || object.Meta(r.Msg).GetUid() == "" || r.Msg.GetMask().GetApiVersion() != "postern/v1" {
		t.Errorf("create: %v, %v", r, err)
	}
	task := h.get(t, "task", "sales-report")
	task.GetTask().Spec.Permit[0].Mask["email"] = "none"
	_, err = h.policy("ada").Update(t.Context(), connect.NewRequest(&apiv1.UpdateRequest{Object: task, DryRun: true}))
	refused(t, err, connect.CodeInvalidArgument, "spec.permit[0].mask.email")
	if _, err := h.policy("ada").Delete(t.Context(), connect.NewRequest(&apiv1.DeleteRequest{Kind: "binding", Name: "analysts", DryRun: true})); err != nil {
		t.Error(err)
	}
	a, err := h.policy("ada").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{DryRun: true, Objects: []*typesv1.Object{mask, h.get(t, "mask", "email")}}))
	if err != nil || a.Msg.GetApplied()[0].GetAction() != "created" || a.Msg.GetApplied()[1].GetAction() != "unchanged" {
		t.Errorf("apply: %v, %v", a, err)
	}
	_, err = h.policy("vic:viewers").Create(t.Context(), connect.NewRequest(&apiv1.CreateRequest{Object: mask, DryRun: true}))
	refused(t, err, connect.CodePermissionDenied)
	// Only the refusal above was written, beside two logins.
	entries, _, err := h.audit.List(t.Context(), audit.Query{})
	if err != nil || len(entries) != 4 || entries[0].GetActor() != "vic" {
		t.Errorf("audit: %v, %v", entries, err)
	}
	_, err = h.policy("ada").Get(t.Context(), connect.NewRequest(&apiv1.GetRequest{Kind: "mask", Name: "fresh"}))
	refused(t, err, connect.CodeNotFound)
	if events, ok := h.cache.Since(before); !ok || len(events) != 0 {
		t.Errorf("policy changed: %v", events)
	}
}

func TestWhatIsReferredToStays(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world)
	del := func(kind, name string) error {
		_, err := h.policy("ada").Delete(t.Context(), connect.NewRequest(&apiv1.DeleteRequest{Kind: kind, Name: name}))
		return err
	}
	refused(t, del("task", "sales-report"), connect.CodeFailedPrecondition, "in use by binding/analysts")
	refused(t, del("mask", "email"), connect.CodeFailedPrecondition, "task/sales-report")
	refused(t, del("Secret", "warehouse-login"), connect.CodeFailedPrecondition, "resource/warehouse")
	refused(t, del("mask", "none"), connect.CodeNotFound)
	refused(t, del("pod", "x"), connect.CodeInvalidArgument, "kind: is one of")
	refused(t, del("node", "n1"), connect.CodeNotFound)
	for _, ref := range []string{"binding/analysts", "task/sales-report", "mask/email", "resource/warehouse", "secret/warehouse-login"} {
		kind, name, _ := strings.Cut(ref, "/")
		if err := del(kind, name); err != nil {
			t.Errorf("delete %s: %v", ref, err)
		}
	}
}

// What cannot be read can be deleted, by who may delete whatever it was, and made anew.
func TestWhatCannotBeReadGoes(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world)
	key := store.Key{Kind: "lock", Name: "broken"}
	if _, err := h.store.Commit(t.Context(), store.Op{Key: key, Value: []byte("no lock")}); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "the replica has it", func() bool { _, ok := h.cache.View().Get(key); return ok })
	del := func(who string) error {
		_, err := h.policy(who).Delete(t.Context(), connect.NewRequest(&apiv1.DeleteRequest{Kind: "lock", Name: "broken"}))
		return err
	}
	const lock = "kind: Lock\nmetadata: {name: broken}\nspec: {subject: mallory, reason: gone}\n"
	_, err := h.policy("ada").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: yaml(t, lock)}))
	refused(t, err, connect.CodeFailedPrecondition, "an admin must delete it")
	refused(t, del("olaf:operators"), connect.CodePermissionDenied, "until an admin deletes it")
	// An operator may lock meanwhile, and do nothing else with locks.
	olaf := func(text string) error {
		_, err := h.policy("olaf:operators").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: yaml(t, text)}))
		return err
	}
	const other = "kind: Lock\nmetadata: {name: other}\nspec: {subject: trent, reason: gone}\n"
	if err := olaf(other); err != nil {
		t.Errorf("an operator locks: %v", err)
	}
	refused(t, olaf(strings.Replace(other, "trent", "peggy", 1)), connect.CodePermissionDenied, "until an admin deletes it")
	refused(t, olaf(lock), connect.CodeFailedPrecondition, "an admin must delete it")
	refused(t, olaf(world), connect.CodePermissionDenied, "until an admin deletes it")
	if err := del("ada"); err != nil {
		t.Fatal(err)
	}
	h.apply(t, lock)
}

// Who has a grant does not lift the lock on it, though they write locks.
func TestALockOnAGrantStaysItsHoldersAffair(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world+"\n---\nkind: Lock\nmetadata: {name: on-grant}\nspec: {grant: g-1, reason: odd}\n"+
		"---\nkind: Lock\nmetadata: {name: on-forgotten}\nspec: {grant: g-0, reason: odd}\n")
	h.hub.grants = map[string][]*typesv1.Grant{"olaf": {{Id: "g-1", Subject: &typesv1.Subject{Name: "olaf"}}}}
	del := func(who, name string) error {
		_, err := h.policy(who).Delete(t.Context(), connect.NewRequest(&apiv1.DeleteRequest{Kind: "lock", Name: name}))
		return err
	}
	refused(t, del("olaf:operators", "on-grant"), connect.CodePermissionDenied, `grant "g-1", which is yours`)
	for who, name := range map[string]string{"otto:operators": "on-grant", "olaf:operators": "on-forgotten"} {
		if err := del(who, name); err != nil {
			t.Errorf("%s lifts %s: %v", who, name, err)
		}
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	h := newHouse(t)
	text := world + "\n---\nkind: Binding\nmetadata: {name: broken}\nspec: {subjects: [{group: x}], tasks: [no-such-task]}"
	_, err := h.policy("ada").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: yaml(t, text)}))
	refused(t, err, connect.CodeInvalidArgument, "binding/broken spec.tasks[0]", "no-such-task")
	list, err := h.policy("ada").List(t.Context(), connect.NewRequest(&apiv1.ListRequest{Kind: "task"}))
	if err != nil || len(list.Msg.GetObjects()) != 0 {
		t.Errorf("half was applied: %v, %v", list, err)
	}
	twice := append(yaml(t, world), yaml(t, world)[0])
	_, err = h.policy("ada").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: twice}))
	refused(t, err, connect.CodeInvalidArgument, "resource/warehouse", "is there twice")
	_, err = h.policy("ada").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{}))
	refused(t, err, connect.CodeInvalidArgument)
	var many strings.Builder
	for i := range userapi.MaxApply + 1 {
		fmt.Fprintf(&many, "---\nkind: Mask\nmetadata: {name: m-%d}\nspec: {method: \"null\"}\n", i)
	}
	all := yaml(t, many.String())
	_, err = h.policy("ada").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: all}))
	refused(t, err, connect.CodeInvalidArgument, "97")
	if _, err = h.policy("ada").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: all[1:]})); err != nil {
		t.Error(err)
	}
	for i, o := range all {
		object.Meta(o).Annotations = map[string]string{"note": strings.Repeat("x", 20<<10)}
		object.Meta(o).Labels = map[string]string{"n": fmt.Sprint(i)}
	}
	_, err = h.policy("ada").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: all[1:]}))
	refused(t, err, connect.CodeInvalidArgument)
}

// TestRawNeedsAKey: what could be sealed to nobody's key is not asked for.
func TestRawNeedsAKey(t *testing.T) {
	h := newHouse(t)
	text := strings.Replace(world, "  duration: 1h\n", "  duration: 1h\n  record: {resultRows: 1, storeRaw: true}\n", 1)
	_, err := h.policy("ada").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: yaml(t, text)}))
	refused(t, err, connect.CodeInvalidArgument, "task/sales-report spec.record.storeRaw", "recordings.rawKey")
}

// TestWritersNeverMeet has people bind a task while others delete it: whatever wins, no
// binding is left without its task.
func TestWritersNeverMeet(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world)
	h.apply(t, "kind: ApprovalRule\nmetadata: {name: leads}\nspec: {all: [{group: leads, atLeast: 1}]}")
	for round := range 10 {
		name := fmt.Sprint("t", round)
		task := yaml(t, "kind: Task\nmetadata: {name: "+name+"}\nspec: {purpose: x, resources: {names: [warehouse]}, permit: [{table: a.b, verbs: [select], columns: [c]}], duration: 1h}")
		if _, err := h.policy("ada").Create(t.Context(), connect.NewRequest(&apiv1.CreateRequest{Object: task[0]})); err != nil {
			t.Fatal(err)
		}
		g := run.New(t.Context())
		for i := range 3 {
			g.Go("bind", func(ctx context.Context) error {
				b := yaml(t, fmt.Sprintf("kind: Binding\nmetadata: {name: b-%d-%d}\nspec: {subjects: [{group: x}], tasks: [%s]}", round, i, name))
				_, err := h.policy("ada").Create(ctx, connect.NewRequest(&apiv1.CreateRequest{Object: b[0]}))
				if code := connect.CodeOf(err); err != nil && code != connect.CodeInvalidArgument {
					return err
				}
				return nil
			})
		}
		g.Go("delete", func(ctx context.Context) error {
			_, err := h.policy("ada").Delete(ctx, connect.NewRequest(&apiv1.DeleteRequest{Kind: "task", Name: name}))
			if code := connect.CodeOf(err); err != nil && code != connect.CodeFailedPrecondition {
				return err
			}
			return nil
		})
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	tasks := make(map[string]bool)
	entries, _, err := h.store.List(t.Context(), "task", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		tasks[e.Name] = true
	}
	bindings, _, err := h.store.List(t.Context(), "binding", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range bindings {
		o, err := store.DecodeObject(e)
		if err != nil {
			t.Fatal(err)
		}
		if n := o.GetBinding().GetSpec().GetTasks()[0]; !tasks[n] {
			t.Errorf("binding %s is left without task %s", e.Name, n)
		}
	}
	if _, err := h.audit.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNobodyWritesTheirOwnPolicy(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world)
	bind := yaml(t, "kind: Binding\nmetadata: {name: mine}\nspec: {subjects: [{subject: olga}], tasks: [sales-report]}")
	_, err := h.policy("olga:operators").Create(t.Context(), connect.NewRequest(&apiv1.CreateRequest{Object: bind[0]}))
	refused(t, err, connect.CodePermissionDenied, "ask nobody")
	_, err = h.policy("olga:operators:analysts").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: yaml(t, "kind: Mask\nmetadata: {name: email}\nspec: {method: partial, keepFirst: 3}")}))
	refused(t, err, connect.CodePermissionDenied, "depends on mask/email")
	_, err = h.policy("ada:analysts").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: yaml(t, "kind: Mask\nmetadata: {name: email}\nspec: {method: partial, keepFirst: 3}")}))
	if err != nil {
		t.Fatal(err)
	}
	entries, _, err := h.audit.List(t.Context(), audit.Query{Object: "mask/email", Limit: 1})
	if err != nil || len(entries) != 1 || !strings.Contains(entries[0].GetDetail(), `"own":true`) || !strings.Contains(entries[0].GetDetail(), "spec.keepFirst") {
		t.Errorf("audit: %v, %v", entries, err)
	}
}

func TestReplicaBehindItsStoreWritesNothing(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world)
	behind := store.NewCache(h.store, nil, userapi.PolicyKinds()...) // nobody runs it
	p := userapi.NewPolicy(userapi.PolicyConfig{Store: h.store, Cache: behind, Audit: h.audit, Sealer: sealer{}, Now: time.Now})
	admin := &authz.Caller{Subject: postern.Subject{Name: "ada"}, Roles: []policy.RoleGrant{{Role: authz.Admin}}}
	ctx, cancel := context.WithTimeout(authz.With(t.Context(), admin), 100*time.Millisecond)
	defer cancel()
	_, err := p.Delete(ctx, connect.NewRequest(&apiv1.DeleteRequest{Kind: "binding", Name: "analysts"}))
	if fault.CodeOf(err) != codes.Unavailable {
		t.Errorf("error = %v", err)
	}
	if _, err := p.Delete(t.Context(), connect.NewRequest(&apiv1.DeleteRequest{Kind: "binding", Name: "analysts"})); fault.CodeOf(err) != codes.Unauthenticated {
		t.Errorf("without a caller: %v", err)
	}
}
