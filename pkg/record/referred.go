package record

import (
	"bytes"
	"slices"

	"github.com/posterngate/postern/pkg/postern"
)

// referred is an event that others of its chunk refer to.
type referred struct {
	message []byte
	event   *Event // decoded when it is first asked for
	// as of a Brief
	says, text []byte
	verdict    postern.Verdict
}

// What an event that refers to another cannot say itself, as bits of field numbers.
const (
	ofJudgement = 1<<9 | 1<<10 | 1<<13 | 1<<14 | 1<<15 | 1<<16
	ofText      = 1<<6 | 1<<8 | 1<<12
	ofParams    = 1 << 7
	ofData      = 1 << 28
)

// What field 32 says beside twice the slot. Readers of before know of the text alone, and
// take what says more for damaged.
const (
	refersText   = 1 << 0
	refersParams = 1 << 6
	refersData   = 1 << 7
)

// read takes in a field of the message.
func (r *reference) read(f field) error {
	if f.number < 64 {
		r.own |= 1 << f.number
	}
	slot := f.num
	switch f.number {
	case 31:
		r.as = int(min(slot, maxSlots+1))
	case 32:
		r.text, r.params, r.data = slot&refersText != 0, slot&refersParams != 0, slot&refersData != 0
		slot = slot &^ (refersText | refersParams | refersData) >> 1
		r.to = int(min(slot, maxSlots+1))
	default:
		return nil
	}
	if slot == 0 || slot > maxSlots {
		return errMessage
	}
	return nil
}

// follow is what a message refers to, or nil where that is nothing. What is large neither
// refers nor is referred to: a reader would be made to copy it for a few bytes each time.
func (d *Decoder) follow(ref reference, message []byte) (*referred, error) {
	switch {
	case ref.to+ref.as > 0 && len(message) > maxReferring:
		return nil, errMessage
	case ref.to == 0:
		return nil, nil
	}
	r := d.slots[ref.to-1]
	never := uint64(ofJudgement) | bit(ref.text)*ofText | bit(ref.params)*ofParams | bit(ref.data)*ofData
	if r == nil || ref.as > 0 || ref.own&never != 0 {
		return nil, errMessage
	}
	return r, nil
}

// event reads a whole event, and keeps one that others refer to.
func (d *Decoder) event(message []byte) (*Event, error) {
	e, ref, err := decodeEvent(message)
	if err != nil {
		return nil, err
	}
	r, err := d.follow(ref, message)
	switch {
	case err != nil:
		return nil, err
	case r != nil:
		return e, r.complete(e, ref)
	case ref.as > 0:
		d.slots[ref.as-1] = &referred{message: bytes.Clone(message)}
	}
	return e, nil
}

// complete adds to e what it refers to, which all that refer to it share: a few bytes must not
// make a reader keep as much as they can refer to.
func (r *referred) complete(e *Event, ref reference) error {
	if r.event == nil {
		var err error
		if r.event, _, err = decodeEvent(r.message); err != nil {
			return err
		}
	}
	o := r.event
	e.Verdict, e.Rule, e.Effect, e.Level, e.Version = o.Verdict, o.Rule, o.Effect, o.Level, o.Version
	e.Touched = slices.Clip(o.Touched)
	if ref.text {
		e.Text, e.Hash, e.Forward = o.Text, slices.Clip(o.Hash), o.Forward
	}
	if ref.params {
		e.Params = slices.Clip(o.Params)
	}
	if ref.data {
		e.Data = slices.Clip(o.Data)
	}
	return nil
}
