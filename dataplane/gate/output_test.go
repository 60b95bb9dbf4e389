package gate

import (
	"testing"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/ssh"
	"github.com/posterngate/postern/pkg/ssh/shell"
)

// weight counts what it is given to keep.
type weight struct {
	memo
	bytes int64
}

func (w *weight) Record(e *record.Event, _ policy.RecordMode) error {
	w.bytes += int64(len(e.Data))
	return nil
}

// TestOutputKept: nobody who works on a terminal can say so much first that the rest is not
// kept.
func TestOutputKept(t *testing.T) {
	query := reading("orders", "email")
	told, err := shell.Parse("bash -s")
	if err != nil {
		t.Fatal(err)
	}
	const part, parts = 1 << 20, maxOutput>>20 + 8
	for _, c := range []struct {
		facts policy.Facts
		want  int64
	}{
		{&ssh.Facts{Verb: ssh.Exec}, maxOutput},
		{&ssh.Facts{Verb: ssh.Exec, Terminal: true}, parts * part},
		{&ssh.Facts{Verb: ssh.Shell}, parts * part},
		{&ssh.Facts{Verb: ssh.Exec, Line: told}, parts * part},
		{&query, maxOutput},
	} {
		r, shown, raw := newRig(t), &weight{}, &weight{}
		r.cfg.Recorder, r.cfg.Raw = shown, raw
		x := &execution{g: r.Gate, ad: &admitted{all: keepsAll(c.facts)}}
		p := make([]byte, part)
		for range parts {
			if err := x.RawOutput(engine.Stdout, p); err != nil {
				t.Fatal(err)
			}
			if err := x.Output(engine.Stdout, p); err != nil {
				t.Fatal(err)
			}
		}
		if shown.bytes != c.want || raw.bytes != c.want {
			t.Errorf("%+v: %d bytes are kept, and %d before their masks; want %d", c.facts, shown.bytes, raw.bytes, c.want)
		}
	}
}
