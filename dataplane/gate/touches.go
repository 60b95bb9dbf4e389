package gate

import (
	"strings"

	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/ssh"
)

// touches lists what a statement uses, with the masks it is read through.
func touches(facts policy.Facts, obligations []postern.Obligation) []record.Touch {
	switch f := facts.(type) {
	case *sql.Facts:
		return touchesTables(f, obligations)
	case *ssh.Facts:
		return touchesHost(f, obligations)
	case *http.Facts:
		return []record.Touch{{Column: f.Shape(), Role: roleOf(f.Effect())}}
	case *mcp.Facts:
		return touchesServer(f)
	}
	return nil
}

// shape is what a request asks for without its values; empty for every other statement.
func shape(facts policy.Facts) string {
	if f, ok := facts.(*http.Facts); ok && f != nil {
		return f.Shape()
	}
	return ""
}

// touchesServer tells the tool or prompt of a server of MCP. Resources are named by what may
// be a value, so that of them the method is told.
func touchesServer(f *mcp.Facts) []record.Touch {
	if f.Request == nil {
		return nil
	}
	name := f.Method
	if f.Kind == mcp.Tool || f.Kind == mcp.Prompt {
		name = f.Name
	}
	return []record.Touch{{Column: f.Request.Shape() + " " + name, Role: roleOf(f.Effect())}}
}

func roleOf(e postern.Effect) record.Role {
	if e == postern.EffectRead || e == postern.EffectNone {
		return record.RoleOutput
	}
	return record.RoleWrite
}

// touchesHost lists programs, files and addresses.
func touchesHost(f *ssh.Facts, obligations []postern.Obligation) (out []record.Touch) {
	for _, o := range obligations {
		for _, p := range o.Programs {
			out = append(out, record.Touch{Column: p})
		}
	}
	role := record.RoleOutput
	if f.Verb != ssh.Read {
		role = record.RoleWrite
	}
	for _, p := range f.Paths {
		out = append(out, record.Touch{Column: p, Role: role})
	}
	if f.Address != "" {
		out = append(out, record.Touch{Column: f.Address})
	}
	return out
}

// touchesTables lists columns, and tables of which no column is named; what a view reads
// is there beside the view.
func touchesTables(facts *sql.Facts, obligations []postern.Obligation) []record.Touch {
	l := &touchList{masks: map[string]string{}, seen: map[string]int{}}
	for _, o := range obligations {
		if o.Table == nil {
			continue
		}
		for _, c := range o.Table.Columns {
			if c.Mask != nil {
				l.masks[o.Table.Schema+"."+o.Table.Table+"."+c.Name] = c.Mask.Name
			}
		}
	}
	for i := range facts.Statements {
		for j := range facts.Statements[i].Tables {
			l.table(&facts.Statements[i].Tables[j], obligations)
		}
	}
	return l.out
}

// touchList is what a statement uses, each once.
type touchList struct {
	masks map[string]string // by column
	seen  map[string]int
	out   []record.Touch
}

func (l *touchList) table(t *sql.Table, obligations []postern.Obligation) {
	for _, c := range t.Read {
		l.read(t, c, t.Roles[c])
	}
	for _, c := range t.Write {
		l.add(record.Touch{Column: t.String() + "." + c, Role: record.RoleWrite, Mask: l.masks[t.String()+"."+c]})
	}
	if t.AllColumns {
		for _, o := range obligations {
			if o.Table == nil || o.Table.Schema != t.Schema || o.Table.Table != t.Name {
				continue
			}
			for _, c := range o.Table.Columns {
				l.read(t, c.Name, sql.RoleOutput)
			}
			if o.Table.Every {
				l.read(t, "*", sql.RoleOutput)
			}
		}
	}
	if len(t.Read)+len(t.Write) == 0 && !t.AllColumns {
		l.add(record.Touch{Column: t.String()})
	}
	if t.Beneath == nil {
		return
	}
	var bare []sql.Origin
	for _, o := range t.Beneath.Always {
		if o.Column == "" {
			bare = append(bare, o)
			continue
		}
		l.add(record.Touch{Column: o.Relation.String() + "." + o.Column, Role: record.Role(o.Role), View: t.String()})
	}
	for _, o := range bare {
		if !l.hasColumnOf(o.Relation.String()) {
			l.add(record.Touch{Column: o.Relation.String(), View: t.String()})
		}
	}
}

// read adds a column, or "*", and what it comes from where the relation is a view: read
// through the mask that is on the view's column.
func (l *touchList) read(t *sql.Table, column string, role sql.ColumnRole) {
	name := t.String() + "." + column
	l.add(record.Touch{Column: name, Role: record.Role(role), Mask: l.masks[name]})
	if t.Beneath == nil {
		return
	}
	for c, from := range t.Beneath.Columns {
		if c != column && column != "*" {
			continue
		}
		for _, o := range from {
			l.add(record.Touch{Column: o.Relation.String() + "." + o.Column, Role: record.Role(o.Role.Through(role)), Mask: l.masks[name], View: t.String()})
		}
	}
}

// add merges roles. A column that is read with and without a mask is told as read without.
func (l *touchList) add(t record.Touch) {
	i, ok := l.seen[t.Column]
	if !ok {
		l.seen[t.Column] = len(l.out)
		l.out = append(l.out, t)
		return
	}
	was := &l.out[i]
	was.Role |= t.Role
	if t.View == "" {
		was.View = "" // the statement names it itself, too
	}
	if t.Role&^record.RolePredicate != 0 && t.Mask == "" {
		was.Mask = ""
	}
}

func (l *touchList) hasColumnOf(relation string) bool {
	for _, t := range l.out {
		if strings.HasPrefix(t.Column, relation+".") {
			return true
		}
	}
	return false
}
