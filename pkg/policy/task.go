package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// A task is compiled: what may be done, looked up by what is asked for.
type task struct {
	name  postern.TaskName
	title string // for reasons: task "name"
	terms Terms
	rules ruleNames

	names  []postern.ResourceName             // that it names, sorted; or
	labels map[string]string                  // that it selects
	reach  map[postern.ResourceName]*resource // this and walls are the snapshot's, the rest any's
	walls  map[postern.ResourceName]*wall     // of the resources at level native
	login  *typesv1.CredentialRef             // that its sessions use instead of the resource's; nil for none

	tables       map[sql.Name]*tablePermits
	commands     []*permit
	channels     []*permit
	requests     []*permit
	unrestricted *permit
	allowed      string // what is permitted, for Decision.Detail

	builtin   bool // built-in functions without side effects are permitted
	functions map[sql.Name]bool

	protocol postern.Protocol // empty with unrestricted, which is for any
	surface  surface          // what its conditions may read
	when     *condition
	approval *postern.Approval

	known known // for what tools list

	// each is true where something is checked at each execution: people, the clock,
	// counters, rows changed. Such statements cannot hide behind EXECUTE.
	each bool
	// held is true where people or the number of changed rows are among that. Such
	// statements cannot hide behind a cursor either, which may be a portal of the protocol.
	held bool
}

// ruleNames are made once, so that an Allow makes no text.
type ruleNames struct {
	when, approval, functions, settings, catalog, limits, permit, facts, undefined, resources string
}

// tablePermits are the permits of one table by verb, in the order of the task.
type tablePermits [len(tableVerbs)][]*permit

var tableVerbs = [...]sql.Verb{sql.Select, sql.Insert, sql.Update, sql.Delete, sql.Truncate}

var approvalVerbs = []string{"select", "insert", "update", "delete", "truncate", "define"}

func verbIndex(v sql.Verb) int { return slices.Index(tableVerbs[:], v) }

// permits returns the permits of a table, or nil.
func (t *task) permits(table *sql.Table) *tablePermits {
	if t == nil {
		return nil
	}
	return t.tables[sql.Name{Schema: table.Schema, Name: table.Name}]
}

// How long a node may go on without the control plane where a task does not say: together
// less than a minute, so that what a node that is gone for good has borrowed is taken
// back within one.
const (
	DefaultMaxStaleness = 30 * time.Second
	DefaultSessionGrace = 15 * time.Second
)

const maxResultRows = 100_000

func (c *checker) task(o *typesv1.Task) *task {
	s, name := o.GetSpec(), o.GetMetadata().GetName()
	t := &task{
		name: postern.TaskName(name), title: fmt.Sprintf("task %q", name),
		rules: ruleNames{
			when: name + "/when", approval: name + "/approval", functions: name + "/functions", settings: name + "/settings",
			catalog: name + "/catalog", limits: name + LimitsSuffix, permit: name + "/permit", facts: name + "/facts", undefined: name + "/undefined", resources: name + "/resources",
		},
		tables: map[sql.Name]*tablePermits{},
	}
	c.text("spec.purpose", s.GetPurpose())
	c.selector(t, s.GetResources())
	c.functions(t, s.GetFunctions())
	c.terms(t, s)
	c.protocol(t, s)
	if v := s.GetCredential().GetVault(); v != nil {
		t.login = &typesv1.CredentialRef{Vault: v}
		c.credential("spec.credential", t.login, true)
	}
	t.when = c.condition("spec.when", s.GetWhen(), t.surface)
	t.approval = c.approval("spec.approval", s.GetApproval(), string(postern.ScopeSession), string(postern.ScopeStatement))
	t.held = t.approval != nil && t.approval.Scope == postern.ScopeStatement
	t.each = t.held || t.when.dynamic()
	c.permits(t, s)
	if t.terms.StoreRaw && t.terms.ResultRows == 0 && len(t.tables) > 0 {
		c.fail("spec.record.storeRaw", "keeps nothing of tables without spec.record.resultRows")
	}
	c.shells(s)
	c.programs(t)
	t.know()
	t.terms.ReadOnly = t.readOnly()
	return t
}

// protocol tells by the permits what the task is for.
func (c *checker) protocol(t *task, s *typesv1.TaskSpec) {
	t.surface = onStatement
	for _, p := range s.GetPermit() {
		switch {
		case p.GetUnrestricted():
			continue
		case p.GetChannel() != "":
			t.surface = onBinding
		case forHTTP(p):
			t.surface = onRequest
		}
		t.protocol = protocolOf(p)
		if s.GetFunctions() != nil && t.protocol != postern.Postgres {
			c.fail("spec.functions", "is for SQL")
		}
	}
}

// protocolOf tells what a permit is for that is not for everything.
func protocolOf(p *typesv1.Permit) postern.Protocol {
	switch {
	case p.GetChannel() != "":
		return postern.SSH
	case forHTTP(p):
		return postern.HTTP
	}
	return postern.Postgres
}

func (c *checker) selector(t *task, r *typesv1.ResourceSelector) {
	const field = "spec.resources"
	switch {
	case len(r.GetNames()) == 0 && len(r.GetLabels()) == 0:
		c.fail(field, "is required: names or labels; a task without a resource reaches nothing")
	case len(r.GetNames()) > 0 && len(r.GetLabels()) > 0:
		c.fail(field, "has both names and labels; give one")
	}
	for i, n := range r.GetNames() {
		if err := object.CheckName(n); err != nil {
			c.fail(fmt.Sprintf("%s.names[%d]", field, i), "%s", err)
		}
		t.names = append(t.names, postern.ResourceName(n))
	}
	c.unique(field+".names", r.GetNames())
	slices.Sort(t.names)
	c.labels(field+".labels", r.GetLabels())
	t.labels = r.GetLabels()
}

