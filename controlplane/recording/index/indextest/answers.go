package indextest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// A model knows what was committed, and answers by looking at all of it.
type model struct {
	rnd      *rand.Rand
	sessions map[string]*typesv1.Session
	found    []index.Found
}

var (
	columns = []string{"sales.customers.email", "sales.customers.id", "sales.orders.email", "sales.orders.id", "audit.log", "sales.customers_old.email"}
	nouns   = []string{"customers", "orders", "Orders_2", "grüße", "log", "customer"}
)

// fill commits sessions of several days, some of which have statements that were held.
func fill(t *testing.T, x index.Index) *model {
	m := &model{rnd: rand.New(rand.NewPCG(1, 2)), sessions: map[string]*typesv1.Session{}}
	for s := range 12 {
		var held []index.Statement
		number := uint64(0)
		for n := range uint32(4) {
			u := update(fmt.Sprintf("s-%02d", s), n, s*7*60)
			u.Session.Subject, u.Session.Resource, u.Session.Account = pick(m, "alice", "bob"), pick(m, "warehouse", "shop"), "app"
			if old := m.sessions[u.Session.GetId()]; old != nil {
				u.Session.Subject, u.Session.Resource = old.GetSubject(), old.GetResource()
			}
			u.Session.LastTime = timestamppb.New(u.Session.GetStartTime().AsTime().Add(time.Duration(n+1) * 90 * time.Second))
			if n == 3 && s != 0 && s != 4 {
				u.Session.EndTime = u.Session.LastTime
			}
			u.Earlier = number
			u.Statements = append(u.Statements, m.letThrough(u, held)...)
			held = nil
			for range 3 + m.rnd.IntN(20) {
				number++
				st := m.statement(u, number, n)
				if st.Verdict == postern.VerdictHold {
					held = append(held, st)
				}
				u.Statements = append(u.Statements, st)
				if st.Verdict == postern.VerdictAllow && m.rnd.IntN(5) > 0 {
					u.Outcomes = append(u.Outcomes, index.Outcome{Number: number, Verdict: postern.VerdictAllow, Rows: int64(m.rnd.IntN(9)), Bytes: 7, Affected: -1, Tag: "SELECT"})
				}
			}
			m.add(u)
			must(t, x.Commit(context.Background(), u))
		}
	}
	slices.SortFunc(m.found, func(a, b index.Found) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.Session.GetId(), a.Session.GetId()), cmp.Compare(b.Number, a.Number))
	})
	return m
}

func pick[T any](m *model, of ...T) T { return of[m.rnd.IntN(len(of))] }

func (m *model) statement(u *index.Update, number uint64, chunk uint32) index.Statement {
	st := index.Statement{
		Number: number, Seq: number * 2, Rule: "r", Verdict: pick(m, postern.VerdictAllow, postern.VerdictAllow, postern.VerdictDeny, postern.VerdictHold),
		Time: u.Session.GetStartTime().AsTime().Add(time.Duration(chunk)*90*time.Second + time.Duration(m.rnd.IntN(90_000_000))*time.Microsecond),
		Text: fmt.Sprintf("SELECT x FROM sales.%s WHERE y = %d AND z = 'the %s'", pick(m, nouns...), m.rnd.IntN(6), pick(m, nouns...)),
	}
	if st.Verdict == postern.VerdictAllow {
		st.Touched = m.touched()
	}
	return st
}

func (m *model) touched() []record.Touch {
	var out []record.Touch
	for _, c := range columns {
		if m.rnd.IntN(3) == 0 {
			out = append(out, record.Touch{Column: c, Role: pick(m, record.RoleOutput, record.RolePredicate, record.RoleOutput|record.RolePredicate, record.RoleWrite), Mask: pick(m, "", "email")})
		}
	}
	return out
}

// letThrough are statements that were held in the chunk before.
func (m *model) letThrough(u *index.Update, held []index.Statement) (out []index.Statement) {
	for _, h := range held {
		if m.rnd.IntN(3) == 0 {
			continue // still waits
		}
		h.Verdict, h.Time, h.Touched = postern.VerdictAllow, h.Time.Add(90*time.Second), m.touched()
		out = append(out, h)
		u.Outcomes = append(u.Outcomes, index.Outcome{Number: h.Number, Verdict: postern.VerdictAllow, Rows: 1, Affected: -1})
	}
	return out
}

