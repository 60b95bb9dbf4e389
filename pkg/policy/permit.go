package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// A permit is compiled. It is of one shape: a table, commands, a channel, or everything.
type permit struct {
	index        int
	rule         string // "task/permit[0]"
	ruleWhen     string
	ruleApproval string

	table        sql.Name
	verbs        []string
	order        []string // the columns that may be read, as listed
	columns      map[string]bool
	writeColumns map[string]bool
	masks        map[string]*postern.MaskRule
	tokens       bool                 // some of masks are of method token
	view         []postern.Obligation // just one: how the table is seen, without its filter of rows
	rows         *Rows                // nil shows all rows
	ruleRows     string
	requireWhere bool
	maxAffected  int64 // 0 means no bound

	commands []string // in upper case
	schemas  map[string]bool

	channel *channel
	mcp     *mcpPermit           // with request, where that carries messages
	content *postern.ContentRule // nil masks nothing in what comes back

	request *request

	when     *condition
	approval *postern.Approval
}

// commands are the DDL commands that a permit may name: each stays within the schemas
// of the permit, gives no privilege and plants no code that others would run.
var commands = []string{
	"alter index", "alter materialized view", "alter sequence", "alter table", "alter type", "alter view", "comment",
	"create index", "create materialized view", "create schema", "create sequence", "create table", "create table as",
	"create type", "create view",
	"drop index", "drop materialized view", "drop schema", "drop sequence", "drop table", "drop type", "drop view",
	"refresh materialized view",
}

func (c *checker) permits(t *task, s *typesv1.TaskSpec) {
	if len(s.GetPermit()) == 0 {
		c.fail("spec.permit", "is required: a task without a permit allows nothing")
	}
	allowed, used := &summary{}, map[string]bool{}
	for i, p := range s.GetPermit() {
		at := fmt.Sprintf("spec.permit[%d]", i)
		out := &permit{index: i, rule: fmt.Sprintf("%s/permit[%d]", t.name, i)}
		out.ruleWhen, out.ruleApproval, out.ruleRows = out.rule+"/when", out.rule+"/approval", out.rule+"/rows"
		out.when = c.condition(at+".when", p.GetWhen(), t.surface)
		out.approval = c.approval(at+".approval", p.GetApproval(), string(postern.ScopeStatement))
		c.oneQuestion(at+".approval", t.approval, out.approval)
		t.held = t.held || out.approval != nil || p.GetMaxAffected() > 0
		t.each = t.each || t.held || out.when.dynamic()

		switch shapes := c.shapes(at, p); {
		case shapes != 1:
			c.fail(at, "must have just one of table, commands, channel, path, grpc and unrestricted")
		case i > 0 && protocolOf(p) != protocolOf(s.GetPermit()[0]):
			c.fail(at, "is for another protocol than the first one: a task is for one")
		case p.GetUnrestricted():
			if len(s.GetPermit()) > 1 {
				c.fail(at+".unrestricted", "must be the task's only permit: beside it the others say nothing")
			}
			if out.approval != nil && len(out.approval.Verbs) > 0 || t.approval != nil && len(t.approval.Verbs) > 0 {
				c.fail(at+".unrestricted", "is asked for as a whole: leave the verbs of the approval out")
			}
			t.unrestricted, t.terms.Unrestricted = out, true
			allowed.add("everything", "this resource")
		case p.GetTable() != "":
			c.tablePermit(at, p, out)
			t.add(out)
			allowed.add(strings.Join(out.verbs, ", "), p.GetTable())
			for _, v := range out.verbs {
				used[v] = true
			}
		case p.GetChannel() != "":
			c.channelPermit(at, p, out)
			if out.channel != nil {
				t.channels = append(t.channels, out)
				allowed.add(out.channel.summary(p.GetChannel()))
			}
		case forHTTP(p):
			c.requestPermit(at, p, out)
			t.requests = append(t.requests, out)
			allowed.add(out.request.summary())
		default:
			c.commandPermit(at, p, out)
			t.commands = append(t.commands, out)
			allowed.add(strings.Join(p.GetCommands(), ", "), "schema "+strings.Join(p.GetSchemas(), ", "))
			used[string(sql.Define)] = true
		}
	}
	c.oneFilter(t)
	t.allowed = allowed.String()
	if t.approval != nil && t.unrestricted == nil {
		for i, v := range t.approval.Verbs {
			if !used[v] {
				c.fail(fmt.Sprintf("spec.approval.verbs[%d]", i), "no permit allows %s, so that nobody would ever be asked", v)
			}
		}
	}
}

