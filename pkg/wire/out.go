package wire

// An Out gathers what one step sends, in order, so that it leaves in one write. Spans
// of the input that touch are passed on as they lie; only where something is put
// between them are bytes copied. The zero Out is ready. It is for one goroutine.
type Out struct {
	span   []byte // of the input; valid only while scratch is empty
	joined []byte
}

// Pass adds p, which must stay as it is until Reset.
func (o *Out) Pass(p []byte) {
	switch {
	case len(p) == 0:
	case len(o.joined) > 0:
		o.joined = append(o.joined, p...)
	case len(o.span) == 0:
		o.span = p
	case touches(o.span, p):
		o.span = o.span[:len(o.span)+len(p)]
	default:
		o.join()
		o.joined = append(o.joined, p...)
	}
}

// Grow returns the gathered bytes for the caller to append to; Set takes the result.
func (o *Out) Grow() []byte {
	o.join()
	return o.joined
}

// Set replaces what was gathered by b, which Grow returned and the caller extended.
func (o *Out) Set(b []byte) { o.joined = b }

// Bytes is all that was gathered; it lives until the next call.
func (o *Out) Bytes() []byte {
	if len(o.joined) > 0 {
		return o.joined
	}
	return o.span
}

// Reset empties the output. Memory beyond Large is given up.
func (o *Out) Reset() {
	o.span = nil
	o.joined = o.joined[:0]
	if cap(o.joined) > Large {
		o.joined = nil
	}
}

func (o *Out) join() {
	if len(o.span) > 0 {
		o.joined = append(o.joined, o.span...)
		o.span = nil
	}
}

// touches reports whether q begins in memory where p ends.
func touches(p, q []byte) bool {
	return cap(p) > len(p) && &p[:len(p)+1][len(p)] == &q[0]
}
