package recording_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// TestTextsOfOneJudgement shows that each execution is found by what it said itself, and by
// nothing that a mask hides, though all refer to what was judged once.
func TestTextsOfOneJudgement(t *testing.T) {
	h := open(t, t.TempDir())
	p := newTape(t, "s-1")
	p.open()
	open, masked := new(int), new(int)
	for i := range 100 {
		n := uint64(2*i + 1)
		p.add(record.Event{Kind: record.KindIntent, Statement: n, Text: fmt.Sprintf("SELECT id FROM sales.orders WHERE id = %d AND note = 'word_%d'", i, i%50), Verdict: postern.VerdictAllow, Rule: "r",
			Touched: []record.Touch{{Column: "sales.orders.id", Role: record.RoleOutput}}, Shape: open})
		p.add(record.Event{Kind: record.KindFinished, Statement: n, Tag: "SELECT 1"})
		p.add(record.Event{Kind: record.KindIntent, Statement: n + 1, Text: fmt.Sprintf("SELECT id FROM sales.customers WHERE email = 'secret_%d'", i), Verdict: postern.VerdictAllow, Rule: "r",
			Touched: []record.Touch{{Column: "sales.customers.email", Role: record.RolePredicate, Mask: "email"}}, Shape: masked})
		p.add(record.Event{Kind: record.KindFinished, Statement: n + 1, Tag: "SELECT 0"})
	}
	p.cut(0)
	shipAll(t, h, p)
	ctx := context.Background()
	for _, c := range []struct {
		text string
		want []uint64
	}{
		{"word_7", []uint64{115, 15}},
		{"orders word_7 57", []uint64{115}},
		{"ORDERS Word_4* 4*", []uint64{99, 97, 95, 93, 91, 89, 87, 85, 83, 81, 9}},
		{"customers word_7", nil},
		{"secret_7", nil},
		{"secret*", nil},
	} {
		found, err := h.index.Search(ctx, index.Query{Text: c.text, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for _, f := range found {
			got = append(got, f.Number)
			if want := fmt.Sprintf("SELECT id FROM sales.orders WHERE id = %d AND note = 'word_%d'", f.Number/2, f.Number/2%50); f.Text != want {
				t.Errorf("statement %d says %q", f.Number, f.Text)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s is found in %d, want %d", c.text, got, c.want)
		}
	}
	rows, err := h.index.Statements(ctx, "s-1", 0, index.MaxPage)
	if err != nil || len(rows) != 200 || rows[199].Text != "SELECT id FROM sales.customers WHERE email = ?" {
		t.Errorf("%d statements, %v", len(rows), err)
	}
}