// shapes counts what the permit is, and refuses fields of another shape.
func (c *checker) shapes(at string, p *typesv1.Permit) (n int) {
	table, command, channel, request := p.GetTable() != "", len(p.GetCommands()) > 0, p.GetChannel() != "", forHTTP(p)
	for _, is := range []bool{table, command, channel, request, p.GetUnrestricted()} {
		if is {
			n++
		}
	}
	stray := func(field string, set, fits bool) {
		if set && !fits {
			c.fail(at+"."+field, "does not belong to this permit")
		}
	}
	stray("verbs", len(p.GetVerbs()) > 0, table || channel)
	stray("argv", len(p.GetArgv()) > 0, channel)
	stray("pty", p.GetPty(), channel)
	stray("env", len(p.GetEnv()) > 0, channel)
	stray("paths", len(p.GetPaths()) > 0, channel)
	stray("destinations", len(p.GetDestinations()) > 0, channel)
	stray("columns", len(p.GetColumns()) > 0, table)
	stray("writeColumns", len(p.GetWriteColumns()) > 0, table)
	stray("methods", len(p.GetMethods()) > 0, request)
	stray("query", len(p.GetQuery()) > 0, request)
	stray("headers", len(p.GetHeaders()) > 0, request)
	stray("websocket", p.GetWebsocket(), request)
	stray("mask", len(p.GetMask()) > 0, table || request)
	stray("rows", p.GetRows() != "", table)
	stray("requireWhere", p.GetRequireWhere(), table)
	stray("maxAffected", p.GetMaxAffected() != 0, table)
	stray("schemas", len(p.GetSchemas()) > 0, command)
	stray("detect", len(p.GetDetect()) > 0, channel || request)
	stray("mcp", p.GetMcp() != nil, request)
	return n
}

// oneQuestion refuses two rules for one statement: a hold asks one.
func (c *checker) oneQuestion(field string, outer, inner *postern.Approval) {
	if outer == nil || inner == nil || outer.Scope != postern.ScopeStatement || outer.Rule == inner.Rule {
		return
	}
	c.fail(field+".rule", "asks %q while the task asks %q: one statement is put to one rule", inner.Rule, outer.Rule)
}

func (t *task) add(p *permit) {
	permits := t.tables[p.table]
	if permits == nil {
		permits = new(tablePermits)
		t.tables[p.table] = permits
	}
	for i, v := range tableVerbs {
		if slices.Contains(p.verbs, string(v)) {
			permits[i] = append(permits[i], p)
		}
	}
}

func (c *checker) tablePermit(at string, p *typesv1.Permit, out *permit) {
	name, err := qualified(p.GetTable())
	if err != nil {
		c.fail(at+".table", "%s", err)
	}
	out.table, out.verbs = name, slices.Clone(p.GetVerbs())
	if len(out.verbs) == 0 {
		c.fail(at+".verbs", "is required: select, insert, update, delete or truncate")
	}
	for i, v := range out.verbs {
		c.oneOf(fmt.Sprintf("%s.verbs[%d]", at, i), v, "", "select", "insert", "update", "delete", "truncate")
	}
	c.unique(at+".verbs", out.verbs)
	out.order = slices.Clone(p.GetColumns())
	out.columns = c.columns(at+".columns", p.GetColumns())
	out.writeColumns = c.columns(at+".writeColumns", p.GetWriteColumns())
	out.requireWhere, out.maxAffected = p.GetRequireWhere(), p.GetMaxAffected()
	c.permitMasks(at, p, out)
	c.neverFires(at, p, out)
	c.rowFilter(at, p, out)
	rule := &postern.TableRule{Schema: name.Schema, Table: name.Name}
	for _, column := range out.order {
		rule.Columns = append(rule.Columns, postern.ColumnRule{Name: column, Mask: out.masks[column]})
	}
	out.view = []postern.Obligation{{Table: rule}}
}

