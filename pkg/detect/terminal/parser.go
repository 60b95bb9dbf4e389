package terminal

// parser tells escape sequences from text, as ECMA-48 and xterm have them.
type parser struct {
	state   state
	n       int  // the first parameter
	first   bool // it is still read
	private bool
}

type state uint8

const (
	ground state = iota
	escape
	charset  // one more byte follows
	sequence // CSI
	text     // OSC, DCS and alike: to BEL or ST
	textEnd  // an escape within it
)

// byte takes the next byte, which is the last of raw.
func (s *Stream) byte(b byte) {
	p := &s.parse
	switch p.state {
	case ground:
		switch {
		case b == 0x1b:
			p.state = escape
		case b < ' ' || b == 0x7f:
			s.control(b)
		case b&0xc0 != 0x80: // what goes on with a character takes no column
			s.put(b)
		}
	case escape:
		s.escaped(b)
	case charset:
		p.state = ground
	case sequence:
		s.within(b)
	case text:
		switch b {
		case 0x07, 0x18, 0x1a:
			s.say(true)
			p.state = ground
		case 0x1b:
			s.say(true)
			p.state = textEnd
		}
	case textEnd:
		if p.state = ground; b != '\\' {
			s.escaped(b)
		}
	}
}

// escaped takes the byte after an escape.
func (s *Stream) escaped(b byte) {
	p := &s.parse
	switch {
	case b == '[':
		*p = parser{state: sequence, first: true}
	case b == ']' || b == 'P' || b == 'X' || b == '^' || b == '_':
		p.state = text
		s.said, s.saidFrom = s.set.NewScanner(), len(s.raw)
	case b >= ' ' && b <= '/':
		p.state = charset
	case b == 0x1b:
		p.state = escape
	default:
		p.state = ground
		switch b {
		case '7', '8', 'c', 'D', 'E', 'M':
			s.leave()
		}
		if b < ' ' {
			s.control(b)
		}
	}
}

// within takes a byte of a control sequence.
func (s *Stream) within(b byte) {
	p := &s.parse
	switch {
	case b >= '0' && b <= '9':
		if p.first {
			p.n = min(p.n*10+int(b-'0'), 1<<20)
		}
	case b == '?' || b == '>' || b == '<' || b == '=':
		p.private = true
	case b == ';' || b == ':':
		p.first = false
	case b >= ' ' && b <= '/': // an intermediate
	case b >= '@' && b <= '~':
		p.state = ground
		s.sequence(b, p.n, p.private)
	case b == 0x1b:
		p.state = escape
	case b == 0x18 || b == 0x1a:
		p.state = ground
	case b < ' ':
		s.control(b) // obeyed at once, within the sequence
	}
}
