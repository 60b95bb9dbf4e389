package record

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

var errDataRow = errors.New("record: malformed rows")

// dataRows calls fn with the values of each row in a span of EncodingDataRow; nil is
// NULL. The slices share memory with span and are valid during the call alone.
func dataRows(span []byte, fn func(values [][]byte) error) error {
	var values [][]byte
	for len(span) > 0 {
		if len(span) < 7 || span[0] != 'D' {
			return errDataRow
		}
		n := int(binary.BigEndian.Uint32(span[1:]))
		if n < 6 || n > len(span)-1 {
			return errDataRow
		}
		body := span[7 : 1+n]
		count := int(binary.BigEndian.Uint16(span[5:]))
		span = span[1+n:]
		values = values[:0]
		for range count {
			if len(body) < 4 {
				return errDataRow
			}
			size := int32(binary.BigEndian.Uint32(body))
			body = body[4:]
			if size == -1 {
				values = append(values, nil)
				continue
			}
			if size < 0 || int(size) > len(body) {
				return errDataRow
			}
			values = append(values, body[:size:size])
			body = body[size:]
		}
		if len(body) > 0 {
			return errDataRow
		}
		if err := fn(values); err != nil {
			return err
		}
	}
	return nil
}

// The types whose binary form is shown as people write it, by their ids in PostgreSQL.
const (
	oidBool   = 16
	oidName   = 19
	oidInt8   = 20
	oidInt2   = 21
	oidInt4   = 23
	oidText   = 25
	oidOID    = 26
	oidJSON   = 114
	oidFloat4 = 700
	oidFloat8 = 701
	oidBPChar = 1042
	oidChar   = 1043
	oidUUID   = 2950
)

// valueText is a value as text: what is binary and not known is in hex behind \x.
func valueText(v []byte, c Column) string {
	if !c.Binary {
		return string(v)
	}
	switch {
	case c.Type == oidBool && len(v) == 1:
		return map[bool]string{true: "t", false: "f"}[v[0] != 0]
	case c.Type == oidInt2 && len(v) == 2:
		return strconv.Itoa(int(int16(binary.BigEndian.Uint16(v))))
	case c.Type == oidInt4 && len(v) == 4:
		return strconv.Itoa(int(int32(binary.BigEndian.Uint32(v))))
	case c.Type == oidOID && len(v) == 4:
		return strconv.FormatUint(uint64(binary.BigEndian.Uint32(v)), 10)
	case c.Type == oidInt8 && len(v) == 8:
		return strconv.FormatInt(int64(binary.BigEndian.Uint64(v)), 10)
	case c.Type == oidFloat4 && len(v) == 4:
		return strconv.FormatFloat(float64(math.Float32frombits(binary.BigEndian.Uint32(v))), 'g', -1, 32)
	case c.Type == oidFloat8 && len(v) == 8:
		return strconv.FormatFloat(math.Float64frombits(binary.BigEndian.Uint64(v)), 'g', -1, 64)
	case c.Type == oidUUID && len(v) == 16:
		return fmt.Sprintf("%x-%x-%x-%x-%x", v[:4], v[4:6], v[6:8], v[8:10], v[10:])
	case (c.Type == oidText || c.Type == oidName || c.Type == oidBPChar || c.Type == oidChar || c.Type == oidJSON) && utf8.Valid(v):
		return string(v)
	}
	return `\x` + hex.EncodeToString(v)
}

// paramText is a bound value as text.
func paramText(p Param) string {
	if p.Binary && p.Text != "" {
		return p.Text
	}
	if p.Binary {
		return `\x` + hex.EncodeToString([]byte(p.Value))
	}
	return p.Value
}
