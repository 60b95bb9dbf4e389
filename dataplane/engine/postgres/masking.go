package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/mask"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/pkg/sql"
)

// A masking is what level result, and tokens at every level, ask of one statement: values
// of these columns are changed on their way back. It is immutable.
type masking struct {
	outputs []origin // of the result's columns, as judged; empty where it is no bare column
	masked  map[origin]maskedColumn
	source  bool // all other masks are in the statement that is sent
	keys    tokens
}

// tokens are the keys of masks of method token, by the mask's name.
type tokens map[string]secret.Bytes

// origin is the column of the catalogue that a column of a result shows as it is.
type origin struct{ schema, table, column string }

type maskedColumn struct {
	typ    uint32
	writer mask.Writer
}

// newMasking finds out how values are changed at level result, or why that cannot be
// done. It is nil where the statement reads no masked column. Policy has judged already
// that masked columns are but shown; here that is a condition.
func newMasking(cat *sql.Catalog, facts *sql.Facts, d *postern.Decision, keys tokens) (*masking, error) {
	m := &masking{masked: map[origin]maskedColumn{}, source: d.Level >= postern.LevelSource, keys: keys}
	for _, o := range d.Obligations {
		if o.Table == nil {
			continue
		}
		if o.Table.Filter != "" && !m.source {
			return nil, errors.New("its rows are filtered, which needs level source")
		}
		for i := range facts.Statements {
			if err := m.add(cat, &facts.Statements[i], o.Table); err != nil {
				return nil, err
			}
		}
	}
	if len(m.masked) == 0 {
		return nil, nil
	}
	if len(facts.Statements) != 1 {
		return nil, errors.New("several statements in one query; send them one by one")
	}
	st := &facts.Statements[0]
	if err := onlyShows(st); err != nil {
		return nil, err
	}
	for _, o := range st.Outputs {
		if m.source && unlisted(d, &o) {
			continue // * is written out
		}
		m.outputs = append(m.outputs, origin{o.Schema, o.Table, o.Column})
	}
	return m, nil
}

// unlisted reports whether * brought a column that its table's rule does not have.
func unlisted(d *postern.Decision, o *sql.Output) bool {
	for i := range d.Obligations {
		if t := d.Obligations[i].Table; o.Star && t != nil && t.Schema == o.Schema && t.Table == o.Table && !t.Every {
			return !slices.ContainsFunc(t.Columns, func(c postern.ColumnRule) bool { return c.Name == o.Column })
		}
	}
	return false
}

// onlyShows reports why a statement does more with what it reads than to return it.
func onlyShows(st *sql.Statement) error {
	switch {
	case st.Verb != sql.Select && st.Verb != sql.Prepare && st.Verb != sql.Declare:
		return fmt.Errorf("%s of masked columns", st.Command)
	case st.Command == "COPY":
		return errors.New("COPY of masked columns; use SELECT")
	}
	for i := range st.Tables {
		if t := &st.Tables[i]; t.Target || slices.ContainsFunc(t.Verbs, func(v sql.Verb) bool { return v != sql.Select }) {
			return fmt.Errorf("it changes or locks %s", t)
		}
	}
	return nil
}

// add takes the columns that a rule masks and that the statement reads.
func (m *masking) add(cat *sql.Catalog, st *sql.Statement, rule *postern.TableRule) error {
	for i := range st.Tables {
		t := &st.Tables[i]
		if t.Schema != rule.Schema || t.Name != rule.Table {
			continue
		}
		if t.AllColumns && m.tokened(rule) {
			if err := m.allShown(cat, st, t, rule); err != nil {
				return err
			}
		}
		for _, c := range rule.Columns {
			if c.Mask == nil || m.source && !c.Mask.Token() || !t.AllColumns && !slices.Contains(t.Read, c.Name) {
				continue
			}
			if slices.Contains(t.Read, c.Name) && t.Roles[c.Name] != sql.RoleOutput && !hole.Is("policy-result-use") {
				return fmt.Errorf("%s.%s in an expression or condition", t, c.Name)
			}
			if err := m.column(cat, t, &c); err != nil {
				return err
			}
		}
	}
	return nil
}

// tokened reports whether any column of a rule is changed on its way back.
func (m *masking) tokened(rule *postern.TableRule) bool {
	return !m.source || slices.ContainsFunc(rule.Columns, func(c postern.ColumnRule) bool { return c.Mask.Token() })
}

