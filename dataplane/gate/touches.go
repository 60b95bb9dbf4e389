package gate

import (
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
	}
	return nil
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

// touchesTables lists columns, and tables of which no column is named.
func touchesTables(facts *sql.Facts, obligations []postern.Obligation) []record.Touch {
	masks := map[string]string{}
	for _, o := range obligations {
		if o.Table == nil {
			continue
		}
		for _, c := range o.Table.Columns {
			if c.Mask != nil {
				masks[o.Table.Schema+"."+o.Table.Table+"."+c.Name] = c.Mask.Name
			}
		}
	}
	seen := map[string]int{}
	var out []record.Touch
	add := func(column string, role record.Role) {
		if i, ok := seen[column]; ok {
			out[i].Role |= role
			return
		}
		seen[column] = len(out)
		out = append(out, record.Touch{Column: column, Role: role, Mask: masks[column]})
	}
	for i := range facts.Statements {
		for j := range facts.Statements[i].Tables {
			t := &facts.Statements[i].Tables[j]
			for _, c := range t.Read {
				add(t.String()+"."+c, record.Role(t.Roles[c]))
			}
			for _, c := range t.Write {
				add(t.String()+"."+c, record.RoleWrite)
			}
			if t.AllColumns {
				for _, o := range obligations {
					if o.Table != nil && o.Table.Schema == t.Schema && o.Table.Table == t.Name {
						for _, c := range o.Table.Columns {
							add(t.String()+"."+c.Name, record.RoleOutput)
						}
						if o.Table.Every {
							add(t.String()+".*", record.RoleOutput)
						}
					}
				}
			}
			if len(t.Read)+len(t.Write) == 0 && !t.AllColumns {
				add(t.String(), 0)
			}
		}
	}
	return out
}
