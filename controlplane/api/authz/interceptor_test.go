package authz_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	api "github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
)

func TestCallerReachesTheMethod(t *testing.T) {
	var got *authz.Caller
	h := newHouse(t, &all{who: func(ctx context.Context) error { got, _ = authz.From(ctx); return nil }}, nil)
	if _, err := h.access().WhoAmI(t.Context(), request("olga:operators", &apiv1.WhoAmIRequest{})); err != nil {
		t.Fatal(err)
	}
	if got == nil || got.Subject.Name != "olga" || !got.Has(authz.Viewer) || !got.Has(authz.Operator) || got.Has(authz.Admin) || got.Has(authz.Auditor) ||
		got.Method != "AccessService/WhoAmI" || !strings.HasPrefix(got.Address, "127.0.0.1:") || !got.Expires.Equal(noon.Add(time.Hour)) {
		t.Errorf("caller = %+v", got)
	}
}

func TestErrorsLeaveInTheirForm(t *testing.T) {
	const canary = "canary"
	for name, c := range map[string]struct {
		err    error
		code   connect.Code
		text   string
		kind   string
		fields []string
	}{
		"fault":    {fault.Invalid(fault.Violation{Field: "spec.rows", Reason: "is wrong"}), connect.CodeInvalidArgument, "spec.rows: is wrong", "INVALID", []string{"spec.rows"}},
		"cause":    {fault.Wrap(errors.New(canary), codes.NotFound, "not there"), connect.CodeNotFound, "not there", "NotFound", nil},
		"wrapped":  {fmt.Errorf("%s: %w", canary, fault.New(codes.Aborted, "changed").WithKind("ETAG_MISMATCH")), connect.CodeAborted, "changed", "ETAG_MISMATCH", nil},
		"refusal":  {&postern.Refusal{Code: postern.CodeNoGrant, Reason: "no binding", Hint: "ask"}, connect.CodePermissionDenied, "no binding", "no-grant", []string{"hint"}},
		"plain":    {errors.New(canary), connect.CodeInternal, "internal error; tell", "INTERNAL", nil},
		"internal": {fault.New(codes.Internal, canary), connect.CodeInternal, "internal error; tell", "INTERNAL", nil},
		"own":      {connect.NewError(connect.CodeOutOfRange, errors.New("too far")), connect.CodeOutOfRange, "too far", "", nil},
		"hidden":   {connect.NewError(connect.CodeUnknown, errors.New(canary)), connect.CodeInternal, "internal error; tell", "INTERNAL", nil},
		"late":     {context.DeadlineExceeded, connect.CodeDeadlineExceeded, "took too long", "DeadlineExceeded", nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, &all{drain: func(context.Context) error { return c.err }}, nil)
			_, err := h.nodes().DrainNode(t.Context(), request("olga:operators", &apiv1.DrainNodeRequest{}))
			var got *connect.Error
			if !errors.As(err, &got) || got.Code() != c.code || !strings.Contains(got.Message(), c.text) || strings.Contains(got.Message(), canary) {
				t.Fatalf("error = %v", err)
			}
			kind := ""
			var fields []string
			for _, d := range got.Details() {
				v, err := d.Value()
				if err != nil {
					t.Fatal(err)
				}
				switch v := v.(type) {
				case *errdetails.ErrorInfo:
					kind = v.GetReason()
				case *errdetails.BadRequest:
					for _, f := range v.GetFieldViolations() {
						fields = append(fields, f.GetField())
					}
				}
			}
			if kind != c.kind || fmt.Sprint(fields) != fmt.Sprint(c.fields) {
				t.Errorf("kind %q, fields %v", kind, fields)
			}
			if c.kind == "INTERNAL" {
				_, id, _ := strings.Cut(got.Message(), "its id: ")
				if log := h.logged.String(); id == "" || !strings.Contains(log, id) || !strings.Contains(log, canary) {
					t.Errorf("id %q and cause are not in the log: %s", id, log)
				}
			}
		})
	}
}

func TestPanicIsAnInternalError(t *testing.T) {
	h := newHouse(t, &all{who: func(context.Context) error { panic("canary") }}, nil)
	_, err := h.access().WhoAmI(t.Context(), request("sue:people", &apiv1.WhoAmIRequest{}))
	if connect.CodeOf(err) != connect.CodeInternal || strings.Contains(err.Error(), "canary") {
		t.Errorf("error = %v", err)
	}
	if !strings.Contains(h.logged.String(), "canary") {
		t.Error("the panic was not logged")
	}
}

