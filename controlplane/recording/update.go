package recording

import (
	"math"
	"slices"
	"strings"
	"time"
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
	latest time.Time          // of the events
	said   map[string]*judged // by what an intent says
	short  map[string]string  // tags and codes
}

// judged is what many executions of a chunk have in common.
type judged struct {
	event        *record.Event // one of them
	rule, reason string
	touched      []record.Touch
	texts        map[string]string // as the index keeps them, by what they were
}

// take adds an event, of which most are read in part only: an application executes the
// same statements over and over.
func (b *builder) take(e *record.Brief) error {
	switch e.Event.Kind {
	case record.KindIntent, record.KindFinished, record.KindRows, record.KindChunk:
	default:
		whole, err := e.Whole()
		if err != nil {
			return err
		}
		return b.add(whole)
	}
	if err := b.count(&e.Event); err != nil {
		return err
	}
	switch e.Event.Kind {
	case record.KindIntent:
		if e.Event.Statement == 0 {
			return nil
		}
		j := b.said[string(e.Says)]
		if j == nil {
			whole, err := e.Whole()
			if err != nil {
				return err
			}
			j = judge(whole)
			b.said[string(e.Says)] = j
		}
		b.judged(&e.Event, j, e.Text)
	case record.KindFinished:
		b.finished(&e.Event, b.shorten(e.Code), b.shorten(e.Tag))
	default: // what was returned is not in the index
	}
	return nil
}

// shorten clips a text that comes often.
func (b *builder) shorten(raw []byte) string {
	s, ok := b.short[string(raw)]
	if !ok {
		s = clip(string(raw))
		b.short[string(raw)] = s
	}
	return s
}

// count heeds what each event has.
func (b *builder) count(e *record.Event) error {
	u := b.update
	if u.Session.GetStartTime() == nil && e.Kind != record.KindOpened {
		return refuse("the recording does not begin with who opened the session")
	}
	switch {
	case e.Statement > math.MaxInt64:
		return refuse("event %d is of statement %d", e.Seq, e.Statement)
	case !valid(e.Time):
		return refuse("event %d has no valid time", e.Seq)
	}
	u.Head.Tally.Add(e)
	if e.Time.After(b.latest) {
		b.latest = e.Time
	}
	return nil
}

// valid reports whether a time can be told in messages.
func valid(t time.Time) bool {
	const first, end = -62135596800, 253402300800 // the years 1 to 9999
	return t.Unix() >= first && t.Unix() < end
}

func (b *builder) add(e *record.Event) error {
	u := b.update
	first := e.Statement > u.Head.Tally.Statement
	if err := b.count(e); err != nil {
		return err
	}
	switch e.Kind {
	case record.KindOpened:
		return b.opened(e)
	case record.KindDenied, record.KindHeld:
		b.statement(e)
	case record.KindSettled:
		if first { // so that there is a row
			b.statement(e)
		}
		if e.Verdict == postern.VerdictDeny && e.Statement != 0 {
			u.Outcomes = append(u.Outcomes, index.Outcome{Number: e.Statement})
		}
	case record.KindNote:
		switch {
		case e.Tag == postern.NoteAccount:
			u.Session.Account = clip(e.Text)
		case e.Tag == postern.NoteAlert && len(u.Alerts) < maxAlerts:
			u.Alerts = append(u.Alerts, clip(e.Text))
		}
	case record.KindClosed:
		u.Session.EndTime, u.Session.EndReason = timestamppb.New(e.Time), clip(e.Reason)
	default: // taken already, or of a later version
	}
	return nil
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
		Id: row.GetId(), Subject: clipName(s.Subject), Grant: clip(string(s.Grant)), Task: clip(string(s.Task)), Resource: clip(string(s.Resource)),
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
	if e.Statement != 0 {
		b.judged(e, judge(e), []byte(e.Text))
	}
}

// judge works out what the index keeps of a judgement, whose event becomes its own.
func judge(e *record.Event) *judged {
	j := &judged{event: e, rule: clip(e.Rule), reason: clip(e.Reason), touched: slices.Clone(e.Touched), texts: map[string]string{}}
	for i := range j.touched {
		j.touched[i].Column, j.touched[i].Mask = clipName(j.touched[i].Column), clipName(j.touched[i].Mask)
	}
	return j
}

func (b *builder) judged(e *record.Event, j *judged, said []byte) {
	text, ok := j.texts[string(said)]
	if !ok {
		j.event.Text = string(said)
		text = indexed(b.update.Session.GetProtocol(), j.event)
		j.texts[j.event.Text] = text
	}
	b.update.Statements = append(b.update.Statements, index.Statement{Number: e.Statement, Seq: e.Seq, Time: e.Time,
		Text: text, Verdict: j.event.Verdict, Rule: j.rule, Reason: j.reason, Touched: j.touched})
}

func (b *builder) finished(e *record.Event, code, tag string) {
	b.update.Outcomes = append(b.update.Outcomes, index.Outcome{Number: e.Statement, Verdict: postern.VerdictAllow,
		Rows: e.Rows, Bytes: e.Bytes, Affected: e.Affected, Code: code, Tag: tag, Duration: e.Duration})
}

// finish brings the counts and the time of the newest event of the row up to date.
func (b *builder) finish() {
	row, t := b.update.Session, b.update.Head.Tally
	row.Statements, row.Denied, row.Rows, row.Bytes = t.Statements, t.Denied, t.Rows, t.Bytes
	if row.GetLastTime() == nil || row.GetLastTime().AsTime().Before(b.latest) {
		row.LastTime = timestamppb.New(b.latest)
	}
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
func clip(s string) string { return clipTo(s, index.MaxText) }

// clipName does so with what rows are found by: the path of a file is as long as whoever
// asks for it likes.
func clipName(s string) string { return clipTo(s, index.MaxName) }

func clipTo(s string, most int) string {
	if len(s) > most {
		s = s[:most]
		for i := 0; i < utf8.UTFMax && !utf8.ValidString(s); i++ {
			s = s[:len(s)-1]
		}
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd") // PostgreSQL keeps no NUL
}
