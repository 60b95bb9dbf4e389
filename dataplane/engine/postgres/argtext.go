package postgres

import (
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/posterngate/postern/pkg/wire"
)

// maxTyped bounds the parameter types that are kept for one prepared statement; further
// parameters are shown as hex.
const maxTyped = 1024

// noteTypes keeps the parameter types of a prepared statement: those of its Parse, or
// all of them once the target has described it. The body is that of a list of types
// with their count.
func (p *prepared) noteTypes(body []byte) {
	c := wire.Read(body)
	n := min(int(uint16(c.Int16())), maxTyped) //nolint:gosec // the count is unsigned
	types := make([]uint32, 0, n)
	for range n {
		types = append(types, c.Uint32())
	}
	if n > 0 && c.Err() == nil {
		p.types = types
	}
}

// argText is a binary parameter as people read it, where its type is known: an approver
// must see 11, and not the four bytes that stand for it. It is for the cold path.
func (c *conn) argText(i int) (string, bool) {
	if i >= len(c.argTypes) || i >= len(c.args.values) {
		return "", false
	}
	oid, value := c.argTypes[i], c.args.values[i]
	if oid == pgtype.ByteaOID {
		return "", false // bytes are best shown as such
	}
	m := pgtype.NewMap()
	t, ok := m.TypeForOID(oid)
	if !ok || !t.Codec.FormatSupported(pgtype.BinaryFormatCode) {
		return "", false
	}
	v, err := t.Codec.DecodeDatabaseSQLValue(m, oid, pgtype.BinaryFormatCode, value)
	if err != nil || v == nil {
		return "", false
	}
	switch v := v.(type) {
	case string:
		return v, true
	case []byte:
		return string(v), true
	case time.Time:
		return v.Format(time.RFC3339Nano), true
	}
	return fmt.Sprint(v), true
}
