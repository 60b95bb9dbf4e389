package record

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/posterngate/postern/pkg/postern"
)

var errMessage = errors.New("record: malformed message")

// field is one field of a message: num holds varints, raw holds bytes.
type field struct {
	number protowire.Number
	num    uint64
	raw    []byte
}

// eachField calls fn for every varint and every length-delimited field of a message.
func eachField(b []byte, fn func(f field) error) error {
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMessage
		}
		b = b[n:]
		f := field{number: number}
		switch typ {
		case protowire.VarintType:
			f.num, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.raw, n = protowire.ConsumeBytes(b)
		default: // of a later version
			n = protowire.ConsumeFieldValue(number, typ, b)
		}
		if n < 0 {
			return errMessage
		}
		b = b[n:]
		if typ != protowire.VarintType && typ != protowire.BytesType {
			continue
		}
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}

// decodeEvent reads the message of an event, and what that refers to. The event shares no
// memory with b.
func decodeEvent(b []byte) (*Event, reference, error) {
	e, ref := &Event{}, reference{}
	items := 0
	err := eachField(b, func(f field) error {
		if err := ref.read(f); err != nil {
			return err
		}
		switch f.number {
		case 7, 13, 25, 27:
			if items++; items > MaxItems {
				return fmt.Errorf("record: more than %d entries in one event", MaxItems)
			}
		}
		return e.set(f)
	})
	if err != nil {
		return nil, reference{}, err
	}
	if e.Seq == 0 || e.Kind == 0 {
		return nil, reference{}, errMessage
	}
	return e, ref, nil
}

func (e *Event) set(f field) (err error) {
	switch f.number {
	case 1:
		e.Seq = f.num
	case 2:
		if f.num != 0 {
			e.Time = time.UnixMicro(int64(f.num)).UTC()
		}
	case 3:
		e.Kind = Kind(min(f.num, 255))
	case 4:
		e.Session, err = decodeSession(f.raw)
	case 5:
		e.Statement = f.num
	case 6:
		e.Text = string(f.raw)
	case 7:
		e.Params = append(e.Params, Param{})
		err = e.Params[len(e.Params)-1].decode(f.raw)
	case 8:
		e.Hash = append([]byte(nil), f.raw...)
	case 9:
		if f.num <= uint64(postern.VerdictAllow) { // a verdict of a later version reads as a denial
			e.Verdict = postern.Verdict(f.num)
		}
	case 10:
		e.Rule = string(f.raw)
	case 11:
		e.Reason = string(f.raw)
	case 12:
		e.Forward = string(f.raw)
	case 13:
		e.Touched = append(e.Touched, Touch{})
		err = e.Touched[len(e.Touched)-1].decode(f.raw)
	case 14:
		if f.num <= uint64(postern.EffectNone) {
			e.Effect = postern.Effect(f.num)
		}
	case 15:
		e.Level = postern.Level(min(f.num, 255))
	case 16:
		e.Version, err = decodeVersion(f.raw)
	default:
		err = e.setOutcome(f)
	}
	return err
}

func (e *Event) setOutcome(f field) (err error) {
	switch f.number {
	case 17:
		e.Rows = int64(f.num)
	case 18:
		e.Bytes = int64(f.num)
	case 19:
		e.Affected = protowire.DecodeZigZag(f.num)
	case 20:
		e.Tag = string(f.raw)
	case 21:
		e.Code = string(f.raw)
	case 22:
		e.Message = string(f.raw)
	case 23:
		e.Duration = microDuration(f.num)
	case 24:
		e.Hold = string(f.raw)
	case 25:
		e.People = append(e.People, string(f.raw))
	case 26:
		e.Encoding = string(f.raw)
	case 27:
		e.Columns = append(e.Columns, Column{})
		err = e.Columns[len(e.Columns)-1].decode(f.raw)
	case 28:
		e.Data = append([]byte(nil), f.raw...)
	case 29:
		e.Direction = Direction(min(f.num, 255))
	case 30:
		e.Elapsed = microDuration(f.num)
	}
	return err
}

// microDuration stays within what a Duration can hold.
func microDuration(us uint64) time.Duration {
	const most = uint64(1<<63-1) / uint64(time.Microsecond)
	return time.Duration(min(us, most)) * time.Microsecond
}

func decodeSession(b []byte) (*Session, error) {
	s := &Session{}
	err := eachField(b, func(f field) (err error) {
		switch f.number {
		case 1:
			s.ID = postern.SessionID(f.raw)
		case 2:
			s.Subject = string(f.raw)
		case 3:
			if len(s.Groups) >= MaxItems {
				return fmt.Errorf("record: more than %d groups", MaxItems)
			}
			s.Groups = append(s.Groups, string(f.raw))
		case 4:
			s.Workload = string(f.raw)
		case 5:
			s.Grant = postern.GrantID(f.raw)
		case 6:
			s.Task = postern.TaskName(f.raw)
		case 7:
			s.Resource = postern.ResourceName(f.raw)
		case 8:
			s.Protocol = postern.Protocol(f.raw)
		case 9:
			s.Node = postern.NodeName(f.raw)
		case 10:
			s.Region = string(f.raw)
		case 11:
			s.ClientAddress = string(f.raw)
		case 12:
			s.ClientProgram = string(f.raw)
		case 13:
			s.Version, err = decodeVersion(f.raw)
		case 14:
			s.Level = postern.Level(min(f.num, 255))
		case 15:
			s.Account = string(f.raw)
		case 16:
			s.Database = string(f.raw)
		case 17:
			if len(s.Actors) >= MaxItems {
				return fmt.Errorf("record: more than %d actors", MaxItems)
			}
			s.Actors = append(s.Actors, string(f.raw))
		case 18:
			s.Raw = f.num != 0
		}
		return err
	})
	return s, err
}

func decodeVersion(b []byte) (v postern.Version, err error) {
	err = eachField(b, func(f field) error {
		switch f.number {
		case 1:
			v.Epoch = string(f.raw)
		case 2:
			v.Revision = int64(f.num)
		}
		return nil
	})
	return v, err
}

func (p *Param) decode(b []byte) error {
	return eachField(b, func(f field) error {
		switch f.number {
		case 1:
			p.Value = string(f.raw)
		case 2:
			p.Null = f.num != 0
		case 3:
			p.Binary = f.num != 0
		case 4:
			p.Text = string(f.raw)
		}
		return nil
	})
}

func (t *Touch) decode(b []byte) error {
	return eachField(b, func(f field) error {
		switch f.number {
		case 1:
			t.Column = string(f.raw)
		case 2:
			t.Role = Role(f.num & 0xff)
		case 3:
			t.Mask = string(f.raw)
		case 4:
			t.View = string(f.raw)
		}
		return nil
	})
}

func (c *Column) decode(b []byte) error {
	return eachField(b, func(f field) error {
		switch f.number {
		case 1:
			c.Name = string(f.raw)
		case 2:
			c.Type = uint32(f.num)
		case 3:
			c.Binary = f.num != 0
		case 4:
			c.Masked = f.num != 0
		}
		return nil
	})
}
