package content

import "unicode/utf8"

// utf8State is how far a character of several bytes has been read.
type utf8State struct {
	left      uint8 // bytes that follow
	low, high byte  // what the next one may be
}

// next takes a byte that is not ASCII, or ends a character too soon.
func (u *utf8State) next(b byte) bool {
	if u.left > 0 {
		if b < u.low || b > u.high {
			return false
		}
		u.left--
		u.low, u.high = 0x80, 0xbf
		return true
	}
	u.low, u.high = 0x80, 0xbf
	switch {
	case b >= 0xc2 && b <= 0xdf:
		u.left = 1
	case b >= 0xe0 && b <= 0xef:
		u.left = 2
		switch b {
		case 0xe0:
			u.low = 0xa0
		case 0xed:
			u.high = 0x9f
		}
	case b >= 0xf0 && b <= 0xf4:
		u.left = 3
		switch b {
		case 0xf0:
			u.low = 0x90
		case 0xf4:
			u.high = 0x8f
		}
	default:
		return false
	}
	return true
}

// escapeState is how far an escape sequence has been read.
type escapeState struct {
	open  bool
	left  uint8 // hexadecimal digits that follow
	value rune
	high  rune // the first half of a surrogate pair, which the second must follow
}

// ordinary are the bytes of a string that stand for themselves.
var ordinary = func() (o [256]bool) {
	for b := ' '; b < utf8.RuneSelf; b++ {
		o[b] = b != '"' && b != '\\'
	}
	return o
}()

// inString reads a string from i on.
func (j *JSON) inString(dst, chunk []byte, i int) ([]byte, int, error) {
	from := i
	for ; i < len(chunk); i++ {
		if !j.escape.open && j.escape.high == 0 && j.utf.left == 0 {
			for i < len(chunk) && ordinary[chunk[i]] {
				i++
			}
			if i == len(chunk) {
				break
			}
		}
		b := chunk[i]
		if j.escape.open {
			var err error
			if dst, err = j.escaped(dst, b, i); err != nil {
				return dst, i, err
			}
			from = i + 1
			continue
		}
		switch {
		case b == '"' || b == '\\':
			if j.utf.left > 0 || b == '"' && j.escape.high != 0 {
				return dst, i, j.fail(i, "a character of a string is not whole")
			}
			var err error
			if dst, err = j.said(dst, chunk[from:i], i); err != nil {
				return dst, i, err
			}
			if b == '"' {
				dst, err = j.endString(dst, i)
				return dst, i + 1, err
			}
			j.escape.open, from = true, i+1
			if j.verbatim() {
				dst = append(dst, b)
			}
		case b < ' ':
			return dst, i, j.fail(i, "a string has a control character")
		case b >= utf8.RuneSelf || j.utf.left > 0:
			if !j.utf.next(b) {
				return dst, i, j.fail(i, "a string is not UTF-8")
			}
			fallthrough
		default:
			if j.escape.high != 0 {
				return dst, i, j.fail(i, "a string has half of a surrogate pair")
			}
		}
	}
	dst, err := j.said(dst, chunk[from:i], i)
	return dst, i, err
}

// verbatim reports whether the string that is read is shown as it is.
func (j *JSON) verbatim() bool {
	return !j.key && j.hide == 0 && j.by == nil && j.text == nil
}

// said takes a piece of the string that is read.
func (j *JSON) said(dst, piece []byte, i int) ([]byte, error) {
	switch {
	case j.verbatim():
		return append(dst, piece...), nil
	case j.keep:
		switch {
		case j.key && len(j.part)+len(piece) > MaxName:
			return dst, j.over(i, "a name", MaxName)
		case len(j.part)+len(piece) > MaxField:
			j.part, j.keep = nil, false // no part of it is shown then
			return dst, nil
		}
		j.part = append(j.part, piece...)
	case j.hide == 0 && j.by == nil:
		j.shown = j.text.Append(j.shown[:0], piece)
		return appendQuoted(dst, j.shown), nil
	}
	return dst, nil
}

// escaped takes a byte of an escape sequence.
func (j *JSON) escaped(dst []byte, b byte, i int) ([]byte, error) {
	e := &j.escape
	if j.verbatim() {
		dst = append(dst, b)
	}
	if e.left == 0 {
		if b == 'u' {
			e.left, e.value = 4, 0
			return dst, nil
		}
		at := -1
		const letters, means = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
		for k := range letters {
			if letters[k] == b {
				at = k
			}
		}
		if at < 0 || e.high != 0 {
			return dst, j.fail(i, "a string has an escape that is none")
		}
		e.open = false
		return j.character(dst, rune(means[at]), i)
	}
	switch {
	case b >= '0' && b <= '9':
		e.value = e.value<<4 | rune(b-'0')
	case b|0x20 >= 'a' && b|0x20 <= 'f':
		e.value = e.value<<4 | rune(b|0x20-'a'+10)
	default:
		return dst, j.fail(i, "a string has an escape that is none")
	}
	if e.left--; e.left > 0 {
		return dst, nil
	}
	e.open = false
	r := e.value
	switch {
	case e.high != 0:
		if r < 0xdc00 || r > 0xdfff {
			return dst, j.fail(i, "a string has half of a surrogate pair")
		}
		r, e.high = (e.high-0xd800)<<10|(r-0xdc00)+0x10000, 0
	case r >= 0xd800 && r < 0xdc00:
		e.high = r
		return dst, nil
	case r >= 0xdc00 && r <= 0xdfff:
		return dst, j.fail(i, "a string has half of a surrogate pair")
	}
	return j.character(dst, r, i)
}

// character takes what an escape sequence means.
func (j *JSON) character(dst []byte, r rune, i int) ([]byte, error) {
	if j.verbatim() {
		return dst, nil // it was shown as it is
	}
	var buf [utf8.UTFMax]byte
	return j.said(dst, buf[:utf8.EncodeRune(buf[:], r)], i)
}

// endString ends a name or a value.
func (j *JSON) endString(dst []byte, i int) ([]byte, error) {
	if j.key {
		j.state = atColon
		return j.member(dst, i)
	}
	switch {
	case j.hide > 0:
	case j.by != nil:
		dst = j.appendMask(dst, j.by, j.part)
	default:
		if j.text != nil {
			j.shown = j.text.Close(j.shown[:0])
			dst = appendQuoted(dst, j.shown)
		}
		dst = append(dst, '"')
	}
	j.done()
	return dst, nil
}
