// Package terminal masks what a host writes to a terminal. What is looked at is the line
// as a person sees it: without escape sequences, with what was overwritten in its last
// form as well as in the one before, and joined where it is wrapped at the terminal's
// width. The bytes keep their sequences and their columns, for what is masked is masked
// character by character. A text that is put together by addressing places all over the
// screen is not seen through.
package terminal

import (
	"slices"

	"github.com/posterngate/postern/pkg/detect"
)

const (
	// maxLine is the longest line that is kept for context, in characters.
	maxLine = 2 * detect.MaxWord
	// maxTyped is how much of what was typed is waited for.
	maxTyped = 256
	// maxColumn is the widest that a line may be made by moving.
	maxColumn = 1024
)

// A Stream masks what comes for one terminal. It holds back what may still become
// something, as detect.Stream does, and allocates nothing once it has held the most. It is
// for one goroutine.
type Stream struct {
	set   *detect.Set
	sc    detect.Scanner // at the beginning of the line
	width int            // of this line
	next  int            // of lines to come
	parse parser

	raw   []byte // held back, with what is masked so far
	fresh int    // from where raw was not looked at as final

	line    []byte // the line as it is seen
	at      []int  // where each character is in raw; gone where it was shown
	first   int    // column of the line's first character, over all rows
	col     int    // of the cursor, over all rows
	joined  int    // where in line the last row begins that may be a line of its own; 0 for none
	wrapped bool   // a return came at the end of a full row
	flushed int    // the column up to which was flushed, or none

	said     detect.Scanner // of the text within an escape sequence
	saidFrom int            // from where in raw that is not decided

	typed   []byte
	matches []detect.Match
	filled  []byte
}

const (
	gone = -1
	none = -1
)

// New is a Stream for a terminal of some columns; 0 where that is not known.
func New(set *detect.Set, width int) *Stream {
	return &Stream{set: set, sc: set.NewScanner(), width: width, next: width, flushed: none}
}

// Resize says that the terminal has another width. The line that is under way keeps its
// own: to end it would cut in two what stands in it.
func (s *Stream) Resize(width int) {
	if s.next = width; len(s.line) == 0 && s.col == 0 {
		s.width = width
	}
}

// Typed says what the client has just sent. Its echo passes at once, for whoever typed it
// knows it.
func (s *Stream) Typed(p []byte) {
	s.typed = append(s.typed, p...)
	for i := len(s.typed) - 1; i >= 0; i-- {
		if s.typed[i] < ' ' || s.typed[i] == 0x7f {
			s.typed = append(s.typed[:0], s.typed[i+1:]...)
			break
		}
	}
	if len(s.typed) > maxTyped {
		s.typed = s.typed[:0]
	}
}

// Append appends to dst what may be shown once chunk has come. The chunk is not kept.
func (s *Stream) Append(dst, chunk []byte) []byte {
	for _, b := range chunk {
		s.raw = append(s.raw, b)
		s.byte(b)
	}
	end := s.undecided()
	if s.parse.state == text {
		s.say(false)
		end = min(end, s.saidFrom)
	}
	return s.release(dst, end)
}

// Flush appends what is held back where that is harmless so far: a short beginning of a
// word, such as the end of a prompt that waits for an answer. It is for when nothing has
// come for detect.FlushAfter. One word is flushed once, so that what drips is not shown drop
// by drop: a match that begins in what was shown is masked from there on.
func (s *Stream) Flush(dst []byte) []byte {
	done, sc := s.look(false)
	if done == len(s.line) || s.parse.state == text || s.flushed >= s.first+done || !sc.Harmless(s.line[done:]) {
		return dst
	}
	s.flushed = s.first + done
	return s.release(dst, len(s.raw))
}

// Close appends the rest, for nothing more comes.
func (s *Stream) Close(dst []byte) []byte {
	s.leave()
	if s.parse.state == text {
		s.say(true)
	}
	s.parse = parser{}
	return s.release(dst, len(s.raw))
}

// Held is how many bytes are held back.
func (s *Stream) Held() int { return len(s.raw) }

// release appends what is held back up to end.
func (s *Stream) release(dst []byte, end int) []byte {
	dst = append(dst, s.raw[:end]...)
	s.raw = append(s.raw[:0], s.raw[end:]...)
	s.fresh, s.saidFrom = max(0, s.fresh-end), max(0, s.saidFrom-end)
	for i := range s.at {
		s.at[i] = max(gone, s.at[i]-end)
	}
	return dst
}

// undecided is where in raw the first character is that may not be shown yet.
func (s *Stream) undecided() int {
	done, sc := s.look(false)
	end := len(s.raw)
	for _, at := range s.at[done:] {
		if at != gone {
			end = min(end, at)
		}
	}
	if len(s.line) > maxLine && done > 0 && s.col >= s.first+done {
		s.sc = sc
		s.drop(done)
	}
	return end
}

// drop forgets the first n characters of the line.
func (s *Stream) drop(n int) {
	s.line = append(s.line[:0], s.line[n:]...)
	s.at = append(s.at[:0], s.at[n:]...)
	s.first += n
	s.joined = max(0, s.joined-n)
}

// look masks what is found in the line, and in its last row by itself where that may be
// another line. What follows done is not decided.
func (s *Stream) look(final bool) (done int, sc detect.Scanner) {
	sc = s.sc
	done = s.mask(&sc, 0, final)
	if s.joined = min(s.joined, len(s.line)); s.joined > 0 {
		alone := s.set.NewScanner()
		done = min(done, s.joined+s.mask(&alone, s.joined, final))
	}
	return done, sc
}

// mask masks what is found in the line from a character on.
func (s *Stream) mask(sc *detect.Scanner, from int, final bool) (done int) {
	line, at := s.line[from:], s.at[from:]
	done, s.matches = sc.Scan(line, final, s.matches[:0])
	for _, m := range s.matches {
		m.More = m.More || slices.Contains(at[m.From:m.To], gone) // what is left shows no part
		s.filled = s.set.AppendFilled(s.filled[:0], m, line[m.From:m.To])
		for i, at := range at[m.From:m.To] {
			if at == gone || s.raw[at] == s.filled[i] {
				continue
			}
			s.raw[at] = s.filled[i]
			for at++; at < len(s.raw) && s.raw[at]&0xc0 == 0x80; at++ {
				s.raw[at] = 0 // the rest of a character, which no terminal shows
			}
		}
	}
	return done
}

// settle looks at the line as it is now, before it is changed, where the character at i
// was not looked at yet.
func (s *Stream) settle(i int) {
	if i < len(s.at) && s.at[i] >= s.fresh {
		s.look(true)
		s.fresh = len(s.raw) - 1 // the last one is what changes it
	}
}

// say masks what is found in the text of an escape sequence, such as a title.
func (s *Stream) say(final bool) {
	var done int
	said := s.raw[s.saidFrom:]
	done, s.matches = s.said.Scan(said, final, s.matches[:0])
	for _, m := range s.matches {
		s.filled = s.set.AppendFilled(s.filled[:0], m, said[m.From:m.To])
		copy(said[m.From:], s.filled)
	}
	s.saidFrom += done
}

// leave ends the line: nothing is added to it any more.
func (s *Stream) leave() {
	if len(s.line) > 0 {
		_, s.sc = s.look(true)
	}
	s.line, s.at = s.line[:0], s.at[:0]
	s.first, s.col, s.joined, s.flushed, s.wrapped = 0, 0, 0, none, false
	s.width = s.next
}