func (m *model) add(u *index.Update) {
	m.sessions[u.Session.GetId()] = u.Session
	for i := range m.found {
		if m.found[i].Session.GetId() == u.Session.GetId() {
			m.found[i].Session = u.Session
		}
	}
	for _, s := range u.Statements {
		at := slices.IndexFunc(m.found, func(f index.Found) bool { return f.Session.GetId() == u.Session.GetId() && f.Number == s.Number })
		if at < 0 {
			at = len(m.found)
			m.found = append(m.found, index.Found{Session: u.Session})
		}
		m.found[at].Statement = s
	}
	for i := range u.Outcomes {
		for j := range m.found {
			if f := &m.found[j]; f.Session.GetId() == u.Session.GetId() && f.Number == u.Outcomes[i].Number {
				f.Outcome = &u.Outcomes[i]
			}
		}
	}
}

func usesColumn(s *index.Statement, name string, roles record.Role) (role record.Role, mask string, ok bool) {
	for _, t := range s.Touched {
		if t.Column == name {
			role, mask, ok = role|t.Role, t.Mask, true
		} else if index.RelationOf(t.Column) == name {
			role, ok = role|t.Role, true
		}
	}
	return role, mask, ok && (roles == 0 || role&roles != 0)
}

func hasWords(text, query string) bool {
	terms, prefix := index.Terms(query)
	words := index.Words(text)
	for i, term := range terms {
		if !slices.ContainsFunc(words, func(w string) bool { return w == term || prefix[i] && strings.HasPrefix(w, term) }) {
			return false
		}
	}
	return true
}

func (m *model) search(q index.Query) (out []string) {
	for _, f := range m.found {
		verdict := f.Verdict
		if f.Outcome != nil {
			verdict = f.Outcome.Verdict
		}
		_, _, uses := usesColumn(&f.Statement, q.Column, q.Roles)
		switch {
		case q.Subject != "" && f.Session.GetSubject() != q.Subject, q.Resource != "" && f.Session.GetResource() != q.Resource,
			q.Session != "" && f.Session.GetId() != q.Session, q.Verdict != nil && verdict != *q.Verdict,
			!q.Since.IsZero() && f.Time.Before(q.Since), !q.Until.IsZero() && !f.Time.Before(q.Until),
			q.Text != "" && !hasWords(f.Text, q.Text), q.Column != "" && !uses:
		default:
			out = append(out, name(f))
		}
	}
	return out
}

func name(f index.Found) string {
	return fmt.Sprintf("%s/%d %s %s %v %v", f.Session.GetId(), f.Number, f.Text, f.Time, f.Touched, f.Outcome != nil)
}

// when is a time that now and then lies at an edge of what there is.
func (m *model) when() time.Time {
	switch m.rnd.IntN(3) {
	case 0:
		return time.Time{}
	case 1:
		return m.found[m.rnd.IntN(len(m.found))].Time
	}
	return began.Add(time.Duration(m.rnd.IntN(80*3600)) * time.Second)
}

func search(t *testing.T, x index.Index) {
	m := fill(t, x)
	deny := postern.VerdictDeny
	for range 80 {
		q := index.Query{
			Subject: pick(m, "", "", "alice", "nobody"), Resource: pick(m, "", "", "shop"), Session: pick(m, "", "", "", "s-03"),
			Text: pick(m, "", "customers", "CUST*", "select orders_2", "grüße 3", "nothing", "y* 4 from", "orders the customer*", "3"), Column: pick(m, append(columns, "", "", "", "sales.customers")...),
			Since: m.when(), Until: m.when(), Verdict: pick(m, nil, nil, &deny), Limit: 1 + m.rnd.IntN(40),
		}
		if q.Column != "" {
			q.Roles = pick(m, 0, record.RolePredicate, record.RoleOutput|record.RoleWrite)
		}
		want := m.search(q)
		var got []string
		for page := 0; ; page++ {
			list, err := x.Search(context.Background(), q)
			must(t, err)
			for _, f := range list {
				got = append(got, name(f))
				if f.Session.GetSubject() != m.sessions[f.Session.GetId()].GetSubject() {
					t.Errorf("%s has the session of another", name(f))
				}
			}
			if len(list) < q.Limit {
				break
			}
			last := list[len(list)-1]
			q.Before = &index.Spot{Time: last.Time, Session: last.Session.GetId(), Number: last.Number}
		}
		if !slices.Equal(got, want) {
			q.Before = nil
			t.Fatalf("%+v:\ngot  %d %q\nwant %d %q", q, len(got), got, len(want), want)
		}
	}
	if _, err := x.Search(context.Background(), index.Query{Text: "!?", Limit: 1}); err == nil {
		t.Error("a text without a word was searched for")
	}
}

