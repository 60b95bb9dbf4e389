package postgres

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/mask"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/wire"
)

func newWriter(tb testing.TB, m postern.MaskRule) mask.Writer {
	tb.Helper()
	w, err := mask.NewWriter(&m, "text")
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

func constant(tb testing.TB) mask.Writer {
	return newWriter(tb, postern.MaskRule{Method: postern.MaskRedact, Value: "[hidden]"})
}

func lastFour(tb testing.TB) mask.Writer {
	return newWriter(tb, postern.MaskRule{Method: postern.MaskPartial, KeepLast: 4})
}

// dataRow is a DataRow; nil is NULL.
func dataRow(values ...[]byte) []byte {
	b, at := begin(nil, 'D')
	b = binary.BigEndian.AppendUint16(b, uint16(len(values))) //nolint:gosec // a test's
	for _, v := range values {
		if v == nil {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...) //nolint:gosec // a test's
	}
	return end(b, at)
}

func TestAppendRow(t *testing.T) {
	s := func(v string) []byte { return []byte(v) }
	p := &plan{columns: 4, cells: []cell{newCell(0, constant(t)), newCell(2, lastFour(t)), newCell(3, mask.Writer{})}}
	for _, c := range []struct{ in, want []byte }{
		{dataRow(s("alice"), s("1"), s("123456"), s("x")), dataRow(s("[hidden]"), s("1"), s("**3456"), nil)},
		{dataRow(nil, nil, nil, nil), dataRow(s("[hidden]"), nil, nil, nil)},
		{dataRow(s(""), s(""), s(""), s("")), dataRow(s("[hidden]"), s(""), s(""), nil)},
	} {
		got, ok := p.appendRow([]byte("before"), c.in)
		if !ok || string(got) != "before"+string(c.want) {
			t.Errorf("%q became %q, want %q", c.in, got, c.want)
		}
	}
	good := dataRow(s("alice"), s("1"), s("123456"), s("x"))
	short := bytes.Clone(good)
	short[headerLen+2+3] = 200
	negative := bytes.Clone(good)
	negative[headerLen+2] = 0x80
	for _, bad := range [][]byte{dataRow(s("a"), s("b"), s("c")), dataRow(), short, negative, message('D', ""), message('D', "\x00\x04"), message('D', "\x00\x04\x00\x00")} {
		if got, ok := p.appendRow(nil, bad); ok {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

// A plan is made where what was judged and what the target says agree, and else not.
func TestPlan(t *testing.T) {
	email, id := origin{"sales", "people", "email"}, origin{"sales", "people", "id"}
	for _, c := range []struct {
		name         string
		judged, from origin
		typ          uint32
		ok, masked   bool
	}{
		{"both say masked", email, email, 25, true, true},
		{"neither says anything", origin{}, origin{}, 25, true, false},
		{"both say unmasked", id, id, 23, true, false},
		{"only the statement says unmasked", id, origin{}, 23, true, false},
		{"only the target says unmasked", origin{}, id, 23, true, false},
		{"only the statement says masked", email, origin{}, 25, false, false},
		{"only the target says masked", origin{}, email, 25, false, false},
		{"the statement says unmasked", id, email, 25, false, false},
		{"the target says unmasked", email, id, 25, false, false},
		{"they name two columns", id, origin{"sales", "people", "name"}, 23, false, false},
		{"it has another type", email, email, 17, false, false},
	} {
		p, m := &plan{}, &masking{outputs: []origin{c.judged}, masked: map[origin]maskedColumn{email: {25, constant(t)}}}
		if got := p.add(m, c.from, c.typ); got != c.ok || (len(p.cells) == 1) != c.masked {
			t.Errorf("%s: %v, %d masked", c.name, got, len(p.cells))
		}
		if p.columns == 1 && p.add(m, origin{}, 25) {
			t.Error("a column that was not judged passes")
		}
	}
}

func maskedConn(tb testing.TB) *conn {
	c := prepared1(tb)
	feed(tb, clientCore{c}, hotExecute)
	e := c.q.at(2)
	one, four := origin{"s", "t", "one"}, origin{"s", "t", "four"}
	e.st.masking = &masking{outputs: []origin{{}, one, {}, {}, four, {}}, masked: map[origin]maskedColumn{one: {25, constant(tb)}, four: {25, lastFour(tb)}}}
	e.st.plan = &plan{columns: 6, cells: []cell{newCell(1, constant(tb)), newCell(4, lastFour(tb))}}
	feed(tb, targetCore{c}, join(message('2', ""), message('n', "")))
	return c
}

func maskedSpanOf(size int) []byte {
	row := dataRow([]byte("12345"), []byte("customer.1234@example.com"), bytes.Repeat([]byte("x"), 90), nil, []byte("4111 1111 1111 1111"), []byte("2026-01-01"))
	var span []byte
	for len(span)+len(row) <= size {
		span = append(span, row...)
	}
	return span
}

func TestMaskedRowsAllocateNothing(t *testing.T) {
	c := maskedConn(t)
	target, span := targetCore{c}, maskedSpanOf(wire.Large)
	once := func() { feed(t, target, span) }
	once()
	if n := testing.AllocsPerRun(50, once); n != 0 {
		t.Fatalf("%v allocations for %d bytes of masked rows", n, len(span))
	}
}

func BenchmarkMaskedRows(b *testing.B) {
	c := maskedConn(b)
	target, span := targetCore{c}, maskedSpanOf(wire.Large)
	b.SetBytes(int64(len(span)))
	b.ReportAllocs()
	for b.Loop() {
		feed(b, target, span)
	}
}

func BenchmarkAppendRow(b *testing.B) {
	row, dst := maskedSpanOf(200), make([]byte, 0, 512)
	for name, p := range map[string]*plan{
		"redact":  {columns: 6, cells: []cell{newCell(1, constant(b))}},
		"partial": {columns: 6, cells: []cell{newCell(1, lastFour(b))}},
		"null":    {columns: 6, cells: []cell{newCell(1, mask.Writer{})}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := p.appendRow(dst, row); !ok {
					b.Fatal("not a row")
				}
			}
		})
	}
}

// fields splits a DataRow as a client does.
func fields(row []byte) (values [][]byte, ok bool) {
	c := wire.Read(row[headerLen:])
	for range int(uint16(c.Int16())) { //nolint:gosec // the count is unsigned
		n := c.Int32()
		if n == -1 {
			values = append(values, nil)
			continue
		}
		values = append(values, append([]byte{}, c.Bytes(int(n))...))
		if c.Err() != nil {
			break
		}
	}
	return values, c.Done() == nil
}

func FuzzAppendRow(f *testing.F) {
	f.Add(dataRow([]byte("alice"), []byte("1"), nil)[headerLen:], uint8(0b101))
	f.Add(dataRow(nil, []byte("日本語"), []byte(""))[headerLen:], uint8(0b010))
	f.Add([]byte("\x00\x03\x00\x00\x00\xff"), uint8(0b111))
	f.Fuzz(func(t *testing.T, body []byte, which uint8) {
		p := &plan{columns: 3}
		writers := []mask.Writer{constant(t), lastFour(t), {}}
		for i := range 3 {
			if which&(1<<i) != 0 {
				p.cells = append(p.cells, newCell(i, writers[i]))
			}
		}
		in := message('D', string(body))
		out, ok := p.appendRow(nil, in)
		before, valid := fields(in)
		if valid && len(before) == 3 && !ok {
			t.Fatalf("%q was not taken", in)
		}
		if !ok {
			return
		}
		if typ, size, err := next(out); err != nil || typ != 'D' || size != len(out) {
			t.Fatalf("%q became %q, which is no message", in, out)
		}
		after, still := fields(out)
		if valid != still {
			t.Fatalf("%q became %q", in, out)
		}
		for i := range before {
			want := before[i]
			if which&(1<<i) != 0 && (want != nil || writers[i].Constant()) {
				if want = nil; !writers[i].Null() {
					want = writers[i].AppendMasked([]byte{}, before[i])
				}
			}
			if valid && ((want == nil) != (after[i] == nil) || !bytes.Equal(want, after[i])) {
				t.Fatalf("field %d of %q became %q, want %q", i, in, after[i], want)
			}
		}
	})
}

// FuzzMaskedStream makes sure that no stream of a target makes a masked value pass.
func FuzzMaskedStream(f *testing.F) {
	f.Add(join(maskedSpanOf(400), message('C', "SELECT 2\x00"), message('Z', "I")), 9)
	f.Add(join(message('T', "\x00\x00"), maskedSpanOf(200), message('d', "secret")), 30)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		c := maskedConn(t)
		client := c.out.conn.(*pump.Feed).Conn.(*sinkConn)
		client.keep = true
		wantRefusal(t, drive(targetCore{c}, in, cut))
		for out := client.all; len(out) > 0; {
			typ, size, err := next(out)
			if err != nil || size == 0 || size > len(out) {
				t.Fatalf("the client got %q", out)
			}
			if values, ok := fields(out[:size]); typ == 'd' || typ == 'D' && ok && string(values[1]) != "[hidden]" {
				t.Fatalf("the client got %q", out[:size])
			}
			out = out[size:]
		}
	})
}

