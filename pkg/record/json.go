package record

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"iter"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

// line is an event as one line of JSON.
type line struct {
	Seq       uint64       `json:"seq"`
	Time      time.Time    `json:"time"`
	Elapsed   float64      `json:"elapsedMs,omitempty"`
	Kind      string       `json:"kind"`
	Session   *sessionLine `json:"session,omitempty"`
	Statement uint64       `json:"statement,omitempty"`
	Text      string       `json:"text,omitempty"`
	Params    []*string    `json:"params,omitempty"`
	Hash      string       `json:"sha256,omitempty"`
	Verdict   string       `json:"verdict,omitempty"`
	Rule      string       `json:"rule,omitempty"`
	Reason    string       `json:"reason,omitempty"`
	Forward   string       `json:"forward,omitempty"`
	Touched   []touchLine  `json:"touched,omitempty"`
	Effect    string       `json:"effect,omitempty"`
	Level     string       `json:"level,omitempty"`
	Version   string       `json:"version,omitempty"`
	Rows      int64        `json:"rows,omitempty"`
	Bytes     int64        `json:"bytes,omitempty"`
	Affected  *int64       `json:"affected,omitempty"`
	Tag       string       `json:"tag,omitempty"`
	Code      string       `json:"code,omitempty"`
	Message   string       `json:"message,omitempty"`
	Duration  float64      `json:"durationMs,omitempty"`
	Hold      string       `json:"hold,omitempty"`
	People    []string     `json:"people,omitempty"`
	Encoding  string       `json:"encoding,omitempty"`
	Columns   []columnLine `json:"columns,omitempty"`
	Values    [][]*string  `json:"values,omitempty"` // of rows that can be decoded
	Data      []byte       `json:"data,omitempty"`   // of what cannot, in base64
	Direction string       `json:"direction,omitempty"`
	Raw       bool         `json:"raw,omitempty"` // as it was before its masks
}

type sessionLine struct {
	ID            postern.SessionID    `json:"id"`
	Subject       string               `json:"subject"`
	Groups        []string             `json:"groups,omitempty"`
	Workload      string               `json:"workload,omitempty"`
	Actors        []string             `json:"actors,omitempty"`
	Grant         postern.GrantID      `json:"grant"`
	Task          postern.TaskName     `json:"task"`
	Resource      postern.ResourceName `json:"resource"`
	Protocol      postern.Protocol     `json:"protocol"`
	Node          postern.NodeName     `json:"node"`
	Region        string               `json:"region,omitempty"`
	ClientAddress string               `json:"clientAddress,omitempty"`
	ClientProgram string               `json:"clientProgram,omitempty"`
	Version       string               `json:"version"`
	Level         string               `json:"level"`
	Account       string               `json:"account,omitempty"`
	Database      string               `json:"database,omitempty"`
	Raw           bool                 `json:"raw,omitempty"` // what masks hide is recorded too
}

type touchLine struct {
	Column string   `json:"column"`
	Roles  []string `json:"roles,omitempty"`
	Mask   string   `json:"mask,omitempty"`
	View   string   `json:"view,omitempty"`
}

type columnLine struct {
	Name   string `json:"name"`
	Type   uint32 `json:"type"`
	Masked bool   `json:"masked,omitempty"`
}

// JSON writes the events as lines of JSON. It ends at the first error of events or w.
func JSON(w io.Writer, events iter.Seq2[*Event, error]) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	columns := map[uint64][]Column{}
	for e, err := range events {
		if err != nil {
			return err
		}
		switch {
		case e.Kind == KindFinished:
			delete(columns, e.Statement)
		case e.Columns != nil:
			columns[e.Statement] = e.Columns
		}
		if err := enc.Encode(lineOf(e, columns[e.Statement])); err != nil {
			return err
		}
	}
	return nil
}

func lineOf(e *Event, columns []Column) *line {
	l := &line{
		Seq: e.Seq, Time: e.Time, Elapsed: float64(e.Elapsed.Microseconds()) / 1000, Kind: e.Kind.String(), Statement: e.Statement, Text: e.Text, Hash: hex.EncodeToString(e.Hash),
		Rule: e.Rule, Reason: e.Reason, Forward: e.Forward, Rows: e.Rows, Bytes: e.Bytes, Tag: e.Tag, Code: e.Code, Message: e.Message,
		Duration: float64(e.Duration.Microseconds()) / 1000, Hold: e.Hold, People: e.People, Encoding: e.Encoding, Raw: e.Raw,
	}
	switch e.Kind {
	case KindIntent:
		l.Verdict, l.Effect, l.Level = e.Verdict.String(), e.Effect.String(), e.Level.String()
	case KindDenied, KindHeld, KindSettled:
		l.Verdict = e.Verdict.String()
	case KindFinished:
		l.Affected = &e.Affected
	case KindChunk:
		l.Direction = map[bool]string{true: "to-target", false: "to-client"}[e.Direction == ToTarget]
	}
	if !e.Version.IsZero() {
		l.Version = e.Version.String()
	}
	if s := e.Session; s != nil {
		l.Session = &sessionLine{s.ID, s.Subject, s.Groups, s.Workload, s.Actors, s.Grant, s.Task, s.Resource, s.Protocol, s.Node, s.Region,
			s.ClientAddress, s.ClientProgram, s.Version.String(), s.Level.String(), s.Account, s.Database, s.Raw}
	}
	for _, p := range e.Params {
		l.Params = append(l.Params, text(paramText(p), p.Null))
	}
	for _, t := range e.Touched {
		l.Touched = append(l.Touched, touchLine{t.Column, t.Role.names(), t.Mask, t.View})
	}
	for _, c := range e.Columns {
		l.Columns = append(l.Columns, columnLine{c.Name, c.Type, c.Masked})
	}
	l.data(e, columns)
	return l
}

func (l *line) data(e *Event, columns []Column) {
	var err error
	if e.Encoding == EncodingDataRow {
		err = dataRows(e.Data, func(values [][]byte) error {
			row := make([]*string, len(values))
			for i, v := range values {
				row[i] = text(valueText(v, column(columns, i)), v == nil)
			}
			l.Values = append(l.Values, row)
			return nil
		})
	}
	if e.Encoding != EncodingDataRow || err != nil {
		l.Values, l.Data = nil, e.Data
	}
}

func text(s string, null bool) *string {
	if null {
		return nil
	}
	return &s
}

func (r Role) names() []string {
	var names []string
	for i, name := range []string{"output", "computed", "predicate", "write"} {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}
