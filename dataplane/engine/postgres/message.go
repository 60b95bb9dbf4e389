package postgres

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/wire"
)

// headerLen is a type byte and a length that counts itself.
const headerLen = 5

// next looks at the message at the start of in. size is that of the whole message, or
// 0 while the header has not arrived.
func next(in []byte) (typ byte, size int, err error) {
	if len(in) < headerLen {
		return 0, 0, nil
	}
	n := binary.BigEndian.Uint32(in[1:])
	if n < 4 || n > 1<<30 {
		return 0, 0, broken(fmt.Sprintf("message %q has length %d", in[0], n))
	}
	return in[0], int(n) + 1, nil
}

// broken is the refusal of what is not the protocol; it ends the session.
func broken(what string) *postern.Refusal {
	return &postern.Refusal{Code: postern.CodeProtocol, Reason: what}
}

// readMessage reads one message of a handshake and nothing after it. Its body is at
// most limit bytes.
func readMessage(r io.Reader, limit int) (typ byte, body []byte, err error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, fmt.Errorf("read message: %w", err)
	}
	n := int64(binary.BigEndian.Uint32(h[1:])) - 4
	if n < 0 || n > int64(limit) {
		return 0, nil, fmt.Errorf("read message %q: %w", h[0], &wire.LimitError{What: "the message", Limit: limit})
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, fmt.Errorf("read message %q: %w", h[0], err)
	}
	return h[0], body, nil
}

// begin appends a message header whose length end sets.
func begin(dst []byte, typ byte) ([]byte, int) {
	dst = append(dst, typ, 0, 0, 0, 0)
	return dst, len(dst) - 4
}

func end(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at)) //nolint:gosec // bounded by the message limit
	return dst
}

func appendCString(dst []byte, s string) []byte { return append(append(dst, s...), 0) }

func appendQuery(dst []byte, text string) []byte {
	dst, at := begin(dst, 'Q')
	return end(appendCString(dst, text), at)
}

// appendParse appends a Parse; types is the wire form of its parameter types with
// their count in front.
func appendParse(dst []byte, name, text string, types []byte) []byte {
	dst, at := begin(dst, 'P')
	dst = appendCString(appendCString(dst, name), text)
	return end(append(dst, types...), at)
}

// noTypes is the parameter types of a Parse that says none.
var noTypes = []byte{0, 0}

func appendEmpty(dst []byte, typ byte) []byte { return append(dst, typ, 0, 0, 0, 4) }

func appendReady(dst []byte, status byte) []byte { return append(dst, 'Z', 0, 0, 0, 5, status) }

func appendStatus(dst []byte, name, value string) []byte {
	dst, at := begin(dst, 'S')
	return end(appendCString(appendCString(dst, name), value), at)
}

// queryText is the text of a Query; a zero byte within it, or bytes after it, are
// broken, since parsers would stop there and the target might not.
func queryText(body []byte) ([]byte, error) {
	c := wire.Read(body)
	text := c.CString()
	if c.Done() != nil && !hole.Is("wire-nul") {
		return nil, broken("invalid string in message")
	}
	return text, nil
}

type parseMessage struct {
	name, text []byte
	types      []byte // wire form, with their count
}

// maxName is how much of a name the target keeps, in its own encoding: it cuts the rest off
// and does not say so.
const maxName = 63

// cut refuses names of which the target might keep a part alone: what is said of one name
// would then hold there for another. Outside of ASCII its encoding decides how long they are.
func cut(names ...[]byte) *postern.Refusal {
	for _, name := range names {
		if len(name) > maxName || bytes.IndexFunc(name, func(r rune) bool { return r > '~' }) >= 0 {
			return &postern.Refusal{
				Code: postern.CodeLimit, Reason: fmt.Sprintf("the name of a prepared statement or cursor has more than %d characters, or others than ASCII", maxName),
				Hint: "the resource would cut it: use a shorter one",
			}
		}
	}
	return nil
}

func decodeParse(body []byte) (parseMessage, error) {
	c := wire.Read(body)
	m := parseMessage{name: c.CString(), text: c.CString()}
	m.types = c.Rest()
	n := int(uint16(c.Int16())) //nolint:gosec // the count is unsigned
	c.Bytes(4 * n)
	if c.Done() != nil {
		return m, broken("invalid Parse message")
	}
	return m, nil
}

// each calls fn with every parameter type.
func (m *parseMessage) each(fn func(oid uint32) bool) bool {
	c := wire.Read(m.types)
	for range int(uint16(c.Int16())) { //nolint:gosec // the count is unsigned
		if !fn(c.Uint32()) {
			return false
		}
	}
	return true
}

