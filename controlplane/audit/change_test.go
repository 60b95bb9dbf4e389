package audit_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

func maskObject(name, value string) *typesv1.Object {
	return &typesv1.Object{Kind: &typesv1.Object_Mask{Mask: &typesv1.Mask{
		Metadata: &typesv1.Metadata{Name: name}, Spec: &typesv1.MaskSpec{Method: "redact", Value: value},
	}}}
}

func object(t *testing.T, o *typesv1.Object, revision int64) store.Op {
	t.Helper()
	key, value, err := store.EncodeObject(o)
	if err != nil {
		t.Fatal(err)
	}
	return store.Op{Key: key, Value: value, If: revision}
}

// TestBeforeAndAfter: what a transaction does to objects is in its entry, whoever wrote it.
func TestBeforeAndAfter(t *testing.T) {
	m := storetest.NewMemory()
	l := audit.New(m, fixed)
	commit := func(ops ...store.Op) int64 {
		t.Helper()
		rev, err := l.Commit(t.Context(), audit.Entry{Actor: "ada"}, ops...)
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	key := store.Key{Kind: "mask", Name: "email"}
	rev := commit(object(t, maskObject("email", "***"), 0))
	rev = commit(object(t, maskObject("email", "+++"), rev), store.Op{Key: store.Key{Kind: "policyorder", Name: "last"}, Value: []byte("x"), If: store.AnyRevision})
	commit(store.Op{Key: key, Delete: true, If: rev})
	entries, _, err := l.List(t.Context(), audit.Query{})
	if err != nil || len(entries) != 3 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	form := func(value string) string {
		if value == "" {
			return ""
		}
		return fmt.Sprintf(`{"metadata":{"name":"email"},"spec":{"method":"redact","value":%q}}`, value)
	}
	for i, want := range []struct{ action, before, after string }{{"deleted", "+++", ""}, {"updated", "***", "+++"}, {"created", "", "***"}} {
		got := entries[i].GetChanges()
		if len(got) != 1 || got[0].GetObject() != "mask/email" || got[0].GetAction() != want.action || got[0].GetBefore() != form(want.before) || got[0].GetAfter() != form(want.after) {
			t.Errorf("entry %d: %v, want %v", i, got, want)
		}
	}
	if _, err := l.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	// A change that was altered shows, as all else does.
	e := proto.CloneOf(entries[1])
	e.Changes[0].Before = form("xxx")
	value, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Commit(t.Context(), store.Op{Key: store.Key{Kind: audit.KindEntry, Name: fmt.Sprintf("%020d", e.GetSequence())}, Value: value, If: store.AnyRevision}); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.New(m, fixed).Verify(t.Context()); err == nil {
		t.Error("an altered change is not found")
	}
}

// TestLongChanges: before and after are split over entries, never trimmed.
func TestLongChanges(t *testing.T) {
	m := storetest.NewMemory()
	l := audit.New(m, fixed)
	ops := []store.Op{object(t, maskObject("long", strings.Repeat("ä", 30_000)), 0)}
	for i := range 40 {
		ops = append(ops, object(t, maskObject(fmt.Sprint("m", i), strings.Repeat("x", 2000)), 0))
	}
	if _, err := l.Commit(t.Context(), audit.Entry{Actor: "ada", Object: "many", Detail: "first"}, ops...); err != nil {
		t.Fatal(err)
	}
	entries, _, err := l.List(t.Context(), audit.Query{})
	if err != nil || len(entries) < 4 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	after := make(map[string]string)
	for i := len(entries) - 1; i >= 0; i-- {
		if size := proto.Size(entries[i]); size > store.MaxValueBytes {
			t.Errorf("entry %d has %d bytes", i, size)
		}
		for _, c := range entries[i].GetChanges() {
			after[c.GetObject()] += c.GetAfter()
			if !strings.Contains(" "+entries[i].GetObject()+" ", " "+c.GetObject()+" ") {
				t.Errorf("entry %d is about %s, and changes %s", i, entries[i].GetObject(), c.GetObject())
			}
		}
	}
	if len(after) != 41 {
		t.Errorf("%d objects", len(after))
	}
	for name, js := range after {
		if !json.Valid([]byte(js)) {
			t.Errorf("%s is not whole: %.80s ...", name, js)
		}
	}
	if _, err := l.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	// What does not fit one transaction, with what is kept of it, is refused whole.
	ops = nil
	for i := range store.MaxOps - 3 {
		ops = append(ops, object(t, maskObject(fmt.Sprint("n", i), strings.Repeat("x", 5000)), 0))
	}
	if _, err := l.Commit(t.Context(), audit.Entry{Actor: "ada"}, ops...); err == nil || len(m.Keys("mask")) != 41 {
		t.Errorf("%v, %d masks", err, len(m.Keys("mask")))
	}
}

// TestASecretThatChanged: that it is another one shows, and what it is does not.
func TestASecretThatChanged(t *testing.T) {
	m := storetest.NewMemory()
	l := audit.New(m, fixed)
	secret := func(sealed, label string) *typesv1.Object {
		return &typesv1.Object{Kind: &typesv1.Object_Secret{Secret: &typesv1.Secret{
			Metadata: &typesv1.Metadata{Name: "db", Labels: map[string]string{"l": label}}, Spec: &typesv1.SecretSpec{Sealed: []byte(sealed)},
		}}}
	}
	rev := int64(0)
	for _, o := range []*typesv1.Object{secret("canary-1", "a"), secret("canary-1", "b"), secret("canary-2", "b")} {
		var err error
		if rev, err = l.Commit(t.Context(), audit.Entry{Actor: "ada"}, object(t, o, rev)); err != nil {
			t.Fatal(err)
		}
	}
	entries, _, err := l.List(t.Context(), audit.Query{})
	if err != nil || len(entries) != 3 {
		t.Fatal(entries, err)
	}
	for i, want := range []string{"(secret, changed)", "(secret)", "(secret)"} {
		if got := entries[i].GetChanges()[0].GetAfter(); !strings.Contains(got, fmt.Sprintf(`"sealed":%q`, want)) || strings.Contains(entries[i].String(), "canary") {
			t.Errorf("entry %d: %s, want %s", i, got, want)
		}
	}
}

// flood sets every field of a message, however deep, to something with the canary in it
// where it can have one.
func flood(m protoreflect.Message, canary string, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.ContainingOneof() != nil && m.WhichOneof(f.ContainingOneof()) != nil {
			continue
		}
		one := func(f protoreflect.FieldDescriptor, fresh func() protoreflect.Value) protoreflect.Value {
			switch f.Kind() {
			case protoreflect.StringKind:
				return protoreflect.ValueOfString(canary)
			case protoreflect.BytesKind:
				return protoreflect.ValueOfBytes([]byte(canary))
			case protoreflect.MessageKind:
				v := fresh()
				if depth > 0 && v.Message().Descriptor().FullName() != "google.protobuf.Timestamp" && v.Message().Descriptor().FullName() != "google.protobuf.Duration" {
					flood(v.Message(), canary, depth-1)
				}
				return v
			default:
				return f.Default()
			}
		}
		switch {
		case f.IsMap():
			value := m.Mutable(f).Map()
			value.Set(protoreflect.ValueOfString("k").MapKey(), one(f.MapValue(), value.NewValue))
		case f.IsList():
			list := m.Mutable(f).List()
			list.Append(one(f, list.NewElement))
		case f.Kind() == protoreflect.MessageKind:
			m.Set(f, one(f, func() protoreflect.Value { return m.NewField(f) }))
		default:
			m.Set(f, one(f, nil))
		}
	}
}

