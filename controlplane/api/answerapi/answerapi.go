// Package answerapi answers questions about what was recorded, for auditors: who used a
// column, which statements said something, and who still uses an account. Operators may
// ask for the latter too, before they rotate it.
package answerapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// Index answers.
type Index interface {
	Search(ctx context.Context, q index.Query) ([]index.Found, error)
	Who(ctx context.Context, q index.Who) ([]index.Use, error)
	Usage(ctx context.Context, q index.Usage) ([]index.Used, error)
	Takers(ctx context.Context, task, resource string) ([]index.Taker, error)
	Session(ctx context.Context, id postern.SessionID) (*typesv1.Session, error)
}

// Config is what a Handler needs; all of it is required.
type Config struct {
	Index Index
	// Bindings and Workloads are those that stand now, and Exists is whether an object of a
	// kind does.
	Bindings  func() ([]*typesv1.Binding, error)
	Workloads func() []*typesv1.Workload
	Exists    func(kind, name string) bool
	// Told is whether the audit log tells of an object that it was ever acted on so.
	Told func(ctx context.Context, action, object string) (bool, error)
	Now  func() time.Time
}

// Handler implements the AnswerService.
type Handler struct{ cfg Config }

var _ apiv1connect.AnswerServiceHandler = (*Handler)(nil)

// New makes a Handler.
func New(cfg Config) *Handler { return &Handler{cfg} }

const (
	defaultPage = 100
	maxPage     = index.MaxPage - 1
	maxField    = 1000 // bytes of what narrows a question
)