func (m *model) who(q index.Who) []string {
	uses := map[string]*index.Use{}
	masks := map[string]map[string]bool{}
	for _, f := range m.found {
		role, mask, ok := usesColumn(&f.Statement, q.Name, q.Roles)
		switch {
		case !ok, !q.Since.IsZero() && f.Time.Before(q.Since), !q.Until.IsZero() && !f.Time.Before(q.Until),
			q.Subject != "" && f.Session.GetSubject() != q.Subject, q.Resource != "" && f.Session.GetResource() != q.Resource:
			continue
		}
		id := f.Session.GetId()
		u := uses[id]
		if u == nil {
			u = &index.Use{Session: f.Session, First: f.Time, Last: f.Time}
			uses[id], masks[id] = u, map[string]bool{}
		}
		if f.Time.Before(u.First) {
			u.First = f.Time
		}
		if f.Time.After(u.Last) {
			u.Last = f.Time
		}
		u.Roles |= role
		u.Statements++
		masks[id][mask] = true
	}
	list := slices.SortedFunc(maps.Values(uses), func(a, b *index.Use) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(b.Session.GetId(), a.Session.GetId()))
	})
	var out []string
	for _, u := range list {
		if strings.Count(q.Name, ".") == 2 {
			u.Masks = slices.Sorted(maps.Keys(masks[u.Session.GetId()]))
		}
		out = append(out, useName(*u))
	}
	return out
}

func useName(u index.Use) string {
	return fmt.Sprintf("%s %d %q %s %s %d", u.Session.GetId(), u.Roles, u.Masks, u.First, u.Last, u.Statements)
}

func who(t *testing.T, x index.Index) {
	m := fill(t, x)
	for range 100 {
		q := index.Who{Name: pick(m, append(columns, "sales.customers", "sales.orders")...), Subject: pick(m, "", "", "bob"), Resource: pick(m, "", "", "warehouse"),
			Since: m.when(), Until: m.when(), Limit: 1 + m.rnd.IntN(12)}
		q.Roles = pick(m, 0, 0, record.RolePredicate)
		want := m.who(q)
		var got []string
		for {
			list, err := x.Who(context.Background(), q)
			must(t, err)
			for _, u := range list {
				got = append(got, useName(u))
			}
			if len(list) < q.Limit {
				break
			}
			q.Before = &index.Place{Start: list[len(list)-1].Last, ID: list[len(list)-1].Session.GetId()}
		}
		if !slices.Equal(got, want) {
			q.Before = nil
			t.Fatalf("%+v:\ngot  %q\nwant %q", q, got, want)
		}
	}
}

