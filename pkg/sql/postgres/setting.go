package postgres

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/posterngate/postern/pkg/sql"
)

// moving are settings that decide what the names after them mean, once they are set to
// something. Taken back they are what they were when the session began, which is by what
// all texts are read.
var moving = []string{"search_path", "role", "session_authorization"}

func (a *analyzer) variableSet(n *pg.VariableSetStmt) {
	a.saw(1)
	st := a.st
	st.Verb, st.Command, st.Setting = sql.Set, "SET", settingName(n.Name)
	a.moved = slices.Contains(moving, st.Setting) && n.Kind == pg.VariableSetKind_VAR_SET_VALUE
	switch n.Kind {
	case pg.VariableSetKind_VAR_SET_VALUE:
		var values []string
		for _, v := range n.Args {
			values = append(values, a.settingValue(v))
		}
		st.Value = strings.Join(values, ", ")
		if st.Setting == "search_path" && slices.Equal(values, a.held) {
			st.Command, a.moved = "RESET", false // frameworks say it when they connect
		}
	case pg.VariableSetKind_VAR_RESET, pg.VariableSetKind_VAR_SET_DEFAULT:
		st.Command = "RESET"
	case pg.VariableSetKind_VAR_RESET_ALL:
		st.Command, st.Setting = "RESET ALL", "all"
	case pg.VariableSetKind_VAR_SET_MULTI:
		a.setTransaction(n)
	default:
		a.giveUp("this kind of SET is not understood")
	}
}

func (a *analyzer) setTransaction(n *pg.VariableSetStmt) {
	st := a.st
	switch n.Name {
	case "TRANSACTION":
		st.Verb, st.Command, st.Setting = sql.Transaction, "SET TRANSACTION", ""
		a.transactionModes(n.Args)
	case "SESSION CHARACTERISTICS":
		a.transactionModes(n.Args)
		if len(n.Args) != 1 {
			a.giveUp("SET SESSION CHARACTERISTICS of several settings is not understood; set one at a time")
			return
		}
		d := n.Args[0].GetDefElem()
		st.Setting, st.Value = "default_"+d.GetDefname(), constant(d.GetArg())
	default:
		a.unmodelled("SET " + n.Name)
	}
}

// settingName is a setting as policy names it.
func settingName(name string) string { return strings.ToLower(name) }

// settingValue is one value of SET as text.
func (a *analyzer) settingValue(n *pg.Node) string {
	if t := n.GetTypeCast(); t != nil { // SET TIME ZONE INTERVAL '...'
		a.saw(1)
		a.typeName(t.TypeName)
		a.expr(t.Arg, nil, 0)
		return constant(t.Arg)
	}
	if n.GetAConst() == nil {
		a.giveUp("%s as the value of a setting is not understood", describe(n))
	}
	a.expr(n, nil, 0)
	return constant(n)
}

// constant is a constant as text.
func constant(n *pg.Node) string {
	switch v := n.GetAConst().GetVal().(type) {
	case *pg.A_Const_Ival:
		return strconv.Itoa(int(v.Ival.Ival))
	case *pg.A_Const_Fval:
		return v.Fval.Fval
	case *pg.A_Const_Boolval:
		return strconv.FormatBool(v.Boolval.Boolval)
	case *pg.A_Const_Sval:
		return v.Sval.Sval
	case *pg.A_Const_Bsval:
		return v.Bsval.Bsval
	}
	if s := n.GetString_(); s != nil {
		return s.Sval
	}
	return ""
}

// discard visits DISCARD. What it discards of the session is the command's name.
func (a *analyzer) discard(n *pg.DiscardStmt) {
	a.saw(1)
	what := strings.TrimPrefix(n.Target.String(), "DISCARD_")
	a.st.Verb, a.st.Command = sql.Set, "DISCARD "+what
	switch n.Target {
	case pg.DiscardMode_DISCARD_ALL:
		a.st.Setting = "all"
	case pg.DiscardMode_DISCARD_PLANS, pg.DiscardMode_DISCARD_SEQUENCES, pg.DiscardMode_DISCARD_TEMP:
	default:
		a.unmodelled("DISCARD")
	}
}

// settingCall notes the setting that a call of set_config or current_setting is about,
// and reports whether that is certain: it then reads or writes that setting and does
// nothing else. A definition runs again later, for others, and so is never certain.
func (a *analyzer) settingCall(f *pg.FuncCall, names []string, s *scope) bool {
	schemas, function, ok := a.candidates(names)
	write := function == "set_config" && len(f.Args) == 3
	if !ok || !slices.Contains(schemas, catalogSchema) || !write && (function != "current_setting" || len(f.Args) == 0) {
		return false
	}
	name, certain := a.text(f.Args[0])
	use := sql.SettingUse{Name: settingName(name), Write: write}
	if write {
		use.Value, use.Known = a.text(f.Args[1])
		use.Held = certain && use.Known && use.Name == "search_path" && a.heldPath(use.Value)
		a.moved = a.moved || !certain || slices.Contains(moving, use.Name) && !use.Held
		certain = certain && (use.Known || a.textOf(f.Args[1]).GetParamRef() != nil)
	} else if !certain {
		use.Listed = a.listedSetting(f.Args[0], s)
		certain = use.Listed
	}
	if !certain || a.defining {
		return false
	}
	a.st.Settings = append(a.st.Settings, use)
	return true
}

// heldPath reports whether a search path, as the server writes it, is the one that the session
// began with. Of other spellings of a name none is taken.
func (a *analyzer) heldPath(path string) bool {
	return slices.EqualFunc(strings.Split(path, ","), a.held, func(word, schema string) bool {
		word = strings.Trim(word, " ")
		return word == sql.Quote(schema) || word == schema && bareName.MatchString(word)
	})
}

var bareName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// listedSetting reports whether an expression is the name in a row of pg_settings: of the view it
// is known who may see which rows.
func (a *analyzer) listedSetting(n *pg.Node, s *scope) bool {
	c := n.GetColumnRef()
	if c == nil || len(c.Fields) != 2 || c.Fields[1].GetString_() == nil {
		return false
	}
	it := a.item(s, "", c.Fields[0].GetString_().GetSval())
	if it == nil || it.ref == nil || it.ref.use.rel.Name != (sql.Name{Schema: catalogSchema, Name: "pg_settings"}) {
		return false
	}
	lin, found := it.find(c.Fields[1].GetString_().Sval)
	return found == 1 && len(lin.from) == 1 && lin.from[0].column == "name"
}

// text is the text that an expression is, where it is a constant.
func (a *analyzer) text(n *pg.Node) (value string, constant bool) {
	s := a.textOf(n).GetAConst().GetSval()
	return s.GetSval(), s != nil
}

// textOf is what a cast to text is of, or n itself. Casts to other types may change what
// they are of: they cut it, or fold its case.
func (a *analyzer) textOf(n *pg.Node) *pg.Node {
	c := n.GetTypeCast()
	t := c.GetTypeName()
	if t == nil || t.Setof || t.PctType || len(t.Typmods) > 0 || len(t.ArrayBounds) > 0 {
		return n
	}
	schemas, name, ok := a.candidates(names(t.Names))
	if !ok || name != "text" && name != "varchar" {
		return n
	}
	for _, s := range schemas {
		if _, ok := a.cat.Types[sql.Name{Schema: s, Name: name}]; ok {
			if s != catalogSchema {
				return n
			}
			return c.Arg
		}
	}
	return n
}