// decodeBind splits a Bind into its names and the parameters, as they lie.
func decodeBind(body []byte) (portal, statement, params []byte, err error) {
	c := wire.Read(body)
	portal, statement = c.CString(), c.CString()
	params = c.Rest()
	skip16s(&c)
	skipValues(&c)
	skip16s(&c)
	if c.Done() != nil {
		return nil, nil, nil, &miscounted
	}
	return portal, statement, params, nil
}

func skip16s(c *wire.Cursor) { c.Bytes(2 * int(uint16(c.Int16()))) } //nolint:gosec // the count is unsigned

func skipValues(c *wire.Cursor) {
	for range int(uint16(c.Int16())) { //nolint:gosec // the count is unsigned
		n := c.Int32()
		if c.Err() != nil {
			return
		}
		if n != -1 {
			c.Bytes(int(n))
		}
	}
}

// bound holds the parameters of one execution; its slices are reused.
type bound struct {
	formats []int16
	values  [][]byte
	nulls   []bool
	results []int16 // the formats that were asked for
}

// set decodes params, which decodeBind has checked.
func (b *bound) set(params []byte) {
	b.formats, b.values, b.nulls, b.results = b.formats[:0], b.values[:0], b.nulls[:0], b.results[:0]
	if len(params) == 0 {
		return
	}
	c := wire.Read(params)
	for range int(uint16(c.Int16())) { //nolint:gosec // the count is unsigned
		b.formats = append(b.formats, c.Int16())
	}
	for range int(uint16(c.Int16())) { //nolint:gosec // the count is unsigned
		n := c.Int32()
		b.nulls = append(b.nulls, n == -1)
		if n == -1 {
			b.values = append(b.values, nil)
			continue
		}
		b.values = append(b.values, c.Bytes(int(n)))
	}
	for range int(uint16(c.Int16())) { //nolint:gosec // the count is unsigned
		b.results = append(b.results, c.Int16())
	}
}

// isBinary applies the protocol's rule for formats: none means text, one is for all.
func isBinary(formats []int16, i int) bool {
	if len(formats) == 1 {
		i = 0
	}
	return i < len(formats) && formats[i] == 1
}

func (b *bound) null(i int) bool { return i >= 0 && i < len(b.nulls) && b.nulls[i] }

// decodeTarget reads a Describe or Close: what it is about, 'S' or 'P', and the name.
func decodeTarget(body []byte) (what byte, name []byte, err error) {
	c := wire.Read(body)
	what, name = c.Byte(), c.CString()
	if c.Done() != nil || (what != 'S' && what != 'P') {
		return 0, nil, broken("invalid Describe or Close message")
	}
	return what, name, nil
}

// decodeExecute reads an Execute; rows is how many it asks for, and none is all.
func decodeExecute(body []byte) (portal []byte, rows int32, err error) {
	c := wire.Read(body)
	portal, rows = c.CString(), c.Int32()
	if c.Done() != nil {
		return nil, 0, broken("invalid Execute message")
	}
	return portal, rows, nil
}

// A column is one field of a RowDescription.
type column struct {
	name   []byte
	table  uint32
	attnum int16
	typ    uint32
	format int16
}

// eachColumn calls fn with every column of a RowDescription until it returns false.
func eachColumn(body []byte, fn func(column) bool) error {
	c := wire.Read(body)
	for range int(uint16(c.Int16())) { //nolint:gosec // the count is unsigned
		col := column{name: c.CString(), table: c.Uint32(), attnum: c.Int16(), typ: c.Uint32()}
		c.Bytes(6) // size and modifier of the type
		col.format = c.Int16()
		if c.Err() != nil {
			return c.Err()
		}
		if !fn(col) {
			return nil
		}
	}
	return c.Done()
}

// commandTag is the tag of a CommandComplete, without its zero byte.
func commandTag(body []byte) []byte { return bytes.TrimSuffix(body, []byte{0}) }

// tagRows is the number that ends a tag such as "UPDATE 3", or -1.
func tagRows(tag []byte) int64 {
	i := bytes.LastIndexByte(tag, ' ')
	digits := tag[i+1:]
	if i < 0 || len(digits) == 0 || len(digits) > 18 {
		return -1
	}
	var n int64
	for _, d := range digits {
		if d < '0' || d > '9' {
			return -1
		}
		n = 10*n + int64(d-'0')
	}
	return n
}