// whoWasThere asks for sessions as a whole.
func whoWasThere(t *testing.T, x index.Index) {
	ctx := context.Background()
	for i := range 4 {
		u := update(fmt.Sprintf("s-%d", i), 0, i*60)
		u.Session.LastTime = timestamppb.New(u.Session.GetStartTime().AsTime().Add(30 * time.Minute))
		must(t, x.Commit(ctx, u))
	}
	at := func(m int) time.Time { return began.Add(time.Duration(m) * time.Minute) }
	for _, c := range []struct {
		q    index.Who
		want string
	}{
		{index.Who{}, "3210"},
		{index.Who{Limit: 2}, "32"},
		{index.Who{Before: &index.Place{Start: at(150), ID: "s-2"}}, "10"},
		{index.Who{Since: at(30), Until: at(120)}, "10"},
		{index.Who{Since: at(90)}, "321"},
		{index.Who{Since: at(91)}, "32"},
		{index.Who{Resource: "shop"}, ""},
	} {
		if c.q.Limit == 0 {
			c.q.Limit = index.MaxPage
		}
		list, err := x.Who(ctx, c.q)
		must(t, err)
		got := ""
		for _, u := range list {
			got += u.Session.GetId()[2:]
			if u.Statements != 4 || !u.First.Equal(u.Session.GetStartTime().AsTime()) || u.Last.Sub(u.First) != 30*time.Minute {
				t.Errorf("%+v", u)
			}
		}
		if got != c.want {
			t.Errorf("%+v: %s, want %s", c.q, got, c.want)
		}
	}
}

