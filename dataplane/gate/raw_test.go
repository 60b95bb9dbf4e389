package gate

import (
	"errors"
	"testing"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// TestRaw: what masks hid goes to the raw record alone, as much as is kept of what was
// shown, and where that fails nothing passes.
func TestRaw(t *testing.T) {
	r, raw := newRig(t), &memo{}
	r.cfg.Raw = raw
	a := r.must(t, "select email from sales.orders", &understood{facts: reading("orders", "email"), rewritten: "R"})
	row := []byte{'D', 0, 0, 0, 6, 0, 0}
	for n := uint64(1); n <= 2; n++ { // the second time with what the first has left
		raw.events = nil
		var f engine.Flow
		err := r.Admit(a, engine.Args{}, &f)
		if err == nil {
			err = f.Columns([]engine.ResultColumn{{Name: "email", Masked: true}})
		}
		for range 3 {
			err = errors.Join(err, f.RawRows(1, row))
		}
		if err := errors.Join(err, f.RawOutput(engine.Body, []byte("raw")), f.Done(engine.Outcome{})); err != nil {
			t.Fatal(err)
		}
		if raw.kinds() != "rows rows chunk" {
			t.Fatalf("recorded raw: %s", raw.kinds())
		}
		first, body := raw.events[0], raw.events[2]
		if first.Statement != n || first.Rows != 1 || first.Encoding != record.EncodingDataRow || len(first.Columns) != 1 || !first.Columns[0].Masked || raw.events[1].Columns != nil || body.Tag != "body" {
			t.Errorf("%+v, %+v", first, body)
		}
	}
	if r.records.kinds() != "intent finished intent finished" || raw.modes[0] != policy.Async {
		t.Errorf("recorded %s", r.records.kinds())
	}
	raw.fail = errors.New("the disk is full")
	var f engine.Flow
	if err := r.Admit(a, engine.Args{}, &f); err != nil {
		t.Fatal(err)
	}
	if got := refusal(t, f.RawRows(1, row)); got.Code != postern.CodeUnavailable {
		t.Errorf("%+v", got)
	}
	if err := f.Done(engine.Outcome{}); err != nil {
		t.Fatal(err)
	}
	plain := newRig(t)
	a = plain.must(t, "select email from sales.orders", &understood{facts: reading("orders", "email"), rewritten: "R"})
	if err := plain.Admit(a, engine.Args{}, &f); err != nil || f.KeepsRaw() {
		t.Errorf("kept without being asked for: %v", err)
	}
	if err := errors.Join(f.RawRows(1, row), f.RawOutput(engine.Body, row), f.Done(engine.Outcome{})); err != nil {
		t.Error(err)
	}
}
