package index

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestCut(t *testing.T) {
	for _, c := range []struct{ text, form, literals string }{
		{"SELECT abalance FROM pgbench_accounts WHERE aid = 48213;", "SELECT abalance FROM pgbench_accounts WHERE aid = _;", "48213"},
		{"SELECT 1", "SELECT _", "1"},
		{"SELECT 1.5e3+x2, t3.y, '', E'a''b 7' FROM _t", "SELECT _+x2, t3.y, _, E__ FROM _t", "1.5e3|''|'a'|'b 7'"},
		{"SELECT $1, $2", "", ""},
		{"SELECT é1, 1é, 'ü'", "SELECT é1, _, _", "1é|'ü'"},
		{"SELECT 2 -- it's", "SELECT _ -- it's", "2"},
		{"SELECT 'has a \x1f'", "", ""},
		{"", "", ""},
	} {
		form, literals := cut(nil, nil, c.text)
		if f, l := strings.ReplaceAll(string(form), gap, "_"), strings.ReplaceAll(string(literals), gap, "|"); f != c.form || l != c.literals {
			t.Errorf("%q is %q and %q", c.text, f, l)
		}
	}
}

// FuzzCut shows that nothing of a text is lost, and none of its words.
func FuzzCut(f *testing.F) {
	f.Add("SELECT 1.5e3+x2, t3.y, '', E'a''b 7', $1 FROM t WHERE é1 = 1é AND x = \x1f")
	f.Add("'' 1")
	f.Fuzz(func(t *testing.T, text string) {
		form, literals := cut(nil, nil, text)
		if len(literals) == 0 {
			if len(form) > 0 {
				t.Errorf("%q has the form %q and no literals", text, form)
			}
			return
		}
		if got := Fill(string(form), string(literals)); got != text {
			t.Errorf("%q is filled as %q", text, got)
		}
		seen := func(texts ...string) map[string]bool {
			m := map[string]bool{}
			for _, one := range texts {
				words(nil, m, one, len(text)+1, nil)
			}
			return m
		}
		if got, want := seen(string(form), string(literals)), seen(text); !maps.Equal(got, want) {
			t.Errorf("%q has the words %q, and cut %q", text, slices.Collect(maps.Keys(want)), slices.Collect(maps.Keys(got)))
		}
	})
}
