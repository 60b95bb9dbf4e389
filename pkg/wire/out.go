package wire

// An Out gathers what one step sends, in order, so that it leaves in one write. Spans
// of the input that touch are passed on as they lie; only where something is put
// between them are bytes copied. Between steps it keeps Small bytes at the most. The zero
// Out is ready. It is for one goroutine.
type Out struct {
	span   []byte // of the input; valid only while joined is empty
	joined []byte
	large  *Buffer // from the pool, that joined is in, or has outgrown; then own is what
	own    []byte  // joined was in before
}

// Pass adds p, which must stay as it is until Reset.
func (o *Out) Pass(p []byte) {
	switch {
	case len(p) == 0:
	case len(o.joined) > 0:
		o.add(p)
	case len(o.span) == 0:
		o.span = p
	case touches(o.span, p):
		o.span = o.span[:len(o.span)+len(p)]
	default:
		o.reserve(len(o.span) + len(p))
		o.join()
		o.add(p)
	}
}

// Grow returns the gathered bytes for the caller to append to; Set takes the result.
func (o *Out) Grow() []byte {
	o.join()
	return o.joined
}

// GrowLarge is Grow for much: there is room for Large bytes in all.
func (o *Out) GrowLarge() []byte {
	o.join()
	o.reserve(Large - len(o.joined))
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

// Reset empties the output.
func (o *Out) Reset() {
	if o.large != nil {
		Put(o.large)
		o.large, o.joined, o.own = nil, o.own, nil
	}
	if cap(o.joined) > Small {
		o.joined = nil
	}
	o.span, o.joined = nil, o.joined[:0]
}

func (o *Out) join() {
	if len(o.span) > 0 {
		o.add(o.span)
		o.span = nil
	}
}

func (o *Out) add(p []byte) {
	o.reserve(len(p))
	o.joined = append(o.joined, p...)
}

// reserve makes room for n bytes more where that takes a buffer of the pool.
func (o *Out) reserve(n int) {
	if n += len(o.joined); o.large == nil && n > Small && n > cap(o.joined) && n <= Large {
		o.large = Get(Large)
		o.own, o.joined = o.joined, append(o.large.b[:0], o.joined...)
	}
}

// touches reports whether q begins in memory where p ends.
func touches(p, q []byte) bool {
	return cap(p) > len(p) && &p[:len(p)+1][len(p)] == &q[0]
}