// TestAgentsAreAudited: what an agent does for somebody is both of theirs in the log, in the
// entry of the call, in one that a method writes itself, and in one of a refusal.
func TestAgentsAreAudited(t *testing.T) {
	own, write := false, func(context.Context) error { return nil }
	h := newHouse(t, &all{drain: func(ctx context.Context) error {
		if own {
			return write(ctx)
		}
		return nil
	}}, nil)
	write = func(ctx context.Context) error {
		if err := h.log.Append(ctx, audit.Entry{Actor: "system", Action: "other"}); err != nil {
			return err
		}
		return h.log.Append(ctx, audit.Entry{Actor: "olga", Action: "own"})
	}
	for _, c := range []struct {
		token string
		own   bool
		want  string
	}{
		{"olga:operators:bot", false, "olga by bot for scheduler"}, {"olga:operators:bot", true, "olga by bot for scheduler"},
		{"olga:people:bot", false, "olga by bot for scheduler"}, {"olga:operators", false, "olga by "}, {"olga:operators", true, "olga by "},
	} {
		own = c.own
		_, _ = h.nodes().DrainNode(t.Context(), request(c.token, &apiv1.DrainNodeRequest{Name: "n1"}))
		entries := h.entries(t)
		if got := entries[0].GetActor() + " by " + strings.Join(entries[0].GetActors(), " for "); got != c.want {
			t.Errorf("%s: %s: %v", c.token, got, entries[0])
		}
		if c.own && len(entries[1].GetActors()) != 0 {
			t.Errorf("what the system did is the agent's: %v", entries[1])
		}
	}
	found, _, err := h.log.List(t.Context(), audit.Query{Actor: "bot"})
	if err != nil || len(found) == 0 {
		t.Errorf("what the agent did: %v, %v", found, err)
	}
}

// TestToldBefore is of what is told of before it is done: it has one entry, and is not done
// where that cannot be written.
func TestToldBefore(t *testing.T) {
	var h *house
	done, down := 0, error(nil)
	h = newHouse(t, &all{drain: func(ctx context.Context) error {
		h.store.Fail(down)
		defer h.store.Fail(nil)
		if err := audit.Before(ctx, map[string]string{"hold": "case 7"}); err != nil {
			return err
		}
		done++
		return nil
	}}, nil)
	call := func() error {
		_, err := h.nodes().DrainNode(t.Context(), request("olga:operators", &apiv1.DrainNodeRequest{Name: "n1"}))
		return err
	}
	if err := call(); err != nil || done != 1 {
		t.Fatalf("%v, done %d times", err, done)
	}
	if all := h.entries(t); len(all) != 1 || all[0].GetObject() != "node/n1" || !strings.Contains(all[0].GetDetail(), `"before":{"hold":"case 7"}`) {
		t.Fatalf("entries: %v", all)
	}
	down = errors.New("the store does not answer")
	if err := call(); connect.CodeOf(err) != connect.CodeUnavailable || done != 1 {
		t.Errorf("%v, done %d times", err, done)
	}
	if all := h.entries(t); len(all) != 1 {
		t.Errorf("entries: %v", all)
	}
	if err := audit.Before(t.Context(), nil); err == nil {
		t.Error("told where nobody writes it down")
	}
}

