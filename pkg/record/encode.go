package record

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/posterngate/postern/pkg/postern"
)

// appendEvent appends the message of e, without what ref says is written elsewhere. It
// allocates only to grow dst.
func appendEvent(dst []byte, e *Event, ref reference) []byte {
	dst = appendUint(dst, 1, e.Seq)
	dst = appendUint(dst, 2, microTime(e.Time))
	dst = appendUint(dst, 3, uint64(e.Kind))
	if e.Session != nil {
		dst = protowire.AppendTag(dst, 4, protowire.BytesType)
		dst = protowire.AppendBytes(dst, appendSession(nil, e.Session))
	}
	dst = appendUint(dst, 5, e.Statement)
	if !ref.text {
		dst = appendString(dst, 6, e.Text)
	}
	for i := 0; i < len(e.Params) && !ref.params; i++ {
		dst = appendParam(dst, &e.Params[i])
	}
	if len(e.Hash) > 0 && !ref.text {
		dst = protowire.AppendTag(dst, 8, protowire.BytesType)
		dst = protowire.AppendBytes(dst, e.Hash)
	}
	if ref.to == 0 {
		dst = appendUint(dst, 9, uint64(e.Verdict))
		dst = appendString(dst, 10, e.Rule)
	}
	dst = appendString(dst, 11, e.Reason)
	if !ref.text {
		dst = appendString(dst, 12, e.Forward)
	}
	if ref.to == 0 {
		dst = appendJudgement(dst, e)
	}
	dst = appendUint(dst, 17, uint64(e.Rows))
	dst = appendUint(dst, 18, uint64(e.Bytes))
	dst = appendUint(dst, 19, protowire.EncodeZigZag(e.Affected))
	dst = appendString(dst, 20, e.Tag)
	dst = appendString(dst, 21, e.Code)
	dst = appendString(dst, 22, e.Message)
	dst = appendUint(dst, 23, uint64(e.Duration.Microseconds()))
	dst = appendString(dst, 24, e.Hold)
	for _, p := range e.People {
		dst = protowire.AppendTag(dst, 25, protowire.BytesType)
		dst = protowire.AppendString(dst, p)
	}
	dst = appendString(dst, 26, e.Encoding)
	for i := range e.Columns {
		dst = appendColumn(dst, &e.Columns[i])
	}
	if len(e.Data) > 0 && !ref.data {
		dst = protowire.AppendTag(dst, 28, protowire.BytesType)
		dst = protowire.AppendBytes(dst, e.Data)
	}
	dst = appendUint(dst, 29, uint64(e.Direction))
	dst = appendUint(dst, 30, uint64(e.Elapsed.Microseconds()))
	dst = appendUint(dst, 31, uint64(ref.as))
	return appendUint(dst, 32, uint64(ref.to)<<1|bit(ref.text)*refersText|bit(ref.params)*refersParams|bit(ref.data)*refersData)
}

func appendJudgement(dst []byte, e *Event) []byte {
	for i := range e.Touched {
		dst = appendTouch(dst, &e.Touched[i])
	}
	dst = appendUint(dst, 14, uint64(e.Effect))
	dst = appendUint(dst, 15, uint64(e.Level))
	return appendVersion(dst, 16, e.Version)
}

func appendSession(dst []byte, s *Session) []byte {
	dst = appendString(dst, 1, string(s.ID))
	dst = appendString(dst, 2, s.Subject)
	for _, g := range s.Groups {
		dst = protowire.AppendTag(dst, 3, protowire.BytesType)
		dst = protowire.AppendString(dst, g)
	}
	dst = appendString(dst, 4, s.Workload)
	dst = appendString(dst, 5, string(s.Grant))
	dst = appendString(dst, 6, string(s.Task))
	dst = appendString(dst, 7, string(s.Resource))
	dst = appendString(dst, 8, string(s.Protocol))
	dst = appendString(dst, 9, string(s.Node))
	dst = appendString(dst, 10, s.Region)
	dst = appendString(dst, 11, s.ClientAddress)
	dst = appendString(dst, 12, s.ClientProgram)
	dst = appendVersion(dst, 13, s.Version)
	dst = appendUint(dst, 14, uint64(s.Level))
	dst = appendString(dst, 15, s.Account)
	dst = appendString(dst, 16, s.Database)
	for _, a := range s.Actors {
		dst = protowire.AppendTag(dst, 17, protowire.BytesType)
		dst = protowire.AppendString(dst, a)
	}
	return appendBool(dst, 18, s.Raw)
}

func appendParam(dst []byte, p *Param) []byte {
	dst = protowire.AppendTag(dst, 7, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(sizeString(p.Value)+sizeBool(p.Null)+sizeBool(p.Binary)+sizeString(p.Text)))
	dst = appendString(dst, 1, p.Value)
	dst = appendBool(dst, 2, p.Null)
	dst = appendBool(dst, 3, p.Binary)
	return appendString(dst, 4, p.Text)
}

func appendTouch(dst []byte, t *Touch) []byte {
	dst = protowire.AppendTag(dst, 13, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(sizeString(t.Column)+sizeUint(uint64(t.Role))+sizeString(t.Mask)+sizeString(t.View)))
	dst = appendString(dst, 1, t.Column)
	dst = appendUint(dst, 2, uint64(t.Role))
	dst = appendString(dst, 3, t.Mask)
	return appendString(dst, 4, t.View)
}

func appendColumn(dst []byte, c *Column) []byte {
	dst = protowire.AppendTag(dst, 27, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(sizeString(c.Name)+sizeUint(uint64(c.Type))+sizeBool(c.Binary)+sizeBool(c.Masked)))
	dst = appendString(dst, 1, c.Name)
	dst = appendUint(dst, 2, uint64(c.Type))
	dst = appendBool(dst, 3, c.Binary)
	return appendBool(dst, 4, c.Masked)
}

func appendVersion(dst []byte, field protowire.Number, v postern.Version) []byte {
	if v.IsZero() {
		return dst
	}
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(sizeString(v.Epoch)+sizeUint(uint64(v.Revision))))
	dst = appendString(dst, 1, v.Epoch)
	return appendUint(dst, 2, uint64(v.Revision))
}

// The fields of nested messages have numbers below 16, so that a tag is one byte.

func sizeString(s string) int {
	if s == "" {
		return 0
	}
	return 1 + protowire.SizeBytes(len(s))
}

func sizeUint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func sizeBool(v bool) int {
	if v {
		return 2
	}
	return 0
}

func appendUint(dst []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), v)
}

func appendString(dst []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, field, protowire.BytesType), s)
}

func appendBool(dst []byte, field protowire.Number, v bool) []byte {
	if !v {
		return dst
	}
	return appendUint(dst, field, 1)
}

func bit(v bool) uint64 {
	if v {
		return 1
	}
	return 0
}

func microTime(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMicro())
}