// TestRedactionHolds: what an entry tells of any message has no field in it that is not
// marked as no secret: those of other packages, which are never marked, show nothing.
func TestRedactionHolds(t *testing.T) {
	const canary = "hunter2-canary"
	for _, m := range []proto.Message{
		&typesv1.Secret{Spec: &typesv1.SecretSpec{}}, &typesv1.Parameter{}, &apiv1.AuditEntry{}, &apiv1.ReadRecordingResponse{},
		&typesv1.Hold{}, &typesv1.Grant{}, &apiv1.CreateGrantRequest{}, &typesv1.Task{},
	} {
		full := m.ProtoReflect().New()
		flood(full, canary, 8)
		text := fmt.Sprint(full.Interface())
		if !strings.Contains(text, canary) {
			t.Fatalf("%T is not filled", m)
		}
		for _, secret := range secretsOf(full.Descriptor(), nil) {
			l := audit.New(storetest.NewMemory(), fixed)
			// Only the secret field has the canary.
			only := m.ProtoReflect().New()
			flood(only, "plain", 8)
			set(only, secret, canary)
			if err := l.Append(t.Context(), audit.Entry{Actor: "ada", Detail: only.Interface()}); err != nil {
				t.Fatal(err)
			}
			entries, _, err := l.List(t.Context(), audit.Query{})
			if err != nil || len(entries) != 1 {
				t.Fatal(entries, err)
			}
			if d := entries[0].GetDetail(); strings.Contains(d, canary) || strings.Contains(d, "aHVudGVyMi1jYW5hcn") {
				t.Errorf("%s: the entry has the secret: %s", secret, d)
			}
			if js, _ := json.Marshal(audit.Redact(only.Interface())); strings.Contains(string(js), canary) {
				t.Errorf("%s: the answer has the secret: %s", secret, js)
			}
		}
	}
}

