package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	frameHeader = 8
	moreBit     = 1 << 31
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrFrame says that bytes are no intact frame.
var ErrFrame = errors.New("record: damaged frame")

// AppendFrames appends e as an Encoder does, so that it refers to no other event.
func AppendFrames(dst []byte, e *Event) ([]byte, error) { return appendFrames(dst, e, reference{}) }

func appendFrames(dst []byte, e *Event, ref reference) ([]byte, error) {
	start := len(dst)
	var room [frameHeader]byte
	dst = appendEvent(append(dst, room[:]...), e, ref)
	size := len(dst) - start - frameHeader
	items := len(e.Params) + len(e.Touched) + len(e.Columns) + len(e.People)
	if e.Session != nil {
		items += len(e.Session.Groups) + len(e.Session.Actors)
	}
	if size > MaxEvent || items > MaxItems {
		return dst[:start], fmt.Errorf("record: an event of %d bytes and %d entries is over the limit of %d bytes and %d entries", size, items, MaxEvent, MaxItems)
	}
	parts := (size + MaxFrameBody - 1) / MaxFrameBody
	for range parts - 1 {
		dst = append(dst, room[:]...)
	}
	// From the last part to the first, so that no part is overwritten before it moved.
	body := dst[start+frameHeader:]
	for i := parts - 1; i >= 0; i-- {
		from, to := i*MaxFrameBody, min((i+1)*MaxFrameBody, size)
		at := start + i*(MaxFrameBody+frameHeader)
		part := dst[at+frameHeader : at+frameHeader+to-from]
		copy(part, body[from:to])
		length := uint32(to - from)
		if i < parts-1 {
			length |= moreBit
		}
		binary.LittleEndian.PutUint32(dst[at:], length)
		binary.LittleEndian.PutUint32(dst[at+4:], frameSum(dst[at:at+4], part))
	}
	return dst, nil
}

func frameSum(length, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, body)
}

// Frame is one frame of a chunk's body.
type Frame struct {
	Body []byte // shares memory with what it was read from
	More bool   // the event goes on in the next frame
	Size int    // bytes of the whole frame
}

// NextFrame reads the frame at the start of b, or says ErrFrame.
func NextFrame(b []byte) (Frame, error) {
	if len(b) < frameHeader {
		return Frame{}, ErrFrame
	}
	length := binary.LittleEndian.Uint32(b)
	n := int(length &^ moreBit)
	if n == 0 || n > MaxFrameBody || len(b)-frameHeader < n {
		return Frame{}, ErrFrame
	}
	body := b[frameHeader : frameHeader+n : frameHeader+n]
	if binary.LittleEndian.Uint32(b[4:]) != frameSum(b[:4], body) {
		return Frame{}, ErrFrame
	}
	return Frame{Body: body, More: length&moreBit != 0, Size: frameHeader + n}, nil
}

// Span tells which events a run of frames belongs to. It is carried from one chunk to
// the next: the zero Span stands before the first.
type Span struct {
	First, Last uint64 // seq of the events of the first and the last frame
	Open        bool   // the event of the last frame goes on
}

// Follower is the seq of the event that the next frame must be of.
func (s Span) Follower() uint64 {
	if s.Open {
		return s.Last
	}
	return s.Last + 1
}

// Next is the span of the frames that follow s. Frames whose events do not follow
// each other without a gap are an error.
func (s Span) Next(frames []byte) (Span, error) {
	next := Span{Last: s.Last, Open: s.Open}
	for len(frames) > 0 {
		f, err := NextFrame(frames)
		if err != nil {
			return s, err
		}
		frames = frames[f.Size:]
		if !next.Open {
			seq, err := frameSeq(f.Body)
			if err != nil {
				return s, err
			}
			if seq != next.Last+1 {
				return s, fmt.Errorf("record: event %d follows event %d", seq, next.Last)
			}
			next.Last = seq
		}
		if next.First == 0 {
			next.First = next.Last
		}
		next.Open = f.More
	}
	return next, nil
}

// frameSeq reads the seq at the start of an event's first frame.
func frameSeq(body []byte) (uint64, error) {
	number, typ, n := protowire.ConsumeTag(body)
	if n < 0 || number != 1 || typ != protowire.VarintType {
		return 0, errMessage
	}
	seq, m := protowire.ConsumeVarint(body[n:])
	if m < 0 || seq == 0 {
		return 0, errMessage
	}
	return seq, nil
}

// A Decoder turns the frames of chunks into events. An event may begin in one chunk and end
// in a later one; what an event refers to is in its own. The zero Decoder is ready; it is for
// one goroutine.
type Decoder struct {
	partial []byte
	slots   [maxSlots]*referred
}

// Open reports whether an event has begun and not ended.
func (d *Decoder) Open() bool { return len(d.partial) > 0 }

// Decode calls fn with every event that ends in the frames of a chunk. The events are fn's
// to keep, but those of a chunk may share what they say alike, which must not be changed.
func (d *Decoder) Decode(frames []byte, fn func(*Event) error) error {
	return d.each(frames, func(message []byte) error {
		e, err := d.event(message)
		if err != nil {
			return err
		}
		return fn(e)
	})
}

// each calls fn with the message of every event that ends in the frames of a chunk.
func (d *Decoder) each(frames []byte, fn func(message []byte) error) error {
	d.slots = [maxSlots]*referred{}
	for len(frames) > 0 {
		f, err := NextFrame(frames)
		if err != nil {
			return err
		}
		frames = frames[f.Size:]
		body := f.Body
		if f.More || d.Open() {
			if len(d.partial)+len(body) > MaxEvent {
				return fmt.Errorf("record: an event is over the limit of %d bytes", MaxEvent)
			}
			d.partial = append(d.partial, body...)
			if f.More {
				continue
			}
			body, d.partial = d.partial, nil
		}
		if err := fn(body); err != nil {
			return err
		}
	}
	return nil
}
