package postgres

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// descend calls f with m and every message in it, until f returns false.
func descend(m protoreflect.Message, f func(protoreflect.Message) bool) bool {
	if !m.IsValid() {
		return true
	}
	if !f(m) {
		return false
	}
	ok := true
	m.Range(func(d protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case d.Message() == nil:
		case d.IsList():
			for i := range v.List().Len() {
				if ok = descend(v.List().Get(i).Message(), f); !ok {
					return false
				}
			}
		default:
			ok = descend(v.Message(), f)
		}
		return ok
	})
	return ok
}

// qualify puts the name of an item in front of every column of an expression that a
// rule brings. Its columns are all of one relation.
func qualify(m protoreflect.Message, name string) error {
	var err error
	descend(m, func(m protoreflect.Message) bool {
		switch v := m.Interface().(type) {
		case *pg.SubLink, *pg.SelectStmt:
			err = cannot("a filter with a sub-select cannot hold a change")
		case *pg.ColumnRef:
			if len(v.Fields) != 1 || v.Fields[0].GetString_() == nil {
				err = cannot("a filter is not over plain columns")
				return false
			}
			v.Fields = []*pg.Node{pg.MakeStrNode(name), v.Fields[0]}
			return true
		}
		return err == nil
	})
	return err
}
