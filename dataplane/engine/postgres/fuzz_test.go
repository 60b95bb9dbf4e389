package postgres

import (
	"bytes"
	"context"
	"errors"
	"math"
	"testing"

	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/postern"
)

// drive steps a core through a stream, cut at an arbitrary place, as a pump would.
func drive(core pump.Core, in []byte, cut int) error {
	cut = min(max(cut, 0), len(in))
	have := in[:cut:cut]
	for range 4 * (len(in) + 2) {
		n, next, err := core.Step(have)
		if err != nil {
			return err
		}
		if n > len(have) {
			return errors.New("took more than there is")
		}
		have = have[n:]
		if next.Park != nil {
			if next.Watch != nil {
				return nil // it waits for the other side
			}
			if err := next.Park(context.Background()); err != nil {
				return err
			}
			continue
		}
		if cut == len(in) {
			return nil
		}
		have = append(bytes.Clone(have), in[cut:]...)
		cut = len(in)
	}
	return errors.New("makes no progress")
}

func wantRefusal(t *testing.T, err error) {
	t.Helper()
	var r *postern.Refusal
	if err != nil && !errors.As(err, &r) && !errors.Is(err, pump.ErrDone) {
		t.Fatal(err)
	}
}

func FuzzClientStream(f *testing.F) {
	f.Add(hotExecute, 7)
	f.Add(hotParse, 3)
	f.Add(join(message('Q', "select 1\x00"), message('P', "\x00select 2\x00\x00\x00"), message('C', "Ss1\x00"), message('H', ""), message('d', "x"), message('F', ""), message('X', "")), 20)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		wantRefusal(t, drive(clientCore{prepared1(t)}, in, cut))
	})
}

func FuzzTargetStream(f *testing.F) {
	f.Add(hotAnswer, 9)
	f.Add(join(message('2', ""), message('E', "SERROR\x00C42P01\x00Mno\x00Fx.c\x00\x00"), message('N', "SNOTICE\x00Mhi\x00\x00"), message('S', "TimeZone\x00UTC\x00"), message('A', "x"), message('Z', "E")), 30)
	f.Add(join(message('2', ""), hotDesc, message('G', "\x00\x00\x00"), message('s', "")), 30)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		c := prepared1(t)
		feed(t, clientCore{c}, hotExecute)
		wantRefusal(t, drive(targetCore{c}, in, cut))
	})
}

func FuzzQuery(f *testing.F) {
	f.Add([]byte("select 1\x00"))
	f.Add([]byte("select 1\x00; drop\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if text, err := queryText(body); err == nil && (bytes.IndexByte(text, 0) >= 0 || len(text)+1 != len(body)) {
			t.Fatalf("%q became %q", body, text)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("s\x00select $1\x00\x00\x01\x00\x00\x00\x17"))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := decodeParse(body)
		if err != nil {
			return
		}
		if got := appendParse(nil, string(m.name), string(m.text), m.types)[headerLen:]; !bytes.Equal(got, body) {
			t.Fatalf("%q became %q", body, got)
		}
		m.each(func(uint32) bool { return true })
	})
}

func FuzzBind(f *testing.F) {
	f.Add([]byte("p\x00s\x00\x00\x01\x00\x01\x00\x02\x00\x00\x00\x01x\xff\xff\xff\xff\x00\x01\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		portal, statement, params, err := decodeBind(body)
		if err != nil {
			return
		}
		if len(portal)+len(statement)+2+len(params) != len(body) {
			t.Fatal("lost bytes")
		}
		var b bound
		b.set(params)
		if len(b.values) != len(b.nulls) || len(b.formats) > math.MaxUint16 || len(b.values) > math.MaxUint16 {
			t.Fatal("values and nulls differ")
		}
	})
}

func FuzzExecute(f *testing.F) {
	f.Add([]byte("p\x00\x00\x00\x00\x05"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if portal, _, err := decodeExecute(body); err == nil && len(portal)+5 != len(body) {
			t.Fatal("lost bytes")
		}
	})
}

func FuzzClose(f *testing.F) {
	f.Add([]byte("Sname\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if what, name, err := decodeTarget(body); err == nil && (what != 'S' && what != 'P' || len(name)+2 != len(body)) {
			t.Fatal("lost bytes")
		}
	})
}

func FuzzStartup(f *testing.F) {
	f.Add([]byte("\x00\x03\x00\x00user\x00t.target\x00options\x00-c role=x\x00_pq_.x\x001\x00\x00"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		p, _, err := decodeStartup(packet)
		if err != nil {
			return
		}
		out, err := p.check()
		if err != nil {
			return
		}
		for name, value := range out {
			if len(value) > maxParameter || printable(value) != value || name == "options" {
				t.Fatalf("%q=%q may pass", name, value)
			}
		}
	})
}

func FuzzRowDescription(f *testing.F) {
	f.Add(hotDesc[headerLen:])
	f.Fuzz(func(t *testing.T, body []byte) {
		n := 0
		_ = eachColumn(body, func(c column) bool {
			n++
			return bytes.IndexByte(c.name, 0) < 0
		})
		if n*19 > len(body) {
			t.Fatal("more columns than bytes")
		}
	})
}

func FuzzErrorResponse(f *testing.F) {
	f.Add([]byte("SERROR\x00VERROR\x00C23505\x00Mduplicate\x00DKey (email)=(a@b)\x00Wcontext\x00qselect secret\x00Fx.c\x00L1\x00Rfn\x00\x00"), true, true)
	f.Fuzz(func(t *testing.T, body []byte, masked, generic bool) {
		out := scrub{quotes: masked, generic: generic, rows: !masked}.append(nil, 'E', body)
		typ, size, err := next(out)
		if err != nil || typ != 'E' || size != len(out) {
			t.Fatalf("not one message: %q", out)
		}
		for _, key := range []byte("WqpFLRD") {
			if len(field(out[headerLen:], key)) > 0 {
				t.Fatalf("field %c got through: %q", key, out)
			}
		}
		if m := string(field(out[headerLen:], 'M')); generic && m != "" && m != withheld && m != unreadable {
			t.Fatalf("a text got through: %q", m)
		}
	})
}