// allowed lets those ask who have one of the roles for everything: recordings have no
// labels that a scope could name.
func allowed(ctx context.Context, roles ...string) error {
	c, err := authz.Require(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(roles, c.Has) {
		return fault.New(codes.PermissionDenied, "what was recorded is for auditors of everything; your role has a scope").WithKind("denied")
	}
	return nil
}

// SearchStatements implements the AnswerService.
func (h *Handler) SearchStatements(ctx context.Context, req *connect.Request[apiv1.SearchStatementsRequest]) (*connect.Response[apiv1.SearchStatementsResponse], error) {
	if err := allowed(ctx, authz.Auditor); err != nil {
		return nil, err
	}
	m := req.Msg
	q := index.Query{
		Session: m.GetSession(), Subject: m.GetSubject(), Task: m.GetTask(), Resource: m.GetResource(), Account: m.GetAccount(), Node: m.GetNode(),
		Text: m.GetText(), Column: m.GetColumn(),
	}
	var c check
	c.fields(m.GetSession(), m.GetSubject(), m.GetTask(), m.GetResource(), m.GetAccount(), m.GetNode(), m.GetText(), m.GetColumn())
	if terms, _ := index.Terms(q.Text); q.Text != "" && len(terms) == 0 {
		c.wrong("text", "has no word to search for")
	}
	c.name("column", q.Column, false)
	q.Roles, q.Verdict = c.role(m.GetRole(), q.Column), c.verdict(m.GetVerdict())
	q.Since, q.Until = c.time("since", m.GetSince()), c.time("until", m.GetUntil())
	q.Limit = c.page(m.GetPageSize())
	if s := c.token(m.GetPageToken()); s != nil {
		q.Before = &index.Spot{Time: time.UnixMicro(s.Time), Session: s.Session, Number: s.Number}
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	q.Limit++ // one more tells whether there are more
	found, err := h.cfg.Index.Search(ctx, q)
	if err == nil && len(found) == 0 {
		err = h.nothing(ctx, q)
	}
	if err != nil {
		return nil, err
	}
	resp := &apiv1.SearchStatementsResponse{}
	if len(found) == q.Limit {
		found = found[:len(found)-1]
		last := found[len(found)-1]
		resp.NextPageToken = spot{last.Time.UnixMicro(), last.Session.GetId(), last.Number}.token()
	}
	for i := range found {
		resp.Statements = append(resp.Statements, statement(&found[i]))
	}
	return connect.NewResponse(resp), nil
}

func statement(f *index.Found) *apiv1.RecordedStatement {
	s := f.Session
	out := &apiv1.RecordedStatement{
		Session: s.GetId(), Number: int64(f.Number), Time: timestamppb.New(f.Time), Text: f.Text, Rule: f.Rule, Reason: f.Reason, Affected: -1,
		Subject: s.GetSubject(), Task: s.GetTask(), Resource: s.GetResource(), Account: s.GetAccount(), Node: s.GetNode(),
		ClientAddress: s.GetClientAddress(), ClientProgram: s.GetClientProgram(), Actors: s.GetActors(), Doubt: s.GetDoubt(),
	}
	verdict := f.Verdict
	if o := f.Outcome; o != nil {
		verdict = o.Verdict
		out.Rows, out.Bytes, out.Affected, out.Code, out.Duration = o.Rows, o.Bytes, o.Affected, o.Code, durationpb.New(o.Duration)
	}
	out.Verdict = verdict.String()
	for _, t := range f.Touched {
		out.Columns = append(out.Columns, &apiv1.ColumnUse{Column: t.Column, Roles: t.Role.Names(), Mask: t.Mask})
	}
	return out
}

// WhoUsed implements the AnswerService.
func (h *Handler) WhoUsed(ctx context.Context, req *connect.Request[apiv1.WhoUsedRequest]) (*connect.Response[apiv1.WhoUsedResponse], error) {
	if err := allowed(ctx, authz.Auditor); err != nil {
		return nil, err
	}
	m := req.Msg
	q := index.Who{Name: m.GetName(), Resource: m.GetResource(), Subject: m.GetSubject()}
	var c check
	c.fields(m.GetName(), m.GetResource(), m.GetSubject())
	c.name("name", q.Name, q.Resource == "")
	q.Roles = c.role(m.GetRole(), q.Name)
	q.Since, q.Until = c.time("since", m.GetSince()), c.time("until", m.GetUntil())
	q.Limit = c.page(m.GetPageSize())
	if s := c.token(m.GetPageToken()); s != nil {
		q.Before = &index.Place{Start: time.UnixMicro(s.Time), ID: s.Session}
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	q.Limit++
	uses, err := h.cfg.Index.Who(ctx, q)
	if err == nil && len(uses) == 0 {
		err = h.known(ctx, index.Usage{Subject: q.Subject, Resource: q.Resource})
	}
	if err == nil && len(uses) == 0 {
		err = h.recorded(ctx, q.Name, q.Resource)
	}
	if err != nil {
		return nil, err
	}
	resp := &apiv1.WhoUsedResponse{}
	if len(uses) == q.Limit {
		uses = uses[:len(uses)-1]
		last := uses[len(uses)-1]
		resp.NextPageToken = spot{Time: last.Last.UnixMicro(), Session: last.Session.GetId()}.token()
	}
	for _, u := range uses {
		s := u.Session
		resp.Uses = append(resp.Uses, &apiv1.SessionUse{
			Subject: s.GetSubject(), Session: s.GetId(), Task: s.GetTask(), Resource: s.GetResource(), Account: s.GetAccount(), Node: s.GetNode(),
			ClientAddress: s.GetClientAddress(), ClientProgram: s.GetClientProgram(), Roles: u.Roles.Names(), Masks: u.Masks,
			FirstTime: timestamppb.New(u.First), LastTime: timestamppb.New(u.Last), Statements: u.Statements, Actors: s.GetActors(), Doubt: s.GetDoubt(),
		})
	}
	return connect.NewResponse(resp), nil
}

// A spot is the last entry of a page.
type spot struct {
	Time    int64
	Session string
	Number  uint64
}

func (s spot) token() string {
	js, _ := json.Marshal(s) // numbers and a text always can be
	return base64.RawURLEncoding.EncodeToString(js)
}

// check collects what is wrong with a question.
type check struct{ violations []fault.Violation }

func (c *check) wrong(field, reason string) {
	c.violations = append(c.violations, fault.Violation{Field: field, Reason: reason})
}

func (c *check) err() error {
	if len(c.violations) == 0 {
		return nil
	}
	return fault.Invalid(c.violations...)
}

func (c *check) fields(all ...string) {
	for _, f := range all {
		if len(f) > maxField || strings.ContainsRune(f, 0) {
			c.wrong("request", "a field is longer than "+strconv.Itoa(maxField)+" bytes, or has a zero byte")
			return
		}
	}
}

// name checks schema.table.column or schema.table, or a path.
func (c *check) name(field, name string, required bool) {
	switch {
	case name == "" && !required:
	case name == "":
		c.wrong(field, "say what was used: schema.table.column, schema.table, a path such as /orders/?, or a resource")
	case strings.HasPrefix(name, "/"):
	case !strings.Contains(name, ".") || slices.Contains(strings.Split(name, "."), ""):
		c.wrong(field, "must be schema.table.column, schema.table or a path")
	}
}

func (c *check) role(name, of string) record.Role {
	if name == "" {
		return 0
	}
	if of == "" {
		c.wrong("role", "needs a column or relation")
	}
	switch name {
	case "out":
		return record.RoleOutput | record.RoleComputed
	case "predicate":
		return record.RolePredicate
	case "write":
		return record.RoleWrite
	}
	c.wrong("role", "must be out, predicate or write")
	return 0
}

func (c *check) verdict(name string) *postern.Verdict {
	if name == "" {
		return nil
	}
	for _, v := range []postern.Verdict{postern.VerdictAllow, postern.VerdictDeny, postern.VerdictHold} {
		if v.String() == name {
			return &v
		}
	}
	c.wrong("verdict", "must be allow, deny or hold")
	return nil
}

func (c *check) time(field string, t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	if t.CheckValid() != nil {
		c.wrong(field, "is not a time")
	}
	return t.AsTime()
}

func (c *check) page(n int32) int {
	if n < 0 || n > maxPage {
		c.wrong("page_size", "must be 1 to "+strconv.Itoa(maxPage))
	}
	if n <= 0 {
		return defaultPage
	}
	return int(n)
}

func (c *check) token(t string) *spot {
	if t == "" {
		return nil
	}
	js, err := base64.RawURLEncoding.DecodeString(t)
	s := &spot{}
	if err != nil || len(t) > maxField || json.Unmarshal(js, s) != nil || strings.ContainsRune(s.Session, 0) || s.Number > 1<<63-1 {
		c.wrong("page_token", "is not from an answer")
	}
	return s
}
