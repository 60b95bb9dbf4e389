package parts

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"

	"github.com/posterngate/postern/pkg/run"
)

// Blaster answers queries of one table from memory, as fast as the other side reads, and
// passes everything else on to a real server.
type Blaster struct {
	Listen  string // host:port
	Backend string
	Table   string // a query whose text has this is answered
	Columns []Column
	Row     []string
	Rows    int
}

// RowBytes is the size of a row's message.
func (s *Blaster) RowBytes() float64 {
	n := 7
	for _, v := range s.Row {
		n += 4 + len(v)
	}
	return float64(n)
}

// A Column as RowDescription has it.
type Column struct {
	Name      string
	Table     uint32
	Attribute uint16
	Type      uint32
	Size      int16
	Modifier  int32
}

func blaster(_ context.Context, g *run.Group, settings json.RawMessage) (any, func(string) (any, error), error) {
	var s Blaster
	if err := json.Unmarshal(settings, &s); err != nil {
		return nil, nil, err
	}
	answer, err := s.answer()
	if err != nil {
		return nil, nil, err
	}
	hello, err := serveAt(g, s.Listen, func(ctx context.Context, client *net.TCPConn) {
		server, err := dial(s.Backend)
		if err != nil {
			return
		}
		defer func() { _ = server.Close() }()
		both(ctx, client, server,
			func() error { return s.up(client, server, answer) },
			func() error { _, err := io.Copy(client, server); return err })
	})
	return hello, nil, err
}

// message appends one message of the protocol.
func message(dst []byte, kind byte, body []byte) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, kind), uint32(len(body)+4))
	return append(dst, body...)
}

// burst is how many bytes of rows are written at once.
const burst = 1 << 20

// answers is one result: what comes before the rows, a burst of rows that is written
// again and again, and what comes after.
type answers struct {
	before, rows, after []byte
	times               int
}

func (s *Blaster) answer() (*answers, error) {
	if len(s.Columns) == 0 || len(s.Columns) != len(s.Row) {
		return nil, errors.New("blaster: a row has one value for each column")
	}
	body := binary.BigEndian.AppendUint16(nil, uint16(len(s.Columns)))
	row := binary.BigEndian.AppendUint16(nil, uint16(len(s.Row)))
	for i, c := range s.Columns {
		body = append(append(body, c.Name...), 0)
		body = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(body, c.Table), c.Attribute)
		body = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(body, c.Type), uint16(c.Size))
		body = append(binary.BigEndian.AppendUint32(body, uint32(c.Modifier)), 0, 0) // text
		row = binary.BigEndian.AppendUint32(row, uint32(len(s.Row[i])))
		row = append(row, s.Row[i]...)
	}
	a := &answers{before: message(nil, 'T', body)}
	one := message(nil, 'D', row)
	n := max(1, burst/len(one))
	a.rows, a.times = bytes.Repeat(one, n), max(1, s.Rows/n)
	a.after = message(message(nil, 'C', []byte("SELECT 1\x00")), 'Z', []byte{'I'})
	return a, nil
}

// up passes the client's messages on, but for those that are answered here. While one
// is, the server has nothing to say.
func (s *Blaster) up(client, server *net.TCPConn, a *answers) error {
	var head [5]byte
	if _, err := io.ReadFull(client, head[:4]); err != nil { // the startup packet has no kind
		return err
	}
	size := int64(binary.BigEndian.Uint32(head[:4])) - 4
	if _, err := server.Write(head[:4]); err != nil {
		return err
	}
	if _, err := io.CopyN(server, client, size); err != nil {
		return err
	}
	for {
		if _, err := io.ReadFull(client, head[:]); err != nil {
			return err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return err
		}
		if head[0] == 'Q' && bytes.Contains(body, []byte(s.Table)) {
			if err := a.write(client); err != nil {
				return err
			}
			continue
		}
		if _, err := server.Write(append(head[:], body...)); err != nil {
			return err
		}
	}
}

func (a *answers) write(c net.Conn) error {
	if _, err := c.Write(a.before); err != nil {
		return err
	}
	for range a.times {
		if _, err := c.Write(a.rows); err != nil {
			return err
		}
	}
	_, err := c.Write(a.after)
	return err
}
