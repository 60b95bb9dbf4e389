package twoworlds

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A Message is one message of the server as it came over the wire, from the answer to
// the startup packet on. The type is 0 where the server closed the connection instead.
type Message struct {
	Type byte
	Body []byte
}

// A Transcript is everything that a client saw, in order.
type Transcript []Message

// Count is how many messages have one of the types.
func (t Transcript) Count(types string) int {
	return len(t.Only(types))
}

// Size is the bytes of all bodies.
func (t Transcript) Size() int {
	n := 0
	for _, m := range t {
		n += len(m.Body)
	}
	return n
}

// Contains reports whether a text stands anywhere in what the client saw.
func (t Transcript) Contains(text string) bool {
	for _, m := range t {
		if bytes.Contains(m.Body, []byte(text)) {
			return true
		}
	}
	return false
}

// Errors are the ErrorResponses.
func (t Transcript) Errors() []*pgproto3.ErrorResponse {
	var out []*pgproto3.ErrorResponse
	for _, m := range t {
		if m.Type == 'E' {
			e := &pgproto3.ErrorResponse{}
			if e.Decode(m.Body) == nil {
				out = append(out, e)
			}
		}
	}
	return out
}

// Only is the messages of some types.
func (t Transcript) Only(types string) Transcript {
	var out Transcript
	for _, m := range t {
		if m.Type != 0 && strings.IndexByte(types, m.Type) >= 0 {
			out = append(out, m)
		}
	}
	return out
}

// Anonymous is the transcript without what its row descriptions say of tables.
func (t Transcript) Anonymous() Transcript {
	out := slices.Clone(t)
	for i := range out {
		var d pgproto3.RowDescription
		if out[i].Type != 'T' || d.Decode(out[i].Body) != nil {
			continue
		}
		for k := range d.Fields {
			d.Fields[k].TableOID, d.Fields[k].TableAttributeNumber = 0, 0
		}
		if b, err := d.Encode(nil); err == nil {
			out[i].Body = b[5:]
		}
	}
	return out
}

// Last is what came after the last but one ReadyForQuery: the answer to the last of
// several requests.
func (t Transcript) Last() Transcript {
	for i := len(t) - 2; i >= 0; i-- {
		if t[i].Type == 'Z' {
			return t[i+1:]
		}
	}
	return t
}

// Answers are the parts of the transcript that end with a ReadyForQuery each. They share
// its memory.
func (t Transcript) Answers() []Transcript {
	var out []Transcript
	from := 0
	for i := range t {
		if t[i].Type == 'Z' {
			out, from = append(out, t[from:i+1]), i+1
		}
	}
	return out
}

// String is the transcript in short: "T D:1,*** C:SELECT 1 Z:I". Startup is left out.
func (t Transcript) String() string {
	var b strings.Builder
	for i, m := range t {
		if i > 0 {
			b.WriteByte(' ')
		}
		m.short(&b)
	}
	return b.String()
}

func (m Message) short(b *strings.Builder) {
	switch m.Type {
	case 0:
		b.WriteString("closed")
	case 'Z', 'C', 'S', 'A':
		fmt.Fprintf(b, "%c:%s", m.Type, bytes.ReplaceAll(bytes.TrimRight(m.Body, "\x00"), []byte{0}, []byte{'='}))
	case 'D':
		var row pgproto3.DataRow
		if row.Decode(m.Body) != nil {
			b.WriteString("D:?")
			return
		}
		fmt.Fprintf(b, "D:%s", bytes.Join(row.Values, []byte{','}))
	case 'E', 'N':
		e := &pgproto3.ErrorResponse{}
		if e.Decode(m.Body) != nil {
			fmt.Fprintf(b, "%c:?", m.Type)
			return
		}
		fmt.Fprintf(b, "%c:%s", m.Type, e.Code)
	case 'd':
		fmt.Fprintf(b, "d:%q", m.Body)
	default:
		b.WriteByte(m.Type)
	}
}

