package pgtree

import (
	"errors"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

func tree(t testing.TB, text string) []byte {
	t.Helper()
	parsed, err := pg.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(parsed)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSame(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"select 1", "SELECT  /* far */  1", true},
		{"select a, b from t where c = 'x'", "SELECT a,b FROM t WHERE c='x'", true},
		{"select 1", "select 2", false},
		{"select 1", "select '1'", false},
		{"select a from t", "select a from only t", false},
		{"select a from t", "select a from t t", false},
		{"select 1", "select 1; select 1", false},
		{"select", "select 1", false},
	} {
		got, err := Same(tree(t, c.a), tree(t, c.b))
		if err != nil || got != c.want {
			t.Errorf("Same(%q, %q) = %v, %v; want %v", c.a, c.b, got, err, c.want)
		}
	}
}

func TestSurvey(t *testing.T) {
	k, err := NewKnown("SelectStmt: target_list limit_option op\nResTarget: val name\nA_Const: ival\nInteger: ival\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text     string
		messages int
		unknown  string
	}{
		{"SELECT 1, 2 AS x", 7, ""},
		{"SELECT 1 LIMIT 1", 6, "SelectStmt.limit_count"},
		{"SELECT 'a'", 4, "A_Const.sval"},
		{"SELECT a", 4, "ColumnRef"},
	} {
		n, unknown, err := k.Survey(tree(t, c.text))
		if err != nil || n != c.messages || unknown != c.unknown {
			t.Errorf("%s: %d messages, unknown %q, %v; want %d, %q", c.text, n, unknown, err, c.messages, c.unknown)
		}
	}
}

func TestKnownRefusesWrongNames(t *testing.T) {
	for _, text := range []string{"Nope: a", "SelectStmt: nope"} {
		if _, err := NewKnown(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestBrokenTrees(t *testing.T) {
	k, _ := NewKnown("")
	for name, b := range map[string][]byte{
		"tag":     {0xff},
		"length":  {0x12, 0x05, 0x01},
		"unknown": {0x7a, 0x00},
		"type":    {0x10, 0x01}, // stmts as a number
		"deep":    []byte(deep()),
	} {
		if _, _, err := k.Survey(b); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: Survey says %v", name, err)
		}
		if _, err := Same(b, b); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: Same says %v", name, err)
		}
	}
}

// deep is a tree of lists in lists.
func deep() string {
	n := &pg.Node{}
	for range 9000 {
		n = &pg.Node{Node: &pg.Node_List{List: &pg.List{Items: []*pg.Node{n}}}}
	}
	b, err := proto.Marshal(&pg.ParseResult{Stmts: []*pg.RawStmt{{Stmt: n}}})
	if err != nil {
		panic(err)
	}
	return string(b) + strings.Repeat("\x12", 1)
}

func FuzzTree(f *testing.F) {
	f.Add(tree(f, "SELECT a.*, 1 FROM t a WHERE b = 'x'"))
	k, err := NewKnown("SelectStmt: target_list")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, err := k.Survey(b)
		same, err2 := Same(b, b)
		if (err == nil) != (err2 == nil) || err2 == nil && !same {
			t.Errorf("Survey says %v, Same %v, %v", err, same, err2)
		}
	})
}