// reaches reports whether the selector picks the resource.
func (t *task) reaches(r *typesv1.Resource) bool {
	if len(t.labels) > 0 {
		return object.Carries(r.GetMetadata().GetLabels(), t.labels)
	}
	return slices.Contains(t.names, postern.ResourceName(r.GetMetadata().GetName()))
}

// speaks reports whether the task's permits are for the resource's protocol.
func (t *task) speaks(r *typesv1.Resource) bool {
	return t.protocol == "" || string(t.protocol) == r.GetSpec().GetProtocol()
}

func (c *checker) functions(t *task, f *typesv1.Functions) {
	t.builtin = c.oneOf("spec.functions.builtin", f.GetBuiltin(), "pure", "pure", "none") == "pure"
	t.functions = make(map[sql.Name]bool, len(f.GetAllow()))
	for i, name := range f.GetAllow() {
		n, err := qualified(name)
		if err != nil {
			c.fail(fmt.Sprintf("spec.functions.allow[%d]", i), "%s, such as sales.total", err)
		}
		if n.Schema == catalogSchema && unboundFunctions[n.Name] {
			c.fail(fmt.Sprintf("spec.functions.allow[%d]", i), "%s runs text that nobody has judged or changes what is held fixed; only an unrestricted permit allows it", name)
		}
		t.functions[n] = true
	}
	c.unique("spec.functions.allow", f.GetAllow())
}

// qualified reads "schema.name" as the catalogue spells it, without quotes.
func qualified(s string) (sql.Name, error) {
	schema, name, ok := strings.Cut(s, ".")
	if !ok || schema == "" || name == "" || strings.ContainsAny(s, "\"' \t\r\n*") || strings.Contains(name, ".") {
		return sql.Name{}, fmt.Errorf("%q must be schema.name, as the catalogue spells it", s)
	}
	return sql.Name{Schema: schema, Name: name}, nil
}

func (c *checker) terms(t *task, s *typesv1.TaskSpec) {
	l, r := s.GetLimits(), s.GetRecord()
	t.terms = Terms{
		Purpose:          s.GetPurpose(),
		Duration:         c.duration("spec.duration", s.GetDuration(), 0),
		StatementTimeout: c.duration("spec.limits.statementTimeout", l.GetStatementTimeout(), 0),
		Idle:             c.duration("spec.limits.idle", l.GetIdle(), 0),
		Session:          c.duration("spec.limits.session", l.GetSession(), 0),
		Rows:             c.count("spec.limits.rows", l.GetRows()),
		Bytes:            -1,
		Statements:       c.count("spec.limits.statements", l.GetStatements()),
		Sessions:         c.count("spec.limits.sessions", l.GetSessions()),
		PerGrant:         c.oneOf("spec.limits.per", l.GetPer(), "session", "grant", "session") == "grant",
		RecordRead:       c.mode("spec.record.read", r.GetRead(), Local),
		RecordWrite:      c.mode("spec.record.write", r.GetWrite(), Disk),
		Pool:             c.oneOf("spec.credential.reuse", s.GetCredential().GetReuse(), "never", "never", "pool") == "pool",
		MaxStaleness:     c.duration("spec.staleness.maxStaleness", s.GetStaleness().GetMaxStaleness(), DefaultMaxStaleness),
		SessionGrace:     c.duration("spec.staleness.sessionGrace", s.GetStaleness().GetSessionGrace(), DefaultSessionGrace),
	}
	if s.GetDuration() == "" {
		c.fail("spec.duration", "is required: how long a grant lasts, such as 1h")
	}
	var err error
	if t.terms.Rate, err = parseRate(l.GetRate()); err != nil {
		c.fail("spec.limits.rate", "%s", err)
	}
	if l.GetBytes() != "" {
		n, err := parseBytes(l.GetBytes())
		if err != nil {
			c.fail("spec.limits.bytes", "%s", err)
		}
		t.terms.Bytes = n
	}
	if n := r.GetResultRows(); n < 0 || n > maxResultRows {
		c.fail("spec.record.resultRows", "must be 0 to %d", maxResultRows)
	} else {
		t.terms.ResultRows = int(n)
	}
	t.terms.StoreRaw = r.GetStoreRaw()
}

func (c *checker) mode(field, value string, def RecordMode) RecordMode {
	switch c.oneOf(field, value, def.String(), "async", "local", "disk", "remote") {
	case "async":
		return Async
	case "local":
		return Local
	case "disk":
		return Disk
	}
	return Remote
}

// readOnly reports whether nothing that the task permits can change data. A function
// that is allowed by name might.
func (t *task) readOnly() bool {
	if t.unrestricted != nil || len(t.channels) > 0 || len(t.commands) > 0 || len(t.functions) > 0 {
		return false
	}
	for _, p := range t.requests {
		if p.request.websocket || slices.ContainsFunc(p.request.methods, func(m string) bool { return !http.Reads(m) }) {
			return false
		}
	}
	for _, permits := range t.tables {
		for i, v := range tableVerbs {
			if v != sql.Select && len(permits[i]) > 0 {
				return false
			}
		}
	}
	return true
}

// dynamic reports whether the condition must be asked at each execution.
func (c *condition) dynamic() bool {
	return c != nil && (c.deps.Time || c.deps.Usage || c.deps.Literals)
}