// allShown reports why * cannot stand for the columns of a table: it must be a part of
// what is shown and of nothing else, and every column must be permitted. A column that
// the table has got since shows in the description of the result, which COPY has not.
func (m *masking) allShown(cat *sql.Catalog, st *sql.Statement, t *sql.Table, rule *postern.TableRule) error {
	shows := st.Verb == sql.Select && st.Command != "COPY" || st.Verb == sql.Prepare || st.Verb == sql.Declare
	if !shows || t.Roles["*"] != sql.RoleOutput {
		return fmt.Errorf("* or the whole row of %s in more than a select list; name the columns", t)
	}
	rel := cat.Relations[sql.Name{Schema: t.Schema, Name: t.Name}]
	if rel == nil {
		return fmt.Errorf("%s is not known", t)
	}
	for i := range rel.Columns {
		if name := rel.Columns[i].Name; !m.source && !slices.ContainsFunc(rule.Columns, func(c postern.ColumnRule) bool { return c.Name == name }) {
			return fmt.Errorf("* stands for all columns of %s, and %s is not permitted; name the columns", t, name)
		}
	}
	return nil
}

func (m *masking) column(cat *sql.Catalog, t *sql.Table, c *postern.ColumnRule) error {
	rel := cat.Relations[sql.Name{Schema: t.Schema, Name: t.Name}]
	if rel == nil || rel.Column(c.Name) == nil {
		return fmt.Errorf("%s.%s is not known", t, c.Name)
	}
	col := rel.Column(c.Name)
	var w mask.Writer
	var err error
	if c.Mask.Token() {
		w, err = mask.NewTokenWriter(c.Mask, col.TypeText, m.keys[c.Mask.Name].Reveal())
	} else {
		w, err = mask.NewWriter(c.Mask, col.TypeText)
	}
	if err != nil {
		return err
	}
	m.masked[origin{t.Schema, t.Name, c.Name}] = maskedColumn{typ: col.TypeOID, writer: w}
	return nil
}

// changes reports whether the values of a column are changed.
func (m *masking) changes(o origin) bool {
	if m == nil {
		return false
	}
	_, ok := m.masked[o]
	return ok
}

// A plan is how the rows of one result are written anew.
type plan struct {
	columns int
	cells   []cell // by position
}

type cell struct {
	at     int
	writer mask.Writer
	fixed  []byte // the field as the wire has it, where that is the same for every value
}

func newCell(at int, w mask.Writer) cell {
	c := cell{at: at, writer: w}
	switch {
	case w.Null():
		c.fixed = []byte{0xff, 0xff, 0xff, 0xff}
	case w.Constant():
		c.fixed = appendField(nil, &w, nil)
	}
	return c
}

// appendField appends what is shown of value behind its length.
func appendField(dst []byte, w *mask.Writer, value []byte) []byte {
	dst = append(dst, 0, 0, 0, 0)
	begun := len(dst)
	dst = w.AppendMasked(dst, value)
	binary.BigEndian.PutUint32(dst[begun-4:], uint32(len(dst)-begun)) //nolint:gosec // bounded by the row and the constant
	return dst
}

// add plans the next column of a result. from is where the target says that it comes
// from, and is empty where the target does not. It is false unless that and what was
// judged agree about every masked column.
func (p *plan) add(m *masking, from origin, typ uint32) bool {
	at := p.columns
	p.columns++
	if at >= len(m.outputs) {
		return false
	}
	judged := m.outputs[at]
	switch c, masked := m.masked[judged]; {
	case masked && from == judged && (c.writer.Null() || c.typ == typ):
		if !hole.Is("wire-unmasked") {
			p.cells = append(p.cells, newCell(at, c.writer))
		}
		return true
	case masked:
		return false
	}
	if m.changes(from) {
		return false
	}
	return from == judged || from == (origin{}) || judged == (origin{})
}

// appendRow appends a DataRow with its masks: what is not masked as it lies, in runs. It
// is false, and what was appended is void, where the row is not one of the result. NULL
// stays NULL, but for a constant.
func (p *plan) appendRow(dst, row []byte) ([]byte, bool) {
	const fields = headerLen + 2
	if len(row) < fields || int(binary.BigEndian.Uint16(row[headerLen:])) != p.columns {
		return dst, false
	}
	from, kept := len(dst), 0
	at, i := fields, 0
	for j := range p.cells {
		c := &p.cells[j]
		var value []byte
		field, null := at, false
		for ; i <= c.at; i++ {
			if len(row)-at < 4 {
				return dst, false
			}
			n := int32(binary.BigEndian.Uint32(row[at:])) //nolint:gosec // the bits are what the wire carries
			field, null = at, n == -1
			at += 4
			if null {
				continue
			}
			if n < 0 || int(n) > len(row)-at {
				return dst, false
			}
			value = row[at : at+int(n)]
			at += int(n)
		}
		if null && !c.writer.Constant() {
			continue
		}
		dst = append(dst, row[kept:field]...)
		kept = at
		if c.fixed != nil {
			dst = append(dst, c.fixed...)
		} else {
			dst = appendField(dst, &c.writer, value)
		}
	}
	dst = append(dst, row[kept:]...)
	return end(dst, from+1), true
}
