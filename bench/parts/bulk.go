package parts

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/posterngate/postern/bench/load"
	"github.com/posterngate/postern/pkg/run"
)

// Bulk is one client that reads whole results and looks at no value.
type Bulk struct {
	Where load.Where
	SQL   string
}

// Read is what it read: answered to a line with a duration, for which it goes on asking.
type Read struct {
	Queries int           `json:"queries"`
	Rows    int64         `json:"rows"` // messages DataRow and CopyData
	Bytes   int64         `json:"bytes"`
	Took    time.Duration `json:"took"`
}

func bulk(ctx context.Context, _ *run.Group, settings json.RawMessage) (any, func(string) (any, error), error) {
	var s Bulk
	if err := json.Unmarshal(settings, &s); err != nil {
		return nil, nil, err
	}
	pc, err := Connect(ctx, s.Where)
	if err != nil {
		return nil, nil, err
	}
	hijacked, err := pc.Hijack()
	if err != nil {
		return nil, nil, err
	}
	r := &reader{conn: hijacked.Conn, buf: make([]byte, 256<<10)}
	query := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(s.SQL)+1))
	query = append(append(query, s.SQL...), 0)
	return struct{}{}, func(line string) (any, error) {
		d, err := time.ParseDuration(line)
		if err != nil {
			return nil, err
		}
		var sum Read
		began := time.Now()
		for sum.Took < d {
			if _, err := r.conn.Write(query); err != nil {
				return nil, err
			}
			if err := r.result(&sum); err != nil {
				return nil, err
			}
			sum.Queries++
			sum.Took = time.Since(began)
		}
		return sum, nil
	}, nil
}

// reader walks over messages by their headers.
type reader struct {
	conn net.Conn
	buf  []byte
	have int // bytes in buf
	skip int // bytes of a message that are still to come
}

// result reads up to ReadyForQuery.
func (r *reader) result(sum *Read) error {
	for {
		n, err := r.conn.Read(r.buf[r.have:])
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		sum.Bytes += int64(n)
		b := r.buf[:r.have+n]
		for {
			if r.skip > 0 {
				m := min(r.skip, len(b))
				b, r.skip = b[m:], r.skip-m
			}
			if len(b) < 5 {
				break
			}
			size := int(binary.BigEndian.Uint32(b[1:]))
			switch b[0] {
			case 'D', 'd':
				sum.Rows++
			case 'E':
				return fmt.Errorf("the server says: %q", b[:min(len(b), size+1)])
			case 'Z':
				if len(b) < 6 {
					break
				}
				r.have = 0
				return nil
			}
			if b[0] == 'Z' {
				break
			}
			r.skip, b = size-4, b[5:]
		}
		r.have = copy(r.buf, b)
	}
}