// rowFilter compiles the filter of rows. It says which rows are seen and changed, and
// nothing of what they may become, so that no change may bring a row into it or out of it.
func (c *checker) rowFilter(at string, p *typesv1.Permit, out *permit) {
	if p.GetRows() == "" {
		return
	}
	field := at + ".rows"
	var err error
	if out.rows, err = c.conditions.rows(p.GetRows()); err != nil {
		c.fail(field, "%s", err)
		return
	}
	for _, v := range []sql.Verb{sql.Insert, sql.Truncate} {
		if slices.Contains(out.verbs, string(v)) {
			c.fail(field, "says which rows are seen and changed, and cannot hold %s: give it a permit of its own", v)
		}
	}
	for _, column := range out.rows.columns {
		if out.writeColumns[column] {
			c.fail(field, "reads column %s, which may be written: an update could move a row out of the filter; leave %s out of writeColumns", column, column)
		}
	}
	if systemSchema(out.table.Schema) {
		c.fail(field, "is for tables of users")
	}
}

// oneFilter refuses a permit that shows or changes all rows of a table of which another
// permit of the task filters them.
func (c *checker) oneFilter(t *task) {
	for name, permits := range t.tables {
		var with, without string
		for i, v := range tableVerbs {
			for _, p := range permits[i] {
				if p.rows != nil {
					with = p.rule
				} else if v != sql.Insert {
					without = p.rule
				}
			}
		}
		if with != "" && without != "" {
			c.fail("spec.permit", "%s filters the rows of %s, and %s does not: only insert may leave the filter out", with, name, without)
		}
	}
}

func (c *checker) columns(field string, list []string) map[string]bool {
	set := make(map[string]bool, len(list))
	for i, column := range list {
		if strings.Contains(column, "*") {
			c.fail(fmt.Sprintf("%s[%d]", field, i), "list the columns one by one: a new column must not become visible by itself")
		}
		if err := checkText(column, 63); err != nil {
			c.fail(fmt.Sprintf("%s[%d]", field, i), "%s", err)
		}
		set[column] = true
	}
	c.unique(field, list)
	return set
}

// permitMasks resolves the masks. A mask that does not exist is reported with the other
// references of the object.
func (c *checker) permitMasks(at string, p *typesv1.Permit, out *permit) {
	out.masks = make(map[string]*postern.MaskRule, len(p.GetMask()))
	for _, column := range slices.Sorted(maps.Keys(p.GetMask())) {
		field := at + ".mask." + column
		if !out.columns[column] {
			c.fail(field, "column %s is not among the columns that may be read, so that the mask would never be used", column)
		}
		m := c.masks(p.GetMask()[column])
		if m == nil {
			continue
		}
		out.masks[column] = m
		out.tokens = out.tokens || m.Token()
	}
}

