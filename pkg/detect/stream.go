package detect

// A Stream masks text that comes in chunks. What it has shown is never part of what it
// should have masked, and what it shows is the same however the text is cut. It holds back
// what may still become something, which is at most MaxWord and some; it allocates nothing
// once it has held that much. It is for one goroutine.
type Stream struct {
	set     *Set
	sc      Scanner
	held    []byte
	matches []Match
}

// NewStream is a Stream at the beginning of a text.
func (s *Set) NewStream() *Stream { return &Stream{set: s, sc: s.NewScanner()} }

// Append appends to dst what may be shown once chunk has come. The chunk is not kept.
func (s *Stream) Append(dst, chunk []byte) []byte { return s.next(dst, chunk, false) }

// Close appends the rest, for nothing more comes. The Stream is at the beginning of
// another text then.
func (s *Stream) Close(dst []byte) []byte {
	dst = s.next(dst, nil, true)
	s.sc = s.set.NewScanner()
	return dst
}

// Held is how many bytes are held back.
func (s *Stream) Held() int { return len(s.held) }

func (s *Stream) next(dst, chunk []byte, final bool) []byte {
	text := chunk
	if len(s.held) > 0 {
		s.held = append(s.held, chunk...)
		text = s.held
	}
	var done int
	done, s.matches = s.sc.Scan(text, final, s.matches[:0])
	dst = s.set.show(dst, text[:done], s.matches)
	s.held = append(s.held[:0], text[done:]...)
	return dst
}

// show appends text with its matches masked.
func (s *Set) show(dst, text []byte, matches []Match) []byte {
	at := 0
	for i := range matches {
		m := &matches[i]
		if m.From > at {
			dst = append(dst, text[at:m.From]...)
		}
		at = max(at, m.To)
		if m.More {
			continue
		}
		if m.Open {
			dst = s.open(dst, m.Kind)
		} else {
			dst = s.masked(dst, m.Kind, text[m.From:m.To])
		}
	}
	return append(dst, text[at:]...)
}

// AppendMasked appends a whole text with its matches masked, and reports whether there are
// any. It allocates nothing where dst has room and there are few matches.
func (s *Set) AppendMasked(dst, text []byte) (_ []byte, found bool) {
	var few [16]Match
	sc := s.NewScanner()
	_, matches := sc.Scan(text, true, few[:0])
	return s.show(dst, text, matches), len(matches) > 0
}

// AppendFilled appends what is shown of a match in just as many bytes: for terminals,
// where columns count.
func (s *Set) AppendFilled(dst []byte, m Match, text []byte) []byte {
	from := len(dst)
	if w := &s.writers[m.Kind]; m.Kind != none && !m.Open && !m.More && !w.Null() && !w.Constant() {
		if dst = w.AppendMasked(dst, text); len(dst)-from == len(text) {
			return dst
		}
		dst = dst[:from]
	}
	for range text {
		dst = append(dst, '*')
	}
	return dst
}
