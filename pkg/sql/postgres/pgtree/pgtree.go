// Package pgtree reads PostgreSQL parse trees in their serialised form, without
// building them: it compares two of them but for positions in the text, and takes stock
// of what is in one. The tables that it works by come from the messages' descriptors.
package pgtree

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxDepth bounds how deep messages may be nested in a tree.
const maxDepth = 20_000

// ErrBroken means that the bytes are no parse tree.
var ErrBroken = errors.New("pgtree: not a parse tree")

// message is what the tables know of one message type.
type message struct {
	name   string
	fields []field // by field number
}

type field struct {
	name     string
	child    *message // nil for scalars
	location bool     // a position in the text
}

// tables builds the tables once; root describes ParseResult.
var tables = sync.OnceValue(func() map[protoreflect.Name]*message {
	all := map[protoreflect.Name]*message{}
	describe((&pg.ParseResult{}).ProtoReflect().Descriptor(), all)
	return all
})

func describe(d protoreflect.MessageDescriptor, all map[protoreflect.Name]*message) *message {
	if m := all[d.Name()]; m != nil {
		return m
	}
	m := &message{name: string(d.Name())}
	all[d.Name()] = m
	fields := d.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		n := int(f.Number())
		if n >= len(m.fields) {
			m.fields = append(m.fields, make([]field, n+1-len(m.fields))...)
		}
		name := string(f.Name())
		m.fields[n] = field{
			name:     name,
			location: f.Message() == nil && (name == "location" || strings.HasSuffix(name, "_location") || name == "stmt_len"),
		}
		if c := f.Message(); c != nil {
			m.fields[n].child = describe(c, all)
		}
	}
	return m
}

func root() *message { return tables()["ParseResult"] }

// next splits one field off b. A field that the message does not have is an error.
func (m *message) next(b []byte) (f *field, num protowire.Number, content []byte, n int, err error) {
	num, typ, tag := protowire.ConsumeTag(b)
	if tag < 0 {
		return nil, 0, nil, 0, ErrBroken
	}
	if int(num) >= len(m.fields) || m.fields[num].name == "" {
		return nil, 0, nil, 0, fmt.Errorf("%w: %s has no field %d", ErrBroken, m.name, num)
	}
	f = &m.fields[num]
	if f.child != nil {
		if typ != protowire.BytesType {
			return nil, 0, nil, 0, ErrBroken
		}
		v, vn := protowire.ConsumeBytes(b[tag:])
		if vn < 0 {
			return nil, 0, nil, 0, ErrBroken
		}
		return f, num, v, tag + vn, nil
	}
	vn := protowire.ConsumeFieldValue(num, typ, b[tag:])
	if vn < 0 {
		return nil, 0, nil, 0, ErrBroken
	}
	return f, num, b[tag : tag+vn], tag + vn, nil
}

// Same reports whether two trees mean the same: equal but for positions in the text.
func Same(a, b []byte) (bool, error) {
	sa, err := strip(nil, a, root(), 0)
	if err != nil {
		return false, err
	}
	sb, err := strip(nil, b, root(), 0)
	if err != nil {
		return false, err
	}
	return bytes.Equal(sa, sb), nil
}

// strip appends m's bytes to dst without positions, with fields in the order of their
// numbers, so that it does not matter who serialised them.
func strip(dst, b []byte, m *message, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: nested too deep", ErrBroken)
	}
	type part struct {
		num        protowire.Number
		start, end int
	}
	var few [16]part
	parts, sorted := few[:0], true
	begin := len(dst)
	for len(b) > 0 {
		f, num, content, n, err := m.next(b)
		if err != nil {
			return nil, err
		}
		if f.location {
			b = b[n:]
			continue
		}
		start := len(dst)
		if f.child == nil {
			dst = append(dst, b[:n]...)
		} else {
			// The length is written with a fixed width: it needs no second pass.
			dst = protowire.AppendTag(dst, num, protowire.BytesType)
			at := len(dst)
			dst = append(dst, 0, 0, 0, 0)
			if dst, err = strip(dst, content, f.child, depth+1); err != nil {
				return nil, err
			}
			l := len(dst) - at - 4
			dst[at], dst[at+1], dst[at+2], dst[at+3] = byte(l>>24), byte(l>>16), byte(l>>8), byte(l)
		}
		if len(parts) > 0 && parts[len(parts)-1].num > num {
			sorted = false
		}
		parts = append(parts, part{num, start, len(dst)})
		b = b[n:]
	}
	if !sorted {
		slices.SortStableFunc(parts, func(x, y part) int { return int(x.num) - int(y.num) })
		old := bytes.Clone(dst[begin:])
		dst = dst[:begin]
		for _, p := range parts {
			dst = append(dst, old[p.start-begin:p.end-begin]...)
		}
	}
	return dst, nil
}

// Known is a set of fields of messages that somebody has a rule for.
type Known struct {
	fields map[*message][]bool
}

// NewKnown reads lines of the form "Message: field field". Positions need not be named.
// A name that the descriptors do not have is an error.
func NewKnown(text string) (*Known, error) {
	k := &Known{fields: map[*message][]bool{}}
	for line := range strings.Lines(text) {
		name, fields, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		m := tables()[protoreflect.Name(name)]
		if m == nil {
			return nil, fmt.Errorf("pgtree: no message %q", name)
		}
		if k.fields[m] == nil {
			k.fields[m] = make([]bool, len(m.fields))
		}
		for f := range strings.FieldsSeq(fields) {
			i := slices.IndexFunc(m.fields, func(x field) bool { return x.name == f })
			if i < 0 {
				return nil, fmt.Errorf("pgtree: message %s has no field %q", name, f)
			}
			k.fields[m][i] = true
		}
	}
	return k, nil
}

// Survey takes stock of a tree. It counts the messages in it, but for the wrappers Node,
// RawStmt and ParseResult, and names the first message or field that is not known as
// "Message" or "Message.field"; unknown is empty where all are.
func (k *Known) Survey(tree []byte) (messages int, unknown string, err error) {
	s := surveyor{known: k, node: tables()["Node"], raw: tables()["RawStmt"]}
	err = s.survey(tree, root(), 0)
	return s.messages, s.unknown, err
}

type surveyor struct {
	known     *Known
	node, raw *message
	messages  int
	unknown   string
}

func (s *surveyor) survey(b []byte, m *message, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: nested too deep", ErrBroken)
	}
	wrapper := m == s.node || m == s.raw || depth == 0
	known := s.known.fields[m]
	if !wrapper {
		s.messages++
		if known == nil && s.unknown == "" {
			s.unknown = m.name
		}
	}
	for len(b) > 0 {
		f, num, content, n, err := m.next(b)
		if err != nil {
			return err
		}
		if !wrapper && known != nil && !known[num] && !f.location && s.unknown == "" {
			s.unknown = m.name + "." + f.name
		}
		if f.child != nil {
			if err := s.survey(content, f.child, depth+1); err != nil {
				return err
			}
		}
		b = b[n:]
	}
	return nil
}