func TestMaskingConditions(t *testing.T) {
	people := &sql.Relation{Name: sql.Name{Schema: "sales", Name: "people"}, Columns: []sql.Column{{Name: "id", TypeText: "integer"}, {Name: "email", TypeText: "text", TypeOID: 25}}}
	cat := &sql.Catalog{Relations: map[sql.Name]*sql.Relation{people.Name: people}}
	decision := func(m *postern.MaskRule) *postern.Decision {
		return &postern.Decision{Level: postern.LevelResult, Obligations: []postern.Obligation{{Table: &postern.TableRule{
			Schema: "sales", Table: "people", Columns: []postern.ColumnRule{{Name: "id"}, {Name: "email", Mask: m}},
		}}}}
	}
	redact := &postern.MaskRule{Name: "m", Method: postern.MaskRedact, Value: "x"}
	shows := func() *sql.Facts {
		return &sql.Facts{Complete: true, Statements: []sql.Statement{{Verb: sql.Select, Command: "SELECT", Tables: []sql.Table{{
			Schema: "sales", Name: "people", Verbs: []sql.Verb{sql.Select}, Read: []string{"email"}, Roles: map[string]sql.ColumnRole{"email": sql.RoleOutput},
		}}, Outputs: []sql.Output{{Name: "e", Schema: "sales", Table: "people", Column: "email"}}}}}
	}
	if m, err := newMasking(cat, shows(), decision(redact), nil); err != nil || len(m.masked) != 1 || len(m.outputs) != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	if m, err := newMasking(cat, shows(), decision(nil), nil); err != nil || m != nil {
		t.Fatalf("nothing to mask: %+v, %v", m, err)
	}
	for name, spoil := range map[string]func(*sql.Facts, *postern.Decision){
		"a filter":          func(_ *sql.Facts, d *postern.Decision) { d.Obligations[0].Table.Filter = "true" },
		"a mask of no use":  func(_ *sql.Facts, d *postern.Decision) { d.Obligations[0].Table.Columns[1].Mask = &postern.MaskRule{} },
		"another statement": func(f *sql.Facts, _ *postern.Decision) { f.Statements = append(f.Statements, sql.Statement{}) },
		"a change":          func(f *sql.Facts, _ *postern.Decision) { f.Statements[0].Verb = sql.Insert },
		"a definition":      func(f *sql.Facts, _ *postern.Decision) { f.Statements[0].Verb = sql.Define },
		"COPY":              func(f *sql.Facts, _ *postern.Decision) { f.Statements[0].Command = "COPY" },
		"a lock": func(f *sql.Facts, _ *postern.Decision) {
			f.Statements[0].Tables[0].Verbs = []sql.Verb{sql.Select, sql.Update}
		},
		"a target":      func(f *sql.Facts, _ *postern.Decision) { f.Statements[0].Tables[0].Target = true },
		"an expression": func(f *sql.Facts, _ *postern.Decision) { f.Statements[0].Tables[0].Roles["email"] |= sql.RoleComputed },
		"no role":       func(f *sql.Facts, _ *postern.Decision) { f.Statements[0].Tables[0].Roles = nil },
		"the whole row": func(f *sql.Facts, _ *postern.Decision) { f.Statements[0].Tables[0].AllColumns = true },
		"a * over more than is permitted": func(f *sql.Facts, d *postern.Decision) {
			d.Obligations[0].Table.Columns = d.Obligations[0].Table.Columns[1:]
			f.Statements[0].Tables[0].AllColumns, f.Statements[0].Tables[0].Roles["*"] = true, sql.RoleOutput
		},
		"an unknown table": func(f *sql.Facts, d *postern.Decision) {
			f.Statements[0].Tables[0].Name, d.Obligations[0].Table.Table = "x", "x"
		},
		"an unknown column": func(f *sql.Facts, d *postern.Decision) {
			f.Statements[0].Tables[0].Read[0], f.Statements[0].Tables[0].Roles = "x", map[string]sql.ColumnRole{"x": sql.RoleOutput}
			d.Obligations[0].Table.Columns[1].Name = "x"
		},
		"a type of no parts": func(_ *sql.Facts, d *postern.Decision) {
			d.Obligations[0].Table.Columns[1] = postern.ColumnRule{Name: "email", Mask: &postern.MaskRule{Method: postern.MaskToken}}
		},
	} {
		f, d := shows(), decision(redact)
		spoil(f, d)
		if m, err := newMasking(cat, f, d, nil); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}
