package recording_test

import (
	"bytes"
	"context"
	"crypto"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
)

// ring opens what is sealed to recordingKey.
type ring struct{}

func (ring) Unwrap(_ context.Context, session postern.SessionID, w record.WrappedKey) (secret.Bytes, error) {
	return w.Unwrap(recordingKey, session)
}

var recordingKey, _ = secret.ParsePrivateKey(bytes.Repeat([]byte{5}, 32))

// tape makes the chunks of one session.
type tape struct {
	t       testing.TB
	session record.Session
	key     *record.DataKey
	wrapped record.WrappedKey
	seq     uint64
	frames  []byte
	encoder record.Encoder
	head    record.Chain
	chunks  [][]byte
}

func newTape(t testing.TB, id string) *tape {
	p := &tape{t: t, session: record.Session{ID: postern.SessionID(id), Subject: "alice", Groups: []string{"analysts"}, Grant: "g", Task: "sales-report", Resource: "warehouse",
		Protocol: postern.Postgres, Node: "node-1", Region: "eu", ClientAddress: "127.0.0.1:1", ClientProgram: "psql", Version: postern.Version{Epoch: "e", Revision: 7}}}
	var err error
	if p.key, p.wrapped, err = record.NewDataKey(recordingKey.PublicKey(), p.session.ID); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *tape) add(e record.Event) {
	p.t.Helper()
	p.seq++
	e.Seq = p.seq
	if e.Time.IsZero() {
		e.Time = began.Add(time.Duration(p.seq) * time.Second)
	}
	var err error
	if p.frames, err = p.encoder.AppendFrames(p.frames, &e); err != nil {
		p.t.Fatal(err)
	}
}

func (p *tape) open() {
	p.add(record.Event{Kind: record.KindOpened, Session: &p.session, Time: began})
}

// cut makes a chunk of n bytes of frames at least, or of all.
func (p *tape) cut(n int) {
	p.t.Helper()
	at := 0
	for at < len(p.frames) && (n == 0 || at < n) {
		f, err := record.NextFrame(p.frames[at:])
		if err != nil {
			p.t.Fatal(err)
		}
		at += f.Size
	}
	span, err := p.head.Span.Next(p.frames[:at])
	if err != nil {
		p.t.Fatal(err)
	}
	data, _, err := record.AppendChunk(nil, record.Header{Session: p.session.ID, Index: p.head.Next, First: span.First, Last: span.Last, Open: span.Open, Codec: record.CodecMinLZ,
		Key: p.wrapped, Previous: p.head.Previous}, p.key, p.frames[:at])
	if err != nil {
		p.t.Fatal(err)
	}
	p.push(data)
	p.frames = p.frames[at:]
	p.encoder.Cut()
}

func (p *tape) push(data []byte) {
	p.t.Helper()
	if _, err := p.head.Add(data); err != nil {
		p.t.Fatal(err)
	}
	p.chunks = append(p.chunks, data)
}

func (p *tape) seal(node postern.NodeName, key crypto.Signer, truncated bool) {
	p.t.Helper()
	data, _, err := record.AppendSeal(nil, record.Seal{Session: p.session.ID, Node: node, Chunks: p.head.Next, Previous: p.head.Previous, Last: p.head.Span.Last,
		Time: began.Add(time.Hour), Truncated: truncated, Reason: "the node stopped"}, key)
	if err != nil {
		p.t.Fatal(err)
	}
	p.push(data)
}

// usual is a session of four chunks: a select, a denied drop, a held delete, the end.
func usual(t testing.TB, id string, changes ...func(*tape)) *tape {
	p := newTape(t, id)
	for _, change := range changes {
		change(p)
	}
	p.open()
	p.add(record.Event{Kind: record.KindIntent, Statement: 1, Text: "select email from sales.orders", Verdict: postern.VerdictAllow, Rule: "sales-report/permit[0]",
		Touched: []record.Touch{{Column: "sales.orders.email", Role: record.RoleOutput, Mask: "email"}}})
	p.cut(0)
	p.add(record.Event{Kind: record.KindNote, Tag: postern.NoteAccount, Text: "reporter"})
	p.add(record.Event{Kind: record.KindFinished, Statement: 1, Rows: 3, Bytes: 30, Affected: -1, Tag: "SELECT 3", Duration: time.Millisecond})
	p.add(record.Event{Kind: record.KindDenied, Statement: 2, Text: "drop table x", Rule: "sales-report/permit", Reason: "no"})
	p.cut(0)
	p.add(record.Event{Kind: record.KindHeld, Statement: 3, Text: "delete", Verdict: postern.VerdictHold, Hold: "h"})
	p.add(record.Event{Kind: record.KindSettled, Statement: 3, Verdict: postern.VerdictDeny, Hold: "h", Reason: "refused"})
	p.add(record.Event{Kind: record.KindClosed, Reason: "the client went away"})
	p.cut(0)
	p.seal("node-1", nodeKey, false)
	return p
}