// neverFires refuses what could not have any effect, for its author meant something.
func (c *checker) neverFires(at string, p *typesv1.Permit, out *permit) {
	has := func(v sql.Verb) bool { return slices.Contains(out.verbs, string(v)) }
	writes := has(sql.Insert) || has(sql.Update)
	removes := has(sql.Update) || has(sql.Delete)
	system := systemSchema(out.table.Schema)
	switch {
	case has(sql.Select) && len(out.columns) == 0:
		c.fail(at+".columns", "is required with select: the columns that may be read")
	case !has(sql.Select) && len(out.masks) > 0:
		c.fail(at+".mask", "masks apply to select, which this permit does not allow")
	}
	if writes && len(out.writeColumns) == 0 {
		c.fail(at+".writeColumns", "is required with insert and update: the columns that may be written")
	}
	if !writes && len(out.writeColumns) > 0 {
		c.fail(at+".writeColumns", "belongs to insert and update, which this permit does not allow")
	}
	if system && len(out.verbs) > 0 && !slices.Equal(out.verbs, []string{"select"}) {
		c.fail(at+".verbs", "system catalogues are read only")
	}
	if out.requireWhere {
		switch {
		case !removes:
			c.fail(at+".requireWhere", "belongs to update and delete, which this permit does not allow")
		case has(sql.Truncate):
			c.fail(at+".requireWhere", "a truncate has no WHERE clause: give it a permit of its own")
		case len(out.columns) == 0:
			c.fail(at+".columns", "is required with requireWhere: the columns that a WHERE clause may name")
		}
	}
	switch {
	case p.GetMaxAffected() < 0:
		c.fail(at+".maxAffected", "must be positive; leave it out for no bound")
	case p.GetMaxAffected() > 0 && !writes && !removes:
		c.fail(at+".maxAffected", "belongs to insert, update and delete, which this permit does not allow")
	case p.GetMaxAffected() > 0 && has(sql.Truncate):
		c.fail(at+".maxAffected", "a truncate does not say how many rows it removes: give it a permit of its own")
	}
	if out.approval != nil {
		for i, v := range out.approval.Verbs {
			if !slices.Contains(out.verbs, v) {
				c.fail(fmt.Sprintf("%s.approval.verbs[%d]", at, i), "this permit does not allow %s, so that nobody would ever be asked", v)
			}
		}
	}
}

func (c *checker) commandPermit(at string, p *typesv1.Permit, out *permit) {
	for i, command := range p.GetCommands() {
		if !slices.Contains(commands, command) {
			c.fail(fmt.Sprintf("%s.commands[%d]", at, i), "%q is not a command that can be bound to schemas; known: %s", command, strings.Join(commands, ", "))
		}
		out.commands = append(out.commands, strings.ToUpper(command))
	}
	c.unique(at+".commands", p.GetCommands())
	if len(p.GetSchemas()) == 0 {
		c.fail(at+".schemas", "is required: the schemas in which the commands are allowed")
	}
	out.schemas = make(map[string]bool, len(p.GetSchemas()))
	for i, schema := range p.GetSchemas() {
		if systemSchema(schema) {
			c.fail(fmt.Sprintf("%s.schemas[%d]", at, i), "system schemas are not changed")
		}
		out.schemas[schema] = true
	}
	c.unique(at+".schemas", p.GetSchemas())
	if out.approval != nil && slices.ContainsFunc(out.approval.Verbs, func(v string) bool { return v != string(sql.Define) }) {
		c.fail(at+".approval.verbs", "commands have the one verb define")
	}
}

// summary says what is allowed, such as "select on sales.orders, sales.customers".
type summary struct {
	verbs   []string
	objects map[string][]string // by verbs
}

func (s *summary) add(verbs, on string) {
	if s.objects == nil {
		s.objects = map[string][]string{}
	}
	if !slices.Contains(s.verbs, verbs) {
		s.verbs = append(s.verbs, verbs)
	}
	if !slices.Contains(s.objects[verbs], on) {
		s.objects[verbs] = append(s.objects[verbs], on)
	}
}

func (s *summary) String() string {
	var b strings.Builder
	for i, verbs := range s.verbs {
		if i > 0 {
			b.WriteString("; ")
		} else {
			b.WriteString("allowed: ")
		}
		b.WriteString(verbs + " on " + some(s.objects[verbs]))
	}
	return b.String()
}

// some joins words, within reason.
func some(words []string) string {
	const most = 24
	if more := len(words) - most; more > 0 {
		return strings.Join(words[:most], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(words, ", ")
}
