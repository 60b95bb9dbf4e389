package record

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// A Brief is what can be told of an event without a copy of it: for those who take in
// many events that say the same.
type Brief struct {
	// Event has Seq, Time, Kind, Statement, Verdict, Rows, Bytes, Affected, Duration and
	// Elapsed; all else is left out.
	Event Event
	// Text is what was asked for, and Says is verdict, rule, reason and what is used, as they
	// are written: events of which Says is equal say the same of their texts.
	Text, Says []byte
	// Tag and Code are those of the event.
	Tag, Code []byte

	whole []byte
	says  []byte // what the event says itself; Says may be that of another
	ref   reference
	to    *referred // what that is; nil for nothing
}

// Whole decodes all of the event. It shares no memory with the Brief, but may with other
// events as those of Decode do.
func (b *Brief) Whole() (*Event, error) {
	e, _, err := decodeEvent(b.whole)
	if err != nil || b.to == nil {
		return e, err
	}
	return e, b.to.complete(e, b.ref)
}

// Briefly is Decode for those who are content with a Brief of most events. The Brief and
// its bytes are the Decoder's, and change after fn. What Decode refuses is refused.
func (d *Decoder) Briefly(frames []byte, fn func(*Brief) error) error {
	var b Brief
	return d.each(frames, func(message []byte) error {
		if err := b.read(message); err != nil {
			return err
		}
		if err := b.resolve(d); err != nil {
			return err
		}
		return fn(&b)
	})
}

// resolve says what the event refers to, and keeps what others refer to.
func (b *Brief) resolve(d *Decoder) (err error) {
	if b.to, err = d.follow(b.ref, b.whole); err != nil {
		return err
	}
	switch {
	case b.to == nil && b.ref.as > 0:
		d.slots[b.ref.as-1] = &referred{message: bytes.Clone(b.whole), says: bytes.Clone(b.says), text: bytes.Clone(b.Text), verdict: b.Event.Verdict}
	case b.to == nil:
	default:
		b.Event.Verdict = b.to.verdict
		if b.ref.text {
			b.Text = b.to.text
		}
		if len(b.says) == 0 { // as most
			b.Says = b.to.says
			return nil
		}
		b.says = append(b.says, b.to.says...)
	}
	b.Says = b.says
	return nil
}

func (b *Brief) read(message []byte) error {
	*b = Brief{says: b.says[:0], whole: message}
	items := 0
	for rest := message; len(rest) > 0; {
		start := rest
		number, typ, n := tag(rest)
		if n < 0 {
			return errMessage
		}
		rest = rest[n:]
		f := field{number: number}
		switch typ {
		case protowire.VarintType:
			f.num, n = varint(rest)
		case protowire.BytesType:
			var size uint64
			if size, n = varint(rest); n >= 0 && size <= uint64(len(rest)-n) {
				f.raw = rest[n : n+int(size)]
				n += int(size)
			} else {
				n = -1
			}
		default: // of a later version
			n = protowire.ConsumeFieldValue(number, typ, rest)
		}
		if n < 0 {
			return errMessage
		}
		rest = rest[n:]
		if typ != protowire.VarintType && typ != protowire.BytesType {
			continue
		}
		if err := b.ref.read(f); err != nil {
			return err
		}
		switch number {
		case 7, 13, 25, 27:
			if items++; items > MaxItems {
				return fmt.Errorf("record: more than %d entries in one event", MaxItems)
			}
		}
		switch number {
		case 9, 10, 11, 13:
			b.says = append(b.says, start[:len(start)-len(rest)]...)
		}
		if err := b.set(f); err != nil {
			return err
		}
	}
	if b.Event.Seq == 0 || b.Event.Kind == 0 {
		return errMessage
	}
	return nil
}

func (b *Brief) set(f field) error {
	switch f.number {
	case 1, 2, 3, 5, 9, 17, 18, 19, 23, 30:
		return b.Event.set(f)
	case 4:
		_, err := decodeSession(f.raw)
		return err
	case 7, 13, 16, 27:
		return checkMessage(f.raw)
	case 6:
		b.Text = f.raw
	case 20:
		b.Tag = f.raw
	case 21:
		b.Code = f.raw
	}
	return nil
}

// checkMessage walks through a message as eachField does.
func checkMessage(b []byte) error {
	for len(b) > 0 {
		number, typ, n := tag(b)
		if n < 0 {
			return errMessage
		}
		b = b[n:]
		switch typ {
		case protowire.VarintType:
			_, n = varint(b)
		case protowire.BytesType:
			var size uint64
			if size, n = varint(b); n >= 0 && size <= uint64(len(b)-n) {
				n += int(size)
			} else {
				n = -1
			}
		default:
			n = protowire.ConsumeFieldValue(number, typ, b)
		}
		if n < 0 {
			return errMessage
		}
		b = b[n:]
	}
	return nil
}

// varint is protowire.ConsumeVarint, inlined for the one byte that it mostly is.
func varint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return protowire.ConsumeVarint(b)
}

// tag is protowire.ConsumeTag in the same way.
func tag(b []byte) (protowire.Number, protowire.Type, int) {
	if len(b) > 0 && b[0] < 0x80 && b[0] >= 8 {
		return protowire.Number(b[0] >> 3), protowire.Type(b[0] & 7), 1
	}
	return protowire.ConsumeTag(b)
}
