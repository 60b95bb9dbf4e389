package index_test

import (
	"errors"
	"fmt"
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

var packed = time.Date(2026, 1, 2, 15, 4, 5, 678000, time.UTC)

// chunkOf has one statement of each kind that may come, and its outcome.
func chunkOf() *index.Update {
	u := &index.Update{Session: &typesv1.Session{Id: "s", StartTime: timestamppb.New(packed)}, Earlier: 10}
	add := func(number uint64, verdict postern.Verdict, text string) *index.Statement {
		u.Statements = append(u.Statements, index.Statement{Number: number, Seq: 2 * number, Time: packed.Add(time.Duration(number%3) * time.Second), Text: text,
			Verdict: verdict, Rule: "r", Touched: []record.Touch{{Column: "a.b.c", Role: record.RoleOutput}}})
		return &u.Statements[len(u.Statements)-1]
	}
	end := func(number uint64, verdict postern.Verdict) *index.Outcome {
		u.Outcomes = append(u.Outcomes, index.Outcome{Number: number, Verdict: verdict, Rows: int64(number), Bytes: 1 << 40, Affected: -1, Tag: "SELECT 1", Duration: 3 * time.Millisecond})
		return &u.Outcomes[len(u.Outcomes)-1]
	}
	end(7, postern.VerdictAllow)             // of a chunk before
	add(9, postern.VerdictAllow, "let")      // it was held there
	add(11, postern.VerdictAllow, "select")  // as most
	add(12, postern.VerdictDeny, "drop")     // never ends
	add(13, postern.VerdictHold, "delete")   // judged twice in this chunk
	add(14, postern.VerdictAllow, "select")  // ends in a later one
	add(13, postern.VerdictAllow, "")        //
	add(15, postern.VerdictHold, "truncate") // people say no
	add(17, postern.VerdictAllow, "select").Reason = "x"
	add(16, postern.VerdictAllow, "")
	end(9, postern.VerdictAllow)
	end(17, postern.VerdictAllow).Code = "57014"
	end(15, postern.VerdictDeny)
	end(16, postern.VerdictAllow)
	end(13, postern.VerdictAllow)
	end(11, postern.VerdictAllow).Rows = 99 // the last one counts
	end(11, postern.VerdictAllow)
	return u
}

// TestPack shows that only what cannot change any more is packed, and how it was.
func TestPack(t *testing.T) {
	u := chunkOf()
	d, err := index.DigestOf(u)
	if err != nil {
		t.Fatal(err)
	}
	var rows, ended []uint64
	for _, i := range d.Rows {
		rows = append(rows, u.Statements[i].Number)
	}
	for _, i := range d.Ended {
		ended = append(ended, u.Outcomes[i].Number)
	}
	if !slices.Equal(rows, []uint64{9, 12, 13, 14, 13, 15}) || !slices.Equal(ended, []uint64{7, 9, 15, 13}) {
		t.Errorf("rows of their own: %v, %v", rows, ended)
	}
	if p := d.Pack; p.First != 11 || p.Last != 17 || !p.Begin.Equal(packed.Add(time.Second)) || !p.End.Equal(packed.Add(2*time.Second)) {
		t.Errorf("%+v", p)
	}
	var got []index.Packed
	if err := index.Unpack(d.Pack.Body, func(p *index.Packed) error { got = append(got, *p); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 {
		t.Fatalf("%d statements", len(got))
	}
	for i, number := range []uint64{11, 16, 17} {
		at := slices.IndexFunc(u.Statements, func(s index.Statement) bool { return s.Number == number })
		end := len(u.Outcomes) - 1
		for u.Outcomes[end].Number != number {
			end--
		}
		want := index.Packed{Statement: u.Statements[at], Outcome: u.Outcomes[end]}
		if want.Text != "" {
			want.Wording = &d.Wordings[d.Of[at]].ID
		}
		want.Text, want.Touched = "", nil
		if !reflect.DeepEqual(got[i], want) {
			t.Errorf("statement %d:\ngot  %+v\nwant %+v", number, got[i], want)
		}
	}
	stop := errors.New("stop")
	if err := index.Unpack(d.Pack.Body, func(*index.Packed) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the error of fn: %v", err)
	}
	for i := range d.Pack.Body {
		if err := index.Unpack(d.Pack.Body[:i], func(*index.Packed) error { return nil }); !errors.Is(err, index.ErrPack) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

func TestPackNothing(t *testing.T) {
	u := chunkOf()
	u.Earlier = 99
	d, err := index.DigestOf(u)
	if err != nil || d.Pack != nil || len(d.Rows) != len(u.Statements) || len(d.Ended) != len(u.Outcomes) {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestPackLimit shows that what does not fit is not lost.
func TestPackLimit(t *testing.T) {
	u := &index.Update{Session: &typesv1.Session{Id: "s", StartTime: timestamppb.New(packed)}}
	long := make([]byte, index.MaxText-8)
	for n := range uint64(3000) {
		u.Statements = append(u.Statements, index.Statement{Number: n + 1, Seq: n + 1, Time: packed, Text: "x", Verdict: postern.VerdictAllow, Reason: fmt.Sprint(n, string(long))})
		u.Outcomes = append(u.Outcomes, index.Outcome{Number: n + 1, Verdict: postern.VerdictAllow})
	}
	d, err := index.DigestOf(u)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := index.Unpack(d.Pack.Body, func(*index.Packed) error { n++; return nil }); err != nil || len(d.Pack.Body) > index.MaxPack {
		t.Errorf("%d bytes, %v", len(d.Pack.Body), err)
	}
	if n == 0 || len(d.Rows) == 0 || n+len(d.Rows) != 3000 || n+len(d.Ended) != 3000 {
		t.Errorf("%d packed, %d rows, %d outcomes", n, len(d.Rows), len(d.Ended))
	}
}

func FuzzUnpack(f *testing.F) {
	d, err := index.DigestOf(chunkOf())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d.Pack.Body)
	if d, err = index.DigestOf(lookups(20)); err != nil {
		f.Fatal(err)
	}
	f.Add(d.Pack.Body)
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		n := 0
		if err := index.Unpack(body, func(p *index.Packed) error { n++; return nil }); err == nil && n > len(body) {
			t.Errorf("%d statements of %d bytes", n, len(body))
		}
	})
}

// lookups is a chunk of statements whose texts differ in literals alone, of which each second
// one says what the one before said.
func lookups(n int) *index.Update {
	u := &index.Update{Session: &typesv1.Session{Id: "s", StartTime: timestamppb.New(packed)}}
	touched := []record.Touch{{Column: "a.b.c", Role: record.RoleOutput}}
	for i := range n {
		u.Statements = append(u.Statements, index.Statement{Number: uint64(i + 1), Seq: uint64(2*i + 1), Time: packed, Text: fmt.Sprintf("SELECT c FROM a.b WHERE id = %d", 4711+i/2),
			Verdict: postern.VerdictAllow, Rule: "r", Touched: touched})
		u.Outcomes = append(u.Outcomes, index.Outcome{Number: uint64(i + 1), Verdict: postern.VerdictAllow, Tag: "SELECT 1"})
	}
	return u
}

// TestPackForms shows that texts that differ in literals alone cost what is their own.
func TestPackForms(t *testing.T) {
	small, err := index.DigestOf(lookups(100))
	if err != nil {
		t.Fatal(err)
	}
	u := lookups(1100)
	d, err := index.DigestOf(u)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Wordings) != 1 || !d.Wordings[0].Form || len(d.Said) != 0 || len(d.Uses) != 2 {
		t.Errorf("%d wordings, said in %d minutes, %d uses", len(d.Wordings), len(d.Said), len(d.Uses))
	}
	if each := (len(d.Pack.Body) - len(small.Pack.Body)) / 1000; each > 13 {
		t.Errorf("%d bytes for each statement", each)
	}
	if want := "select c from a b where id 4711 4712"; !strings.HasPrefix(d.Pack.Words, want) || len(strings.Fields(d.Pack.Words)) != 7+550 {
		t.Errorf("it is found by %.100q", d.Pack.Words)
	}
	i := 0
	if err := index.Unpack(d.Pack.Body, func(p *index.Packed) error {
		if text := index.Fill(d.Wordings[0].Text, p.Literals); text != u.Statements[i].Text || *p.Wording != d.Wordings[0].ID {
			t.Errorf("statement %d says %q", p.Number, text)
		}
		i++
		return nil
	}); err != nil || i != 1100 {
		t.Error(i, err)
	}
	for i := range small.Pack.Body {
		if err := index.Unpack(small.Pack.Body[:i], func(*index.Packed) error { return nil }); !errors.Is(err, index.ErrPack) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

// TestPackFew shows that a few statements have the rows that others like them have, too.
func TestPackFew(t *testing.T) {
	d, err := index.DigestOf(lookups(4))
	if err != nil || len(d.Wordings) != 2 || len(d.Said) != 2 || d.Pack.Words != "" {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestPackVersion1 is what was written before there were forms.
func TestPackVersion1(t *testing.T) {
	d, err := index.DigestOf(chunkOf())
	if err != nil || d.Pack.Body[0] != 2 {
		t.Fatal(err)
	}
	d.Pack.Body[0] = 1
	n := 0
	if err := index.Unpack(d.Pack.Body, func(*index.Packed) error { n++; return nil }); err != nil || n != 3 {
		t.Errorf("%d statements, %v", n, err)
	}
	d.Pack.Body[0] = 3
	if err := index.Unpack(d.Pack.Body, func(*index.Packed) error { return nil }); !errors.Is(err, index.ErrPack) {
		t.Errorf("a later version: %v", err)
	}
}

// TestPackWords shows that a pack is not found by more words than a database takes.
func TestPackWords(t *testing.T) {
	u := lookups(1000)
	for i := range u.Statements {
		var b strings.Builder
		for n := range 100 {
			fmt.Fprintf(&b, "%d_%d ", i, n)
		}
		u.Statements[i].Text = "SELECT '" + b.String() + "'"
	}
	d, err := index.DigestOf(u)
	if err != nil || len(d.Pack.Words) > 1<<20 || len(d.Pack.Words) < 1<<18 || len(d.Said) != len(d.Wordings)-1 || len(d.Said) < 100 {
		t.Errorf("%d bytes of words, %d wordings, %v", len(d.Pack.Words), len(d.Wordings), err)
	}
}
