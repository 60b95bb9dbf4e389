package mask

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/posterngate/postern/pkg/postern"
)

func writer(t testing.TB, m postern.MaskRule, typ string) Writer {
	t.Helper()
	w, err := NewWriter(&m, typ)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// That a Writer gives what Expression gives on a real server is tested where both meet,
// in the engine.
func TestWriter(t *testing.T) {
	redact := func(v string) postern.MaskRule { return postern.MaskRule{Method: postern.MaskRedact, Value: v} }
	partial := func(first, last int) postern.MaskRule {
		return postern.MaskRule{Method: postern.MaskPartial, KeepFirst: first, KeepLast: last}
	}
	for _, c := range []struct {
		rule             postern.MaskRule
		typ, value, want string
	}{
		{redact("[hidden]"), "text", "alice", "[hidden]"},
		{redact("[hidden]"), "text", "", "[hidden]"},
		{redact("ňáé!"), "character varying(2)", "x", "ňá"},
		{redact("ň"), "character(3)", "abc", "ň  "},
		{redact("ňáéx"), "character(3)", "abc", "ňáé"},
		{redact("xy"), "character", "a", "x"},
		{partial(0, 4), "text", "4111 1111", "*****1111"},
		{partial(0, 4), "text", "4111", "****"},
		{partial(0, 4), "text", "", ""},
		{partial(1, 1), "text", "日本語キ", "日**キ"},
		{partial(2, 0), "character varying(40)", "ňáéx", "ňá**"},
		{partial(1, 1), "character(6)", "abc   ", "a*c   "},
		{partial(1, 1), "character(6)", "a     ", "*     "},
		{partial(1, 1), "character(3)", "   ", "   "},
		{partial(1, 1), "text", "ab\xff\xfe", "a**\xfe"},
		{partial(64, 64), "text", strings.Repeat("x", 300), strings.Repeat("x", 64) + strings.Repeat("*", 172) + strings.Repeat("x", 64)},
	} {
		w := writer(t, c.rule, c.typ)
		if got := string(w.AppendMasked([]byte(">"), []byte(c.value))); got != ">"+c.want || w.Null() {
			t.Errorf("%+v on %s %q = %q, want %q", c.rule, c.typ, c.value, got, c.want)
		}
	}
	for _, typ := range []string{"text", "numeric(12,2)", "jsonb", "text[]"} {
		if w := writer(t, postern.MaskRule{Method: postern.MaskNull}, typ); !w.Null() {
			t.Errorf("null on %s is not null", typ)
		}
	}
	if zero := (Writer{}); !zero.Null() || len(zero.AppendMasked(nil, []byte("secret"))) > 0 {
		t.Error("the zero Writer shows something")
	}
}

func TestWriterFitsWhereExpressionDoes(t *testing.T) {
	for _, m := range []*postern.MaskRule{
		nil, {}, {Method: "blur"}, {Method: postern.MaskToken, Domain: "d"}, {Method: postern.MaskNull}, {Method: postern.MaskRedact, Value: "x"},
		{Method: postern.MaskRedact, Value: "\x00"}, {Method: postern.MaskPartial, KeepLast: 4}, {Method: postern.MaskPartial, KeepFirst: -1},
	} {
		for _, typ := range []string{"text", "character varying", "character varying(20)", "character(3)", "character", "integer", "date", "text[]", "jsonb", "bytea", "sales.mood", "\"char\"", "name"} {
			_, want := Expression(m, "c", typ)
			if _, err := NewWriter(m, typ); (err == nil) != (want == nil) || err != nil && !errors.Is(err, ErrUnfit) {
				t.Errorf("%+v on %s: the writer says %v, the expression %v", m, typ, err, want)
			}
		}
	}
	for _, typ := range []string{"character(x)", "character(0)", "character varying(-1)", "character varying(99999999999999999999)"} {
		if _, err := NewWriter(&postern.MaskRule{Method: postern.MaskRedact, Value: "x"}, typ); !errors.Is(err, ErrUnfit) {
			t.Errorf("type %q: %v", typ, err)
		}
	}
}

func TestWriterAllocatesNothing(t *testing.T) {
	value, dst := []byte("日本語 alice@example.com"), make([]byte, 0, 256)
	for _, m := range []postern.MaskRule{{Method: postern.MaskRedact, Value: "[hidden]"}, {Method: postern.MaskPartial, KeepFirst: 1, KeepLast: 4}} {
		for _, typ := range []string{"text", "character(30)"} {
			w := writer(t, m, typ)
			if n := testing.AllocsPerRun(100, func() { w.AppendMasked(dst, value) }); n != 0 {
				t.Errorf("%s on %s: %v allocations", m.Method, typ, n)
			}
		}
	}
}

// FuzzPartial makes sure that no more characters are shown than are kept.
func FuzzPartial(f *testing.F) {
	f.Add([]byte("4111 1111 1111 1111"), 0, 4, false)
	f.Add([]byte("日本\xff語\xe6"), 1, 2, true)
	f.Fuzz(func(t *testing.T, value []byte, first, last int, padded bool) {
		first, last = first&7, last&7
		typ := "text"
		if padded {
			typ = "character(9)"
		}
		w := writer(t, postern.MaskRule{Method: postern.MaskPartial, KeepFirst: first, KeepLast: last}, typ)
		got := w.AppendMasked(nil, value)
		if padded {
			value = bytes.TrimRight(value, " ")
			got = got[:len(got)-max(0, 9-utf8.RuneCount(value))]
		}
		n := utf8.RuneCount(value)
		hidden := n - first - last
		if hidden <= 0 {
			hidden = n
		}
		if bytes.Count(got, []byte("*")) < hidden || utf8.Valid(value) && utf8.RuneCount(got) != n {
			t.Fatalf("%q became %q, which must hide %d of %d", value, got, hidden, n)
		}
		if !utf8.Valid(value) {
			return
		}
		shown := []rune(string(got))
		for i, r := range []rune(string(value)) {
			if (hidden == n || i >= first && i < n-last) && shown[i] != '*' {
				t.Fatalf("%q became %q: character %d is %q", value, got, i, r)
			}
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	value, dst := []byte("customer.1234@example.com"), make([]byte, 0, 256)
	for _, m := range []postern.MaskRule{{Method: postern.MaskRedact, Value: "[hidden]"}, {Method: postern.MaskPartial, KeepLast: 4}} {
		b.Run(string(m.Method), func(b *testing.B) {
			w := writer(b, m, "text")
			b.ReportAllocs()
			for b.Loop() {
				w.AppendMasked(dst, value)
			}
		})
	}
}