func TestMutationsAreAudited(t *testing.T) {
	var drain func(context.Context) error
	h := newHouse(t, &all{drain: func(ctx context.Context) error {
		if drain != nil {
			return drain(ctx)
		}
		return nil
	}}, nil)
	call := func() error {
		_, err := h.nodes().DrainNode(t.Context(), request("olga:operators", &apiv1.DrainNodeRequest{Name: "n1"}))
		return err
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	entries := h.entries(t)
	if len(entries) != 1 || entries[0].GetActor() != "olga" || entries[0].GetAction() != "NodeAdminService/DrainNode" || entries[0].GetObject() != "node/n1" || entries[0].GetOutcome() != "ok" {
		t.Fatalf("entries: %v", entries)
	}
	drain = func(ctx context.Context) error { // a method that writes its own entry gets no second one
		return h.log.Append(ctx, audit.Entry{Actor: "olga", Action: "own"})
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	if entries = h.entries(t); len(entries) != 2 || entries[0].GetAction() != "own" {
		t.Fatalf("entries: %v", entries)
	}
	drain = func(context.Context) error { return fault.New(codes.FailedPrecondition, "no such node") }
	if err := call(); err == nil {
		t.Fatal("no error")
	}
	drain = func(context.Context) error { return fault.New(codes.PermissionDenied, "not this node") }
	if err := call(); err == nil {
		t.Fatal("no error")
	}
	if entries = h.entries(t); len(entries) != 3 || entries[0].GetOutcome() != "PermissionDenied: not this node" {
		t.Errorf("entries: %v", entries)
	}
}

// TestLoginIsAudited: a token is told once, whatever it does, and is nothing where it
// cannot be told.
func TestLoginIsAudited(t *testing.T) {
	h := newHouse(t, &all{}, nil)
	who := func(token string) error {
		_, err := h.access().WhoAmI(t.Context(), request(token, &apiv1.WhoAmIRequest{}))
		return err
	}
	h.store.Fail(errors.New("down"))
	if err := who("sue:people"); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("without an audit log: %v", err)
	}
	h.store.Fail(nil)
	for range 3 {
		if err := who("sue:people"); err != nil {
			t.Fatal(err)
		}
	}
	if err := who("udo:auditors"); err != nil {
		t.Fatal(err)
	}
	entries, _, err := h.log.List(t.Context(), audit.Query{})
	if err != nil || len(entries) != 2 {
		t.Fatalf("entries: %v, %v", entries, err)
	}
	for i, want := range []string{"udo", "sue"} {
		if e := entries[i]; e.GetAction() != authz.LoginAction || e.GetActor() != want || e.GetObject() != "subject/"+want || e.GetAddress() == "" || !strings.Contains(e.GetDetail(), "groups") {
			t.Errorf("entry %d: %v", i, e)
		}
	}
}

func TestRecordingIsNotReadUnaudited(t *testing.T) {
	began := false
	h := newHouse(t, &all{read: func(context.Context) error { began = true; return nil }}, nil)
	sessions := api.NewSessionServiceClient(h.server.Client(), h.server.URL)
	read := func() error {
		s, err := sessions.ReadRecording(t.Context(), request("udo:auditors", &apiv1.ReadRecordingRequest{Id: "s-1"}))
		if err != nil {
			return err
		}
		defer s.Close()
		for s.Receive() {
		}
		return s.Err()
	}
	if err := read(); err != nil || !began {
		t.Fatalf("error = %v, began = %v", err, began)
	}
	if e := h.entries(t); len(e) != 1 || e[0].GetObject() != "session/s-1" || e[0].GetActor() != "udo" {
		t.Fatalf("entries = %v", e)
	}
	began = false
	h.store.Fail(errors.New("down"))
	if err := read(); connect.CodeOf(err) != connect.CodeUnavailable || began {
		t.Errorf("without an audit log: %v, began = %v", err, began)
	}
}

func TestRefusalsAreAuditedWithinBounds(t *testing.T) {
	h := newHouse(t, &all{}, nil)
	for range 200 {
		if _, err := h.nodes().DrainNode(t.Context(), request("", &apiv1.DrainNodeRequest{})); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Fatal(err)
		}
	}
	n := len(h.entries(t))
	if n < 40 || n > 120 {
		t.Errorf("%d entries for 200 refusals", n)
	}
	// People who signed in have a bound of their own.
	if _, err := h.nodes().DrainNode(t.Context(), request("sue:people", &apiv1.DrainNodeRequest{Name: "n1"})); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Fatal(err)
	}
	newest := h.entries(t)[0]
	if newest.GetActor() != "sue" || !strings.Contains(newest.GetOutcome(), "needs the role operator or admin") || !strings.Contains(newest.GetDetail(), "refusalsNotWritten") {
		t.Errorf("newest entry: %v", newest)
	}
}

func TestFailsClosed(t *testing.T) {
	for name, change := range map[string]func(*authz.Config){
		"no policy yet":      func(c *authz.Config) { c.Policy = func() *policy.Snapshot { return nil } },
		"policy of nothing":  func(c *authz.Config) { c.Policy = func() *policy.Snapshot { return new(policy.Snapshot) } },
		"policy that is old": func(c *authz.Config) { c.Staleness = func() time.Duration { return time.Minute } },
	} {
		h := newHouse(t, &all{}, change)
		if _, err := h.access().WhoAmI(t.Context(), request("root:admins", &apiv1.WhoAmIRequest{})); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	h := newHouse(t, &all{}, nil)
	for _, header := range []string{"Basic cm9vdDo=", "Bearer", "Bearer ", "bearer  root:people", "root:people", "Bearer root:people, Bearer x:y", "Bearer " + strings.Repeat("x", 20<<10)} {
		r := connect.NewRequest(&apiv1.WhoAmIRequest{})
		r.Header().Set("Authorization", header)
		if _, err := h.access().WhoAmI(t.Context(), r); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("header %.30q: %v", header, err)
		}
	}
	two := request("sue:people", &apiv1.WhoAmIRequest{})
	two.Header().Add("Authorization", "Bearer root:people")
	if _, err := h.access().WhoAmI(t.Context(), two); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("two headers: %v", err)
	}
	if _, err := authz.New(authz.Config{Admins: nil}); err != nil {
		t.Error(err)
	}
}

