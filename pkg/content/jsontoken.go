package content

// inToken reads a number or a word from i on.
func (j *JSON) inToken(dst, chunk []byte, i int) ([]byte, int, error) {
	from := i
	for i < len(chunk) {
		b := chunk[i]
		if b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'z' || b == '-' || b == '+' || b == '.' {
			i++
			continue
		}
		if len(j.part)+i-from > MaxNumber {
			return dst, i, j.over(i, "a number", MaxNumber)
		}
		j.part = append(j.part, chunk[from:i]...)
		dst, err := j.endToken(dst, i)
		return dst, i, err
	}
	if len(j.part)+i-from > MaxNumber {
		return dst, i, j.over(i, "a number", MaxNumber)
	}
	j.part = append(j.part, chunk[from:i]...)
	return dst, i, nil
}

// endToken ends a number or a word.
func (j *JSON) endToken(dst []byte, i int) ([]byte, error) {
	null := string(j.part) == "null"
	if j.state == inWord && !null && string(j.part) != "true" && string(j.part) != "false" || j.state == inNumber && !number(j.part) {
		return dst, j.fail(i, "a value is expected")
	}
	switch {
	case j.hide > 0:
	case j.by != nil && null && !j.by.Constant():
		dst = append(dst, "null"...)
	case j.by != nil:
		text := j.part
		if j.state == inWord {
			text = nil
		}
		dst = j.appendMask(dst, j.by, text)
	case j.rule.set != nil && j.state == inNumber:
		var found bool
		if j.shown, found = j.rule.set.AppendMasked(j.shown[:0], j.part); !found {
			dst = append(dst, j.part...)
			break
		}
		dst = append(appendQuoted(append(dst, '"'), j.shown), '"')
	default:
		dst = append(dst, j.part...)
	}
	j.done()
	return dst, nil
}

// number reports whether text is a number of JSON.
func number(text []byte) bool {
	i := 0
	digits := func() bool {
		from := i
		for i < len(text) && text[i] >= '0' && text[i] <= '9' {
			i++
		}
		return i > from
	}
	if i < len(text) && text[i] == '-' {
		i++
	}
	if i < len(text) && text[i] == '0' {
		i++
	} else if !digits() {
		return false
	}
	if i < len(text) && text[i] == '.' {
		if i++; !digits() {
			return false
		}
	}
	if i < len(text) && text[i]|0x20 == 'e' {
		i++
		if i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		if !digits() {
			return false
		}
	}
	return i == len(text)
}
