package indextest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// What busy commits: more texts than a search looks up one by one.
const sessionsOfBusy, chunksOfBusy, statementsOfBusy = 3, 26, 65

// busy commits what applications do in two minutes: many statements, each of a text of
// its own, nearly all let through.
func busy(t *testing.T, x index.Index) *model {
	m := &model{}
	for n := range uint32(chunksOfBusy) {
		for s := range sessionsOfBusy {
			u := update(fmt.Sprintf("s-%d", s), n, 0)
			u.Session.LastTime = timestamppb.New(began.Add(time.Duration(n+1) * 4 * time.Second))
			u.Earlier = uint64(n * statementsOfBusy)
			for i := range statementsOfBusy {
				st := index.Statement{Number: u.Earlier + uint64(i) + 1, Rule: "r", Verdict: postern.VerdictAllow,
					Time:    began.Add(time.Duration(n)*4*time.Second + time.Duration(i)*57*time.Millisecond + time.Duration(s)),
					Text:    fmt.Sprintf("SELECT often, rare_%d_%d", s, int(n)*statementsOfBusy+i),
					Touched: []record.Touch{{Column: "a.b.c", Role: record.RoleOutput}}}
				st.Seq = 2 * st.Number
				if i%2 == 0 { // of one form
					st.Text = fmt.Sprintf("SELECT often, 'rare_%d_%d'", s, int(n)*statementsOfBusy+i)
				}
				if i%3 == 1 {
					st.Touched = []record.Touch{{Column: "a.b.d", Role: record.RoleWrite}}
				}
				if i == 5 {
					st.Verdict = postern.VerdictDeny
				} else {
					u.Outcomes = append(u.Outcomes, index.Outcome{Number: st.Number, Verdict: postern.VerdictAllow, Rows: int64(i), Affected: -1, Tag: "SELECT"})
				}
				u.Statements = append(u.Statements, st)
				m.found = append(m.found, index.Found{Session: u.Session, Row: index.Row{Statement: st}})
			}
			must(t, x.Commit(context.Background(), u))
		}
	}
	slices.SortFunc(m.found, func(a, b index.Found) int {
		return spotOf(&b).compare(spotOf(&a))
	})
	return m
}

// busyHour asks of so many statements that no answer can be had of a few packs.
func busyHour(t *testing.T, x index.Index) {
	ctx := context.Background()
	m := busy(t, x)
	allow, deny := postern.VerdictAllow, postern.VerdictDeny
	for _, c := range []struct {
		q    index.Query
		keep func(f *index.Found) bool
	}{
		{index.Query{Limit: 1001}, func(*index.Found) bool { return true }},
		{index.Query{Limit: 500, Session: "s-1", Text: "often"}, func(f *index.Found) bool { return f.Session.GetId() == "s-1" }},
		{index.Query{Limit: 70, Text: "rare_2_10*", Verdict: &allow}, func(f *index.Found) bool {
			return hasWords(f.Text, "rare_2_10*") && f.Verdict == allow
		}},
		{index.Query{Limit: 1000, Text: "often select", Column: "a.b.d", Since: began.Add(7 * time.Second), Until: began.Add(80 * time.Second)}, func(f *index.Found) bool {
			return f.Touched[0].Column == "a.b.d" && !f.Time.Before(began.Add(7*time.Second)) && f.Time.Before(began.Add(80*time.Second))
		}},
		{index.Query{Limit: 50, Verdict: &deny}, func(f *index.Found) bool { return f.Verdict == deny }},
	} {
		var got, want []string
		for i := range m.found {
			if f := &m.found[i]; c.keep(f) {
				want = append(want, fmt.Sprint(f.Session.GetId(), f.Number, f.Text, f.Touched))
			}
		}
		for q := c.q; ; {
			list, err := x.Search(ctx, q)
			must(t, err)
			for _, f := range list {
				got = append(got, fmt.Sprint(f.Session.GetId(), f.Number, f.Text, f.Touched))
			}
			if len(list) < q.Limit {
				break
			}
			last := list[len(list)-1]
			q.Before = &index.Spot{Time: last.Time, Session: last.Session.GetId(), Number: last.Number}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: got %d, want %d", c.q, len(got), len(want))
		}
	}
	next := uint64(1)
	for more := true; more; {
		list, err := x.Statements(ctx, "s-2", next-1, 333)
		must(t, err)
		for _, r := range list {
			if r.Number != next || r.Seq != 2*next || (r.Outcome == nil) != (r.Verdict == deny) {
				t.Fatalf("statement %d, want %d: %+v", r.Number, next, r)
			}
			next++
		}
		more = len(list) == 333
	}
	if next != chunksOfBusy*statementsOfBusy+1 {
		t.Errorf("%d statements", next-1)
	}
}

// manyWords says more in one chunk than a database may take as the words of one row.
func manyWords(t *testing.T, x index.Index) {
	const statements, words = 300, 700
	u := update("s-0", 0, 0)
	for i := range statements {
		var said strings.Builder
		for n := range words {
			fmt.Fprintf(&said, "w%d_%d ", i, n)
		}
		number := uint64(i + 1)
		u.Statements = append(u.Statements, index.Statement{Number: number, Seq: number, Time: began, Verdict: postern.VerdictAllow, Text: "SELECT '" + said.String()[:200] + "', '" + said.String()[200:] + "'"})
		u.Outcomes = append(u.Outcomes, index.Outcome{Number: number, Verdict: postern.VerdictAllow})
	}
	must(t, x.Commit(context.Background(), u))
	for _, i := range []int{0, 7, statements - 1} {
		found, err := x.Search(context.Background(), index.Query{Text: fmt.Sprintf("w%d_3 select w%d_40*", i, i), Limit: 10})
		must(t, err)
		if len(found) != 1 || found[0].Text != u.Statements[i].Text {
			t.Errorf("statement %d: %d are found", i+1, len(found))
		}
	}
}

type place struct {
	at     time.Time
	id     string
	number uint64
}

func spotOf(f *index.Found) place { return place{f.Time, f.Session.GetId(), f.Number} }

func (p place) compare(o place) int {
	switch {
	case !p.at.Equal(o.at):
		return p.at.Compare(o.at)
	case p.id != o.id:
		if p.id < o.id {
			return -1
		}
		return 1
	}
	return int(p.number) - int(o.number)
}