// TestStreamEndsWithItsToken runs the interceptor itself, so that time is virtual.
func TestStreamEndsWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		snapshot, _ := policy.Compile(postern.Version{Epoch: "e", Revision: 1}, nil)
		i, err := authz.New(authz.Config{Auth: hourly{}, Policy: func() *policy.Snapshot { return snapshot }, Audit: audit.New(storetest.NewMemory(), time.Now), Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err = i.WrapStreamingHandler(func(ctx context.Context, _ connect.StreamingHandlerConn) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})(t.Context(), stream{})
		if connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "has ended") || time.Since(began) != time.Hour {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// What people see on a stream ends with a lock on them, as everything else.
func TestALockEndsStreams(t *testing.T) {
	snapshot, _ := policy.Compile(postern.Version{Epoch: "e", Revision: 1}, nil)
	i, err := authz.New(authz.Config{Auth: hourly{}, Policy: func() *policy.Snapshot { return snapshot }, Audit: audit.New(storetest.NewMemory(), time.Now), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	err = i.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
		if err := conn.Send(nil); err != nil {
			return err
		}
		snapshot = policytest.CompileAt(t, postern.Version{Epoch: "e", Revision: 2}, `{kind: Lock, metadata: {name: out}, spec: {subject: sue, reason: she left}}`)
		return conn.Send(nil)
	})(t.Context(), stream{sent: &sent})
	if connect.CodeOf(err) != connect.CodePermissionDenied || !strings.Contains(err.Error(), "she left") || sent != 1 {
		t.Errorf("%d messages were sent: %v", sent, err)
	}
}

// Under a lock of which it is not known whom it shuts out only admins are let in, who can
// delete it, and operators who ask for another lock.
func TestALockThatCannotBeRead(t *testing.T) {
	h := newHouse(t, &all{}, func(c *authz.Config) {
		whole := c.Policy()
		snapshot, _ := whole.WithLocks(whole.Version(), []*typesv1.Object{object.Bare("lock", "broken"), {Kind: &typesv1.Object_Lock{Lock: &typesv1.Lock{
			Metadata: &typesv1.Metadata{Name: "eve-left"}, Spec: &typesv1.LockSpec{Subject: "eve", Reason: "has left"},
		}}}})
		c.Policy = func() *policy.Snapshot { return snapshot }
	})
	for who, barred := range map[string]bool{"olga:operators": true, "carol:analysts": true, "root:x": false, "ada:admins": false} {
		_, err := h.access().WhoAmI(t.Context(), request(who, &apiv1.WhoAmIRequest{}))
		if barred && (connect.CodeOf(err) != connect.CodePermissionDenied || !strings.Contains(err.Error(), `"broken" cannot be read`)) || !barred && err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
	lock, task, known := object.Bare("lock", "l"), object.Bare("task", "t"), object.Bare("lock", "l")
	known.GetLock().Metadata.Etag = "7"
	for _, c := range []struct {
		who     string
		objects []*typesv1.Object
		want    string // of the error; that of a method that does nothing where it is let through
	}{
		{"olga:operators", []*typesv1.Object{lock}, "unimplemented"},
		{"olga:operators", []*typesv1.Object{lock, task}, "cannot be read"},
		{"olga:operators", []*typesv1.Object{task}, "cannot be read"},
		{"olga:operators", []*typesv1.Object{known}, "cannot be read"},
		{"carol:analysts", []*typesv1.Object{lock}, "needs the role"},
		{"eve:operators", []*typesv1.Object{lock}, "has left"},
	} {
		_, err := h.policies().Apply(t.Context(), request(c.who, &apiv1.ApplyRequest{Objects: c.objects}))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s applies %v: %v", c.who, c.objects, err)
		}
	}
	_, err := h.policies().Create(t.Context(), request("olga:operators", &apiv1.CreateRequest{Object: lock}))
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a method that is not judged by what it changes: %v", err)
	}
}

type hourly struct{}

func (hourly) Authenticate(context.Context, string) (postern.Subject, time.Time, error) {
	return postern.Subject{Name: "sue"}, time.Now().Add(time.Hour), nil
}

type stream struct {
	connect.StreamingHandlerConn
	sent *int
}

func (s stream) Send(any) error { *s.sent++; return nil }

func (stream) Spec() connect.Spec {
	return connect.Spec{Procedure: api.ApprovalServiceWatchHoldsProcedure}
}
func (stream) Peer() connect.Peer { return connect.Peer{} }
func (stream) RequestHeader() http.Header {
	return http.Header{"Authorization": {"Bearer x"}}
}
