package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/store"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

// maxChanges is how many bytes of before and after one entry carries: with the rest of
// an entry it must fit a value of the store, and a leaf of the log (64 KiB both).
const maxChanges = 32 << 10

// What was done to an object.
const (
	Created = "created"
	Updated = "updated"
	Deleted = "deleted"
)

// changesOf is what a transaction does to the objects that people know, before and
// after, from the transaction itself: so that no caller can forget it, or say it wrongly.
func (l *Log) changesOf(ctx context.Context, ops []store.Op) ([]*apiv1.AuditChange, error) {
	var changes []*apiv1.AuditChange
	for _, op := range ops {
		if op.Check || form(op.Kind) == nil {
			continue
		}
		var before []byte
		if op.If != 0 {
			e, err := l.store.Get(ctx, op.Key)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return nil, err
			}
			before = e.Value
		}
		c := &apiv1.AuditChange{Object: op.Key.String(), Action: Updated}
		was, is := content(op.Kind, before), proto.Message(nil)
		switch {
		case op.Delete:
			c.Action = Deleted
		case before == nil:
			c.Action = Created
			fallthrough
		default:
			is = content(op.Kind, op.Value)
		}
		c.Before, c.After = shape(was, nil), shape(is, was)
		if c.Before != c.After || !bytes.Equal(before, op.Value) {
			changes = append(changes, c)
		}
	}
	return changes, nil
}

// form is an empty message of what the store keeps under a kind, nil where people do
// not know the kind.
func form(kind string) proto.Message {
	switch {
	case kind == "grant":
		return &typesv1.Grant{}
	case kind == "hold":
		return &typesv1.Hold{}
	case slices.Contains(object.Kinds(), kind):
		return &typesv1.Object{}
	}
	return nil
}

// content is the message in a value of the store; nil where there is none.
func content(kind string, value []byte) proto.Message {
	m := form(kind)
	if value == nil {
		return nil
	}
	if err := proto.Unmarshal(value, m); err != nil {
		return &typesv1.Object{} // what cannot be read says nothing
	}
	if o, ok := m.(*typesv1.Object); ok {
		return object.Content(o)
	}
	return m
}

// shape is m as JSON without secrets; was is what it was before, or nil.
func shape(m, was proto.Message) string {
	if m == nil {
		return ""
	}
	js, err := json.Marshal(redacted(m, was))
	if err != nil {
		return ""
	}
	return string(js)
}

// split spreads what an entry changed over as many entries as it needs.
func split(e Entry, changes []*apiv1.AuditChange) []Entry {
	var parts []Entry
	room := 0
	for _, c := range changes {
		for {
			if room == 0 {
				part := Entry{Actor: e.Actor, Actors: e.Actors, Address: e.Address, Action: e.Action, Outcome: e.Outcome, Object: e.Object}
				if parts == nil {
					part.Detail = e.Detail
				}
				parts, room = append(parts, part), maxChanges
			}
			piece := &apiv1.AuditChange{Object: c.GetObject(), Action: c.GetAction()}
			room = max(0, room-len(piece.GetObject())-32)
			piece.Before, c.Before = cut(c.GetBefore(), room)
			room -= len(piece.GetBefore())
			piece.After, c.After = cut(c.GetAfter(), room)
			room -= len(piece.GetAfter())
			piece.More = c.GetBefore() != "" || c.GetAfter() != ""
			last := &parts[len(parts)-1]
			last.changes = append(last.changes, piece)
			if !piece.GetMore() {
				break
			}
			room = 0
		}
	}
	if parts == nil {
		return []Entry{e}
	}
	if len(parts) > 1 {
		for i := range parts {
			parts[i].Object = objectsOf(parts[i].changes)
		}
	}
	return parts
}

func objectsOf(changes []*apiv1.AuditChange) string {
	var names []string
	for _, c := range changes {
		names = append(names, c.GetObject())
	}
	return strings.Join(slices.Compact(names), " ")
}

// cut is the first n bytes of s, or a few less, and the rest.
func cut(s string, n int) (head, rest string) {
	if len(s) <= n {
		return s, ""
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n], s[n:]
}
