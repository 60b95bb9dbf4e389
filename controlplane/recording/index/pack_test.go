package index_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
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
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		n := 0
		if err := index.Unpack(body, func(p *index.Packed) error { n++; return nil }); err == nil && n > len(body) {
			t.Errorf("%d statements of %d bytes", n, len(body))
		}
	})
}
