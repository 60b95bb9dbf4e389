package terminal

// row is the column where the cursor's row begins.
func (s *Stream) row() int {
	if s.width <= 0 {
		return 0
	}
	col := s.col
	if s.full() {
		col-- // it stands behind the last column, and wraps with the next character
	}
	return col - col%s.width
}

// full reports whether the cursor's row is full, so that the next character wraps.
func (s *Stream) full() bool {
	return s.width > 0 && s.col > 0 && s.col%s.width == 0 && s.col == s.first+len(s.line)
}

// put writes one character at the cursor.
func (s *Stream) put(b byte) {
	at := len(s.raw) - 1
	if len(s.typed) > 0 {
		if s.typed[0] == b {
			s.typed = append(s.typed[:0], s.typed[1:]...)
			at = gone
		} else {
			s.typed = s.typed[:0]
		}
	}
	s.place(b, at)
}

// place writes a character that is in raw at some place at the cursor.
func (s *Stream) place(b byte, at int) {
	s.wrapped = false
	i := s.col - s.first
	if i < 0 { // of what is not kept any more
		s.leave()
		i = 0
	}
	for len(s.line) < i {
		s.line, s.at = append(s.line, ' '), append(s.at, gone)
	}
	if i == len(s.line) {
		s.line, s.at = append(s.line, b), append(s.at, at)
	} else {
		s.settle(i)
		s.line[i], s.at[i] = b, at
	}
	s.col++
}

// control obeys a control character.
func (s *Stream) control(b byte) {
	switch b {
	case '\r':
		s.wrapped = s.full() || s.wrapped
		if s.wrapped {
			s.look(true) // it may end here as well
		}
		s.col = s.row()
	case '\n', '\v', '\f':
		if (s.wrapped || s.full()) && b == '\n' {
			s.look(true)
			s.wrapped, s.joined = false, len(s.line)
			s.col = s.first + len(s.line)
			return
		}
		s.line, s.at = append(s.line, '\n'), append(s.at, gone)
		s.leave()
	case '\b':
		s.move(-1)
	case '\t':
		s.move(8 - (s.col-s.row())%8)
	}
}

// move moves the cursor within its row.
func (s *Stream) move(by int) {
	s.wrapped = false
	s.to(s.col - s.row() + by)
}

// to moves the cursor to a column of its row.
func (s *Stream) to(col int) {
	last := maxColumn
	if s.width > 0 {
		last = min(last, s.width-1)
	}
	s.col = s.row() + min(max(col, 0), last)
}

// blank writes over from to to with nothing, where there is something.
func (s *Stream) blank(from, to int) {
	from, to = max(0, from-s.first), min(to-s.first, len(s.line))
	for i := from; i < to; i++ {
		s.settle(i)
		s.line[i], s.at[i] = ' ', gone
	}
	for n := len(s.line); to == n && n > from && n > 0; n-- { // nothing is left at the end
		s.line, s.at = s.line[:n-1], s.at[:n-1]
		to--
	}
}

// sequence obeys a control sequence.
func (s *Stream) sequence(final byte, n int, private bool) {
	row, end := s.row(), s.first+len(s.line)
	count := max(n, 1)
	if private {
		if final == 'h' || final == 'l' {
			if n == 47 || n == 1047 || n == 1049 { // the other screen
				s.leave()
			}
		}
		return
	}
	i := s.col - s.first
	switch final {
	case 'C', 'a':
		s.move(min(count, maxColumn))
	case 'D':
		s.move(-min(count, maxColumn))
	case 'G', '`':
		s.wrapped = false
		s.to(min(count, maxColumn) - 1)
	case 'K':
		switch n {
		case 1:
			s.blank(row, s.col+1)
		case 2:
			s.blank(row, end)
		default:
			s.blank(s.col, end)
		}
	case 'X':
		s.blank(s.col, s.col+min(count, maxColumn))
	case 'P':
		if i >= 0 && i < len(s.line) {
			s.settleFrom(i)
			count = min(count, len(s.line)-i)
			s.line, s.at = append(s.line[:i], s.line[i+count:]...), append(s.at[:i], s.at[i+count:]...)
		}
	case '@':
		if len(s.line) > maxLine {
			s.leave()
		} else if i >= 0 && i < len(s.line) {
			s.settleFrom(i)
			for range min(count, maxColumn) {
				s.line, s.at = append(s.line, 0), append(s.at, 0)
				copy(s.line[i+1:], s.line[i:])
				copy(s.at[i+1:], s.at[i:])
				s.line[i], s.at[i] = ' ', gone
			}
		}
	case 'b': // the character before once more, masked where that is
		if len(s.line) > maxLine {
			s.leave()
		} else if i > 0 && i <= len(s.line) {
			for range min(count, maxColumn) {
				s.place(s.line[i-1], gone)
			}
		}
	case 'J':
		if n == 0 {
			s.blank(s.col, end)
		} else {
			s.leave()
		}
	case 'A', 'B', 'E', 'F', 'H', 'f', 'd', 'I', 'Z', 'L', 'M', 'S', 'T', 'r', 's', 'u', 'e', 'k':
		s.leave()
	}
}

// settleFrom looks at the line where anything from i on was not looked at yet.
func (s *Stream) settleFrom(i int) {
	for ; i < len(s.at); i++ {
		if s.at[i] >= s.fresh {
			s.settle(i)
			return
		}
	}
}
