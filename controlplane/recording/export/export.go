// Package export copies what was recorded, and the audit log, to where others watch: to a
// file of JSON lines, for a collector to follow, and as OpenTelemetry logs to a collector.
// A line is a [Record]; its fields are the schema, and new ones may come. A line is written
// before the chunk that it tells of is acknowledged, so every fact comes at least once, and
// twice where a process stopped in between: session, number and kind tell them apart, and
// sequence does those of the audit log. Texts are those of the index, without the literals
// that could tell what a mask hides.
package export

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// The kinds of a Record.
const (
	KindOpened    = "session.opened"
	KindStatement = "statement" // it was judged
	KindOutcome   = "outcome"   // it ended; the statement came before
	KindEnded     = "session.ended"
	KindAudit     = "audit" // an entry of the audit log
	KindAlert     = "alert" // one that somebody should see
)

// Record is one line. What does not apply is left out.
type Record struct {
	Schema        int       `json:"schema"` // 1
	Kind          string    `json:"kind"`
	Time          time.Time `json:"time"`
	Session       string    `json:"session,omitempty"`
	Subject       string    `json:"subject,omitempty"`
	Actors        []string  `json:"actors,omitempty"` // who acted for the subject, the nearest first
	Workload      string    `json:"workload,omitempty"`
	Doubt         string    `json:"doubt,omitempty"` // why whose session it is cannot be believed
	Task          string    `json:"task,omitempty"`
	Resource      string    `json:"resource,omitempty"`
	Account       string    `json:"account,omitempty"`
	Node          string    `json:"node,omitempty"`
	ClientAddress string    `json:"clientAddress,omitempty"`
	ClientProgram string    `json:"clientProgram,omitempty"`

	Number  uint64   `json:"number,omitempty"` // of the statement within the session
	Text    string   `json:"text,omitempty"`
	Verdict string   `json:"verdict,omitempty"` // allow, deny or hold
	Rule    string   `json:"rule,omitempty"`
	Reason  string   `json:"reason,omitempty"` // why denied, or why the session ended
	Columns []Column `json:"columns,omitempty"`

	Rows       int64  `json:"rows,omitempty"`
	Bytes      int64  `json:"bytes,omitempty"`
	Affected   int64  `json:"affected,omitempty"` // -1 where the protocol does not say
	Code       string `json:"code,omitempty"`     // the protocol's error code
	DurationUS int64  `json:"durationUs,omitempty"`

	Sequence int64    `json:"sequence,omitempty"` // in the audit log
	Actor    string   `json:"actor,omitempty"`    // who did it: a subject, node/NAME or postern
	Address  string   `json:"address,omitempty"`  // from where
	Action   string   `json:"action,omitempty"`
	Objects  []string `json:"objects,omitempty"` // to what, as kind/name
	Outcome  string   `json:"outcome,omitempty"` // ok, or why not
	Detail   string   `json:"detail,omitempty"`  // JSON, without secrets
}

// Column is how a statement used a column or relation.
type Column struct {
	Name  string   `json:"name"`
	Roles []string `json:"roles"` // out, computed, predicate, write
	Mask  string   `json:"mask,omitempty"`
	View  string   `json:"view,omitempty"` // that reads it, where the statement names that
}

// Records are what an update tells; now is the time of what has none of its own.
func Records(u *index.Update, now time.Time) []Record {
	var out []Record
	s := u.Session
	add := func(kind string, at time.Time) *Record {
		out = append(out, Record{
			Schema: 1, Kind: kind, Time: at.UTC(), Session: s.GetId(), Subject: s.GetSubject(), Actors: s.GetActors(), Workload: s.GetWorkload(), Doubt: s.GetDoubt(), Task: s.GetTask(),
			Resource: s.GetResource(), Account: s.GetAccount(), Node: s.GetNode(), ClientAddress: s.GetClientAddress(), ClientProgram: s.GetClientProgram(),
		})
		return &out[len(out)-1]
	}
	if u.From() == 0 {
		add(KindOpened, s.GetStartTime().AsTime())
	}
	for i := range u.Statements {
		st := &u.Statements[i]
		r := add(KindStatement, st.Time)
		r.Number, r.Text, r.Verdict, r.Rule, r.Reason = st.Number, st.Text, st.Verdict.String(), st.Rule, st.Reason
		for _, t := range st.Touched {
			r.Columns = append(r.Columns, Column{t.Column, t.Role.Names(), t.Mask, t.View})
		}
	}
	for i := range u.Outcomes {
		o := &u.Outcomes[i]
		r := add(KindOutcome, now)
		r.Number, r.Verdict, r.Rows, r.Bytes, r.Affected, r.Code, r.DurationUS = o.Number, o.Verdict.String(), o.Rows, o.Bytes, o.Affected, o.Code, o.Duration.Microseconds()
	}
	if u.Head.Sealed {
		add(KindEnded, ended(s, now)).Reason = s.GetEndReason()
	}
	return out
}

func ended(s *typesv1.Session, now time.Time) time.Time {
	if s.GetEndTime() == nil {
		return now
	}
	return s.GetEndTime().AsTime()
}

// A File is where lines are appended. It is safe for concurrent use. It is opened anew
// each time, so that it may be moved away at any time.
type File struct {
	path string
	mu   sync.Mutex
}

// Open makes the file if it is missing, for its owner and group alone.
func Open(path string) (*File, error) {
	f := &File{path: path}
	if err := f.append(nil); err != nil {
		return nil, err
	}
	return f, nil
}

// Write appends records.
func (f *File) Write(records []Record) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, r := range records {
		if err := enc.Encode(r); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	if b.Len() == 0 {
		return nil
	}
	return f.append(b.Bytes())
}

func (f *File) append(b []byte) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = fmt.Errorf("export: %w", err)
		}
	}()
	cut, err := cutOff(file)
	if err != nil {
		return err
	}
	if cut {
		b = append([]byte{'\n'}, b...)
	}
	_, err = file.Write(b)
	return err
}

// cutOff reports whether a file ends within a line, where a process or the disk's room ended: the
// next line must not become part of it.
func cutOff(file *os.File) (bool, error) {
	info, err := file.Stat()
	if err != nil || info.Size() == 0 || !info.Mode().IsRegular() {
		return false, err
	}
	var last [1]byte
	_, err = file.ReadAt(last[:], info.Size()-1)
	return last[0] != '\n', err
}