func usage(t *testing.T, x index.Index) {
	ctx := context.Background()
	for i, c := range []struct{ subject, resource, account, address, doubt string }{
		{"alice", "warehouse", "app", "10.0.0.1:1", ""}, {"alice", "warehouse", "app", "10.0.0.1:2", ""}, {"alice", "shop", "app", "[::1]:1", ""},
		{"bob", "app", "own", "odd", ""}, {"bob", "app", "own", "odd", "the grant is carol's"},
	} {
		u := update(fmt.Sprintf("s-%d", i), 0, i*60)
		u.Session.Subject, u.Session.Resource, u.Session.Account, u.Session.ClientAddress, u.Session.Workload, u.Session.Doubt = c.subject, c.resource, c.account, c.address, "", c.doubt
		must(t, x.Commit(ctx, u))
	}
	at := func(h int) time.Time { return began.Add(time.Duration(h) * time.Hour) }
	for _, c := range []struct {
		q    index.Usage
		want []string
	}{
		{index.Usage{}, []string{"bob app own odd 1 4 8 doubted", "bob app own odd 1 4 8", "alice shop app ::1 1 4 8", "alice warehouse app 10.0.0.1 2 8 8"}},
		{index.Usage{Name: "app"}, []string{"bob app own odd 1 4 8 doubted", "bob app own odd 1 4 8", "alice shop app ::1 1 4 8", "alice warehouse app 10.0.0.1 2 8 8"}},
		{index.Usage{Account: "app"}, []string{"alice shop app ::1 1 4 8", "alice warehouse app 10.0.0.1 2 8 8"}},
		{index.Usage{Subject: "bob"}, []string{"bob app own odd 1 4 8 doubted", "bob app own odd 1 4 8"}},
		{index.Usage{Name: "alice", Since: at(2)}, []string{"alice shop app ::1 1 4 8"}},
		{index.Usage{Until: at(1)}, []string{"alice warehouse app 10.0.0.1 1 4 8"}},
		{index.Usage{Name: "' OR 1=1 --"}, nil},
	} {
		list, err := x.Usage(ctx, c.q)
		must(t, err)
		var got []string
		for _, u := range list {
			text := fmt.Sprintf("%s %s %s %s %d %d %d", u.Subject, u.Resource, u.Account, u.ClientHost, u.Sessions, u.Statements, u.Rows*4/u.Sessions)
			if u.Doubted {
				text += " doubted"
			}
			got = append(got, text)
			if u.Last.Before(u.First) || u.Task != "sales-report" || u.Node != "n1" || u.ClientProgram != "psql" {
				t.Errorf("%+v", u)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v:\ngot  %q\nwant %q", c.q, got, c.want)
		}
	}
}

// takers are told once each, by the groups that they had.
func takers(t *testing.T, x index.Index) {
	for i, c := range []struct {
		subject, workload, task, resource, doubt string
		groups                                   []string
	}{
		{"alice", "", "report", "warehouse", "", []string{"analysts", "leads"}}, {"alice", "", "report", "warehouse", "", []string{"leads"}},
		{"bot", "bot", "report", "warehouse", "", nil}, {"bot", "bot", "report", "warehouse", "", nil}, {"bob", "", "report", "shop", "", nil},
		{"carol", "", "report", "warehouse", "the grant is bob's", nil}, {"dave", "", "load", "warehouse", "", nil},
	} {
		u := update(fmt.Sprintf("s-%d", i), 0, i*60)
		u.Session.Subject, u.Session.Workload, u.Session.Task, u.Session.Resource, u.Session.Groups, u.Session.Doubt = c.subject, c.workload, c.task, c.resource, c.groups, c.doubt
		must(t, x.Commit(context.Background(), u))
	}
	raw := update(string(record.RawID("s-0")), 0, 500)
	raw.Session.Subject, raw.Session.Task = "alice", "report"
	must(t, x.Commit(context.Background(), raw))
	for _, c := range []struct{ task, resource, want string }{
		{"report", "", "bob/[] 4h0m0s, bot/bot[] 3h0m0s, alice/[leads] 1h0m0s, alice/[analysts leads] 0s"},
		{"report", "shop", "bob/[] 4h0m0s"}, {"load", "", "dave/[] 6h0m0s"}, {"none", "", ""},
	} {
		list, err := x.Takers(context.Background(), c.task, c.resource)
		must(t, err)
		var got []string
		for _, w := range list {
			got = append(got, fmt.Sprintf("%s/%s%v %s", w.Subject, w.Workload, w.Groups, w.Last.Sub(began)))
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s of %s: %q, want %s", c.task, c.resource, got, c.want)
		}
	}
}

// forget lets days go, but not what is held or lives.
func forget(t *testing.T, x index.Index) {
	ctx := context.Background()
	m := fill(t, x)
	if err := x.Hold(ctx, "none", "x"); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("hold nothing: %v", err)
	}
	must(t, x.Hold(ctx, "s-02", "case 7"))
	must(t, x.Hold(ctx, "s-03", "case 7"))
	must(t, x.Hold(ctx, "s-03", ""))
	if s, err := x.Session(ctx, "s-02"); err != nil || s.GetLegalHold() != "case 7" {
		t.Errorf("%v, %v", s, err)
	}
	before := began.Add(72 * time.Hour) // its day before is forgotten as a whole
	old, err := x.Old(ctx, before)
	must(t, err)
	var ids []postern.SessionID
	gone := map[string]bool{}
	for _, s := range old {
		if index.DayOf(s.GetStartTime().AsTime()) >= index.DayOf(before) || s.GetEndTime() == nil || s.GetLegalHold() != "" {
			t.Errorf("%v is not old", s)
		}
		ids = append(ids, postern.SessionID(s.GetId()))
		gone[s.GetId()] = true
	}
	if len(ids) != 6 || gone["s-02"] || gone["s-00"] || !gone["s-03"] {
		t.Fatalf("old: %v", ids)
	}
	went, err := x.Forget(ctx, append(slices.Clone(ids), "s-02", "s-00", "none")) // the latter are held, or live
	slices.Sort(went)
	slices.Sort(ids)
	if err != nil || !slices.Equal(went, ids) {
		t.Errorf("%v went, %v", went, err)
	}
	if went, err := x.Forget(ctx, ids); err != nil || len(went) != 0 {
		t.Errorf("%v went, %v", went, err)
	}
	m.found = slices.DeleteFunc(m.found, func(f index.Found) bool { return gone[f.Session.GetId()] })
	all, err := x.Search(ctx, index.Query{Limit: index.MaxPage})
	must(t, err)
	var got []string
	for _, f := range all {
		got = append(got, name(f))
	}
	if want := m.search(index.Query{}); !slices.Equal(got, want) {
		t.Errorf("left:\ngot  %q\nwant %q", got, want)
	}
	for _, id := range ids {
		h, err := x.Head(ctx, id)
		if err != nil || !reflect.DeepEqual(h, index.Head{}) {
			t.Errorf("head of %s: %+v, %v", id, h, err)
		}
	}
	// A session of a day that was forgotten may still come.
	late := update("late", 0, 0)
	late.Statements = []index.Statement{{Number: 1, Seq: 2, Time: began, Text: "SELECT late", Verdict: postern.VerdictAllow}}
	must(t, x.Commit(ctx, late))
	if list, err := x.Search(ctx, index.Query{Text: "late", Limit: 2}); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}