// secretsOf are the text and byte fields, however deep, that are not marked as no secret.
func secretsOf(d protoreflect.MessageDescriptor, seen []protoreflect.FullName) (names []protoreflect.FullName) {
	for _, s := range seen {
		if s == d.FullName() {
			return nil
		}
	}
	seen = append(seen, d.FullName())
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		marked := proto.HasExtension(f.Options(), typesv1.E_IsSecret)
		is := !marked || proto.GetExtension(f.Options(), typesv1.E_IsSecret).(bool)
		switch {
		case is:
			names = append(names, f.FullName())
		case f.Message() != nil && !f.IsMap():
			names = append(names, secretsOf(f.Message(), seen)...)
		}
	}
	return names
}

// set puts the canary into every occurrence of a field.
func set(m protoreflect.Message, name protoreflect.FullName, canary string) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.FullName() == name && f.Message() == nil && !f.IsList() && f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(canary))
		case f.FullName() == name && f.Kind() == protoreflect.BytesKind && !f.IsList():
			m.Set(f, protoreflect.ValueOfBytes([]byte(canary)))
		case f.FullName() == name:
			fresh := m.NewField(f)
			m.Clear(f)
			whole := m.New()
			flood(whole, canary, 8)
			if whole.Has(f) {
				fresh = whole.Get(f)
			}
			m.Set(f, fresh)
		case f.Message() != nil && f.IsList():
			for i := range v.List().Len() {
				set(v.List().Get(i).Message(), name, canary)
			}
		case f.Message() != nil && !f.IsMap():
			set(v.Message(), name, canary)
		}
		return true
	})
}
func TestSecretsStayOut(t *testing.T) {
	const canary = "hunter2-canary"
	sec := &typesv1.Object{Kind: &typesv1.Object_Secret{Secret: &typesv1.Secret{
		Metadata: &typesv1.Metadata{Name: "db"},
		Spec:     &typesv1.SecretSpec{Data: map[string]string{"password": canary}, Sealed: []byte(canary)},
	}}}
	m := storetest.NewMemory()
	l := audit.New(m, fixed)
	for i, d := range []any{
		sec,
		&apiv1.ApplyRequest{Objects: []*typesv1.Object{sec}},
		&apiv1.CreateGrantRequest{Task: "visible", WorkloadToken: canary},
		map[string]any{"name": "visible", "object": sec, "list": []*typesv1.Object{sec}},
		struct {
			Name   string
			Object *typesv1.Object
			inner  string
		}{"visible", sec, canary},
		[]any{map[string]proto.Message{"x": sec}},
		strings.Repeat(canary, 10_000),
		func() {},
	} {
		if err := l.Append(t.Context(), audit.Entry{Actor: "ada", Detail: d}); err != nil {
			t.Errorf("detail %d: %v", i, err)
		}
	}
	entries, _, err := l.List(t.Context(), audit.Query{})
	if err != nil || len(entries) != 8 {
		t.Fatalf("entries: %d, %v", len(entries), err)
	}
	for _, e := range entries {
		if strings.Contains(e.GetDetail(), canary) || strings.Contains(e.GetDetail(), "aHVudGVyMi1jYW5hcn") {
			t.Errorf("entry %d has the secret: %s", e.GetSequence(), e.GetDetail())
		}
		if e.GetDetail() == "" {
			t.Errorf("entry %d says nothing", e.GetSequence())
		}
	}
	if sec.GetSecret().GetSpec().GetData()["password"] != canary {
		t.Error("the caller's own message was changed")
	}
}
