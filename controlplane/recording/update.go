package recording

import (
	"math"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// maxAlerts bounds what one chunk tells the audit log.
const maxAlerts = 64

// A builder turns the events of one chunk into rows.
type builder struct {
	update *index.Update
	node   postern.NodeName
}

func (b *builder) add(e *record.Event) error {
	u := b.update
	if u.Session.GetStartTime() == nil && e.Kind != record.KindOpened {
		return refuse("the recording does not begin with who opened the session")
	}
	switch {
	case e.Statement > math.MaxInt64:
		return refuse("event %d is of statement %d", e.Seq, e.Statement)
	case timestamppb.New(e.Time).CheckValid() != nil:
		return refuse("event %d has no valid time", e.Seq)
	}
	first := e.Statement > u.Head.Tally.Statement
	u.Head.Tally.Add(e)
	defer b.last(e)
	switch e.Kind {
	case record.KindOpened:
		return b.opened(e)
	case record.KindIntent, record.KindDenied, record.KindHeld:
		b.statement(e)
	case record.KindSettled:
		if first { // so that there is a row
			b.statement(e)
		}
		if e.Verdict == postern.VerdictDeny && e.Statement != 0 {
			u.Outcomes = append(u.Outcomes, index.Outcome{Number: e.Statement})
		}
	case record.KindFinished:
		u.Outcomes = append(u.Outcomes, index.Outcome{Number: e.Statement, Verdict: postern.VerdictAllow,
			Rows: e.Rows, Bytes: e.Bytes, Affected: e.Affected, Code: clip(e.Code), Tag: clip(e.Tag), Duration: e.Duration})
	case record.KindNote:
		switch {
		case e.Tag == postern.NoteAccount:
			u.Session.Account = clip(e.Text)
		case e.Tag == postern.NoteAlert && len(u.Alerts) < maxAlerts:
			u.Alerts = append(u.Alerts, clip(e.Text))
		}
	case record.KindClosed:
		u.Session.EndTime, u.Session.EndReason = timestamppb.New(e.Time), clip(e.Reason)
	}
	return nil
}

// last keeps the time of the newest event.
func (b *builder) last(e *record.Event) {
	if s := b.update.Session; s.GetLastTime() == nil || s.GetLastTime().AsTime().Before(e.Time) {
		s.LastTime = timestamppb.New(e.Time)
	}
}

func (b *builder) opened(e *record.Event) error {
	s, row := e.Session, b.update.Session
	switch {
	case e.Seq != 1 || s == nil:
		return refuse("event %d opens the session again", e.Seq)
	case string(s.ID) != row.GetId():
		return refuse("the recording says that it is of session %q", s.ID)
	case s.Node != b.node:
		return refuse("the recording says that it is of node %q", s.Node)
	}
	b.update.Session = &typesv1.Session{
		Id: row.GetId(), Subject: clip(s.Subject), Grant: clip(string(s.Grant)), Task: clip(string(s.Task)), Resource: clip(string(s.Resource)),
		Protocol: clip(string(s.Protocol)), Node: row.GetNode(), Region: clip(s.Region),
		ClientAddress: clip(s.ClientAddress), ClientProgram: clip(s.ClientProgram),
		Version:   &typesv1.Version{Epoch: clip(s.Version.Epoch), Revision: s.Version.Revision},
		StartTime: timestamppb.New(e.Time), Recording: string(record.StateOpen),
		Account: clip(s.Account), Workload: clip(s.Workload), Database: clip(s.Database),
	}
	for _, g := range s.Groups {
		b.update.Session.Groups = append(b.update.Session.Groups, clip(g))
	}
	for _, a := range s.Actors {
		b.update.Session.Actors = append(b.update.Session.Actors, clip(a))
	}
	return nil
}

func (b *builder) statement(e *record.Event) {
	if e.Statement == 0 {
		return
	}
	b.update.Statements = append(b.update.Statements, index.Statement{Number: e.Statement, Seq: e.Seq, Time: e.Time,
		Text:    indexed(b.update.Session.GetProtocol(), e),
		Verdict: e.Verdict, Rule: clip(e.Rule), Reason: clip(e.Reason), Touched: e.Touched})
	for i := range e.Touched {
		e.Touched[i].Column, e.Touched[i].Mask = clip(e.Touched[i].Column), clip(e.Touched[i].Mask)
	}
}

// finish brings the counts of the row up to date.
func (b *builder) finish() {
	row, t := b.update.Session, b.update.Head.Tally
	row.Statements, row.Denied, row.Rows, row.Bytes = t.Statements, t.Denied, t.Rows, t.Bytes
}

// endRow says how the recording ended. A session of a node that stopped has no end of
// its own.
func endRow(row *typesv1.Session, seal *record.Seal) {
	row.Recording = string(record.StateSealed)
	if seal.Truncated {
		row.Recording = string(record.StateTruncated)
	}
	if row.GetEndTime() == nil {
		row.EndTime, row.EndReason = timestamppb.New(seal.Time), clip(seal.Reason)
	}
}

// clip shortens a text to what the index keeps, and makes it text: the recording has
// what there was.
func clip(s string) string {
	if len(s) > index.MaxText {
		s = s[:index.MaxText]
		for i := 0; i < utf8.UTFMax && !utf8.ValidString(s); i++ {
			s = s[:len(s)-1]
		}
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd") // PostgreSQL keeps no NUL
}
