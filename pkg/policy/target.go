package policy

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/ssh"
	"github.com/posterngate/postern/pkg/ssh/shell"
)

// A Target is one thing that somebody could do at a resource.
type Target struct {
	Resource   postern.ResourceName
	Verb       string // as of a Right
	On, Column string // as of a Right; of exec the command line
	line       *shell.Line
	request    *http.Facts // of HTTP
	call       *mcp.Facts  // of MCP, which request carries
}

// String is the target as people type it.
func (t *Target) String() string {
	out := t.Verb + " " + string(t.Resource)
	if t.On != "" {
		out += ":" + t.On
	}
	if t.Column != "" {
		out += "." + t.Column
	}
	return out
}

func (t *Target) argv() []string { return t.line.Commands()[0].Argv }

// Target reads what somebody could do: a verb, and a resource with what it is done to
// (warehouse:sales.customers.email, web-1:/usr/bin/uptime, web-1 for a shell,
// orders-api:/api/orders/7, or tickets:search for a tool).
// An error says what is wrong for a reader.
func (s *Snapshot) Target(verb, object string) (*Target, error) {
	name, on, _ := strings.Cut(object, ":")
	r, ok := s.resources[postern.ResourceName(name)]
	if !ok {
		return nil, fmt.Errorf("there is no resource %q that compiles", name)
	}
	t := &Target{Resource: postern.ResourceName(name), Verb: strings.ToLower(strings.Join(strings.Fields(verb), " ")), On: on}
	switch postern.Protocol(r.object.GetSpec().GetProtocol()) {
	case postern.SSH:
		return t, t.host()
	case postern.HTTP:
		return t, t.web(s)
	case postern.Postgres:
	}
	return t, t.table()
}

// table reads a target in a database.
func (t *Target) table() error {
	parts := strings.Split(t.On, ".")
	if slices.Contains(parts, "") {
		parts = nil
	}
	switch verb := sql.Verb(t.Verb); {
	case verb == sql.Select || verb == sql.Insert || verb == sql.Update:
		if len(parts) == 3 {
			t.On, t.Column = parts[0]+"."+parts[1], parts[2]
		} else if len(parts) != 2 {
			return fmt.Errorf("%q must be schema.table or schema.table.column", t.On)
		}
	case verb == sql.Delete || verb == sql.Truncate:
		if len(parts) != 2 {
			return fmt.Errorf("%q must be schema.table: rows are removed as a whole", t.On)
		}
	case t.Verb == "call":
		if len(parts) != 2 {
			return fmt.Errorf("%q must be schema.function", t.On)
		}
	case slices.Contains(commands, t.Verb):
		if len(parts) != 1 {
			return fmt.Errorf("%q must be a schema: that is what commands are allowed in", t.On)
		}
	default:
		return fmt.Errorf("verb %q is not select, insert, update, delete, truncate, call or one of: %s", t.Verb, strings.Join(commands, ", "))
	}
	if systemSchema(parts[0]) {
		return fmt.Errorf("%s is the server's own: whoever may connect sees of it what their task names (postern doctor says what else)", parts[0])
	}
	return nil
}

// host reads a target on a host.
func (t *Target) host() (err error) {
	switch ssh.Verb(t.Verb) {
	case ssh.Exec:
		if t.line, err = shell.Parse(t.On); err != nil {
			return err
		}
		if len(t.line.Commands()) != 1 {
			return fmt.Errorf("%q is not one command", t.On)
		}
	case ssh.Shell:
		if t.On != "" {
			return fmt.Errorf("a shell is asked for at a host: %s", t.Resource)
		}
	case ssh.Read, ssh.Write, ssh.Delete:
		if !path.IsAbs(t.On) || path.Clean(t.On) != t.On {
			return fmt.Errorf("%q must be an absolute path in its shortest form", t.On)
		}
	case ssh.Connect, ssh.Listen:
		if !strings.Contains(t.On, ":") {
			return fmt.Errorf("%q must be host:port", t.On)
		}
	default:
		return fmt.Errorf("verb %q is not exec, shell, read, write, delete, connect or listen", t.Verb)
	}
	return nil
}

// Facts are those of the plainest statement or request that does what the target says,
// so that Decide can judge it: one column, a WHERE clause where there may be one.
func (t *Target) Facts() Facts {
	switch {
	case t.call != nil:
		return t.call
	case t.request != nil:
		return t.request
	}
	if t.line != nil {
		return &ssh.Facts{Verb: ssh.Exec, Line: t.line}
	}
	switch v := ssh.Verb(t.Verb); {
	case v == ssh.Shell:
		return &ssh.Facts{Verb: v, Terminal: true}
	case v == ssh.Connect || v == ssh.Listen:
		return &ssh.Facts{Verb: v, Address: t.On}
	case path.IsAbs(t.On):
		return &ssh.Facts{Verb: v, Paths: []string{t.On}}
	}
	st := sql.Statement{Verb: sql.Verb(t.Verb), Command: strings.ToUpper(t.Verb), Effect: postern.EffectWrite}
	schema, name, _ := strings.Cut(t.On, ".")
	switch {
	case t.Verb == "call":
		st.Verb, st.Effect, st.Functions = sql.Select, postern.EffectRead, []sql.Function{{Schema: schema, Name: name}}
	case name == "":
		st.Verb, st.Effect, st.Schemas = sql.Define, postern.EffectDefine, []string{schema}
	default:
		table := sql.Table{Schema: schema, Name: name, Verbs: []sql.Verb{st.Verb}, Target: st.Verb != sql.Select}
		switch {
		case st.Verb == sql.Select:
			st.Effect = postern.EffectRead
			if t.Column != "" {
				table.Read, table.Roles = []string{t.Column}, map[string]sql.ColumnRole{t.Column: sql.RoleOutput}
			}
		case t.Column != "":
			table.Write = []string{t.Column}
		}
		st.Tables = []sql.Table{table}
	}
	return &sql.Facts{Complete: true, Statements: []sql.Statement{st}}
}
