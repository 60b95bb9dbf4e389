package record

// An Encoder writes the events of one session as frames. What the executions of one Shape
// have in common it writes once a chunk, and the others refer to that. The zero Encoder is
// ready; it is for one goroutine.
type Encoder struct {
	said []said // by slot
	next int    // whose turn it is to be replaced
}

// said is what an event said that others refer to.
type said struct {
	shape         any
	text, forward string
}

const (
	// maxSlots is how many shapes a chunk can refer to at a time.
	maxSlots = 16
	// maxReferring bounds the bytes of an event that refers to another, or is referred to:
	// such an event must not begin in one chunk and end in the next.
	maxReferring = 16 << 10
)

// A reference says what of an event need not be written, or is written for others. Slots
// are counted from 1.
type reference struct {
	to, as int  // the slot that has it, or that will
	text   bool // Text, Hash and Forward are there too

	own uint64 // the numbers of the fields that were read, as bits
}

// AppendFrames appends e, whose Seq must be set, as one or more frames. It keeps of e no
// more than Shape, Text and Forward, and allocates only to grow dst and for new shapes. An
// event over MaxEvent is an error, and dst is then returned as it was.
func (c *Encoder) AppendFrames(dst []byte, e *Event) ([]byte, error) {
	if e.Shape == nil {
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
	clear(c.said)
	c.said, c.next = c.said[:0], 0
}

func (c *Encoder) refer(e *Event) reference {
	for i := range c.said {
		if s := &c.said[i]; s.shape == e.Shape {
			return reference{to: i + 1, text: s.text == e.Text && s.forward == e.Forward}
		}
	}
	if len(c.said) < maxSlots {
		c.said = append(c.said, said{})
	}
	slot := c.next
	c.said[slot] = said{e.Shape, e.Text, e.Forward}
	c.next = (slot + 1) % maxSlots
	return reference{as: slot + 1}
}