// passing are texts that differ between two sessions and say nothing of data: which
// world, which session, which hold.
var passing = regexp.MustCompile(`\b(result|source|native)-[ab]\b|\b[hs]-[a-z0-9]{12,32}\b|\bg-[a-z0-9]{8,32}\b|\bpostern_[0-9a-f]{8}_(l_[a-z0-9]{8,32}\b)?`)

// Tokens are what masks of method token write. They may differ from world to world, but
// equal ones must be equal in both.
var Tokens = regexp.MustCompile(`tok_[A-Za-z0-9_-]{8,}`)

// comparable writes the transcript down so that two sessions that showed the same to
// their clients have the same bytes. Tokens are numbered as they first appear.
func (t Transcript) comparable() []byte {
	var out []byte
	numbers := map[string]int{}
	for _, m := range t {
		body := m.Body
		if m.Type == 'K' { // the cancel key: random by design
			body = nil
		}
		if m.Type == 'E' {
			body = late(body)
		}
		body = passing.ReplaceAllFunc(body, func(b []byte) []byte { return bytes.Repeat([]byte{'.'}, len(b)) })
		body = Tokens.ReplaceAllFunc(body, func(b []byte) []byte {
			n, ok := numbers[string(b)]
			if !ok {
				n = len(numbers)
				numbers[string(b)] = n
			}
			return fmt.Appendf(nil, "tok#%06d", n)
		})
		out = append(out, m.Type)
		out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
		out = append(out, body...)
	}
	return out
}

// late is an ErrorResponse without the place where a statement was when its time was over.
func late(body []byte) []byte {
	var e pgproto3.ErrorResponse
	if e.Decode(body) != nil || e.Code != deadline || e.Where == "" {
		return body
	}
	return []byte(e.Severity + e.Code + e.Message)
}

// An Outcome is what the clients of both worlds saw.
type Outcome [2]Transcript

// equal reports that there is nothing to compare: most answers are the same, byte by byte.
func (o Outcome) equal() bool {
	return slices.EqualFunc(o[0], o[1], func(a, b Message) bool { return a.Type == b.Type && bytes.Equal(a.Body, b.Body) })
}

// Difference says where the worlds can be told apart; "" where they cannot.
func (o Outcome) Difference() string {
	if o.equal() || bytes.Equal(o[0].comparable(), o[1].comparable()) {
		return ""
	}
	n := min(len(o[0]), len(o[1]))
	for i := range n {
		if !bytes.Equal(o[0][i:i+1].comparable(), o[1][i:i+1].comparable()) {
			return fmt.Sprintf("message %d is %c %.200q and %c %.200q", i, o[0][i].Type, o[0][i].Body, o[1][i].Type, o[1][i].Body)
		}
	}
	if len(o[0]) != len(o[1]) {
		return fmt.Sprintf("%d messages and %d: after message %d comes %s and %s", len(o[0]), len(o[1]), n, o[0][n:], o[1][n:])
	}
	return "tokens that are equal in one world differ in the other"
}

// Late reports whether the worlds cannot be told apart up to where a deadline ended the
// answer of one of them: what comes after is a matter of time.
func (o Outcome) Late() bool {
	for i := range min(len(o[0]), len(o[1])) {
		if bytes.Equal(o[0][i:i+1].comparable(), o[1][i:i+1].comparable()) {
			continue
		}
		return slices.ContainsFunc([]Message{o[0][i], o[1][i]}, func(m Message) bool {
			errs := Transcript{m}.Errors()
			return len(errs) == 1 && (errs[0].Code == deadline || parserLate.MatchString(errs[0].Message))
		})
	}
	return false
}

// deadline is the SQLSTATE of a statement whose time is over.
const deadline = "57014"

// parserLate is how a node refuses what its parser had no time for.
var parserLate = regexp.MustCompile(`^postern: .*(i/o timeout|deadline exceeded|could not be analysed safely)$`)
