package record

import (
	"bytes"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/hole"
)

// An Encoder writes the events of one session as frames. What events of one Shape and Tag
// have in common it writes once a chunk, and the others refer to that. The zero Encoder is
// ready; it is for one goroutine.
type Encoder struct {
	said []said // by slot
	next int    // whose turn it is to be replaced
}

// said is what an event said that others refer to.
type said struct {
	shape         any
	tag           string
	text, forward string
	params        []Param // a copy
	data          []byte  // a copy
}

const (
	// maxSlots is how many events a chunk can refer to at a time.
	maxSlots = 16
	// maxReferring bounds the bytes of an event that refers to another, or is referred to:
	// such an event must not begin in one chunk and end in the next.
	maxReferring = 16 << 10
	// maxCopied bounds the bytes of data, and of parameters, that are kept to be held against
	// those of later events.
	maxCopied = 4 << 10
)

// A reference says what of an event need not be written, or is written for others. Slots
// are counted from 1.
type reference struct {
	to, as int  // the slot that has it, or that will
	text   bool // Text, Hash and Forward are there too
	params bool // and Params
	data   bool // and Data

	own uint64 // the numbers of the fields that were read, as bits
}

// AppendFrames appends e, whose Seq must be set, as one or more frames. It keeps no memory
// of e but what is immutable, and allocates only to grow dst and for what later events can
// refer to. An event over MaxEvent is an error, and dst is then returned as it was.
func (c *Encoder) AppendFrames(dst []byte, e *Event) ([]byte, error) {
	if e.Shape == nil || len(e.Data) > maxCopied {
		return appendFrames(dst, e, reference{})
	}
	ref := c.refer(e)
	out, err := appendFrames(dst, e, ref)
	if err != nil || len(out)-len(dst) > maxReferring {
		if ref.as > 0 {
			c.said[ref.as-1] = said{}
		}
		return appendFrames(dst, e, reference{})
	}
	return out, nil
}

// Cut says that a chunk ends behind what was appended: the next one must be read without it.
// It is also for who has thrown away what was appended last.
func (c *Encoder) Cut() {
	if hole.Is("record-uncut") {
		return
	}
	*c = Encoder{} // most sessions say nothing for long
}

func (c *Encoder) refer(e *Event) reference {
	for i := range c.said {
		s := &c.said[i]
		if s.shape != e.Shape || s.tag != e.Tag {
			continue
		}
		if !bytes.Equal(s.data, e.Data) { // those that follow are rather like this one
			return c.keep(i, e)
		}
		return reference{
			to: i + 1, text: s.text == e.Text && s.forward == e.Forward,
			params: len(e.Params) > 0 && slices.Equal(s.params, e.Params), data: len(e.Data) > 0,
		}
	}
	if len(c.said) < maxSlots {
		c.said = append(c.said, said{})
	}
	slot := c.next
	c.next = (slot + 1) % maxSlots
	return c.keep(slot, e)
}

// keep has others refer to e.
func (c *Encoder) keep(slot int, e *Event) reference {
	s := &c.said[slot]
	*s = said{shape: e.Shape, tag: e.Tag, text: e.Text, forward: e.Forward, params: copyParams(s.params[:0], e.Params), data: append(s.data[:0], e.Data...)}
	return reference{as: slot + 1}
}

// copyParams appends copies of params to dst, or none where they are too large.
func copyParams(dst, params []Param) []Param {
	size := 0
	for i := range params {
		size += len(params[i].Value) + len(params[i].Text)
	}
	if size > maxCopied {
		return dst
	}
	for _, p := range params {
		p.Value, p.Text = strings.Clone(p.Value), strings.Clone(p.Text)
		dst = append(dst, p)
	}
	return dst
}
