package postgres

import (
	"strconv"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/wire"
)

// sqlstate is the code of a refusal, after the table of the project's rulings. A stale
// statement gets the code, text and routine on which stock drivers prepare it again.
func sqlstate(c postern.Code) string {
	switch c {
	case postern.CodeBadToken:
		return "28P01"
	case postern.CodeNoGrant:
		return "28000"
	case postern.CodeCancelled:
		return "57014"
	case postern.CodeKilled:
		return "57P01"
	case postern.CodeLimit:
		return "53400"
	case postern.CodeProtocol:
		return "08P01"
	case postern.CodeUnavailable:
		return "58000"
	case postern.CodeStale:
		return "0A000"
	case postern.CodeDenied, postern.CodeUndefined:
	}
	return "42501"
}

// undefinedState is the code that the target has for a name that does not exist.
func undefinedState(u postern.Undefined) string {
	switch u {
	case postern.UndefinedColumn:
		return "42703"
	case postern.UndefinedRelation:
		return "42P01"
	case postern.UndefinedFunction:
		return "42883"
	case postern.UndefinedType:
		return "42704"
	}
	return sqlstate(postern.CodeUndefined)
}

// fatal reports whether a refusal of a statement ends its session too.
func fatal(r *postern.Refusal) bool {
	return r.Code == postern.CodeKilled || r.Code == postern.CodeProtocol
}

// A report is an error or notice of our own.
type report struct {
	severity, code, message, detail, hint, routine string
	position                                       int // in characters, from 1
}

func (r report) append(dst []byte, typ byte) []byte {
	dst, at := begin(dst, typ)
	for _, f := range [...]struct {
		key   byte
		value string
	}{{'S', r.severity}, {'V', r.severity}, {'C', r.code}, {'M', r.message}, {'D', r.detail}, {'H', r.hint}, {'R', r.routine}} {
		if f.value != "" {
			dst = append(dst, f.key)
			dst = appendCString(dst, clean(f.value))
		}
	}
	if r.position > 0 {
		dst = append(strconv.AppendInt(append(dst, 'P'), int64(r.position), 10), 0)
	}
	return end(append(dst, 0), at)
}

// clean keeps a zero byte of a foreign text from ending the field early.
func clean(s string) string {
	for i := range len(s) {
		if s[i] == 0 {
			return s[:i]
		}
	}
	return s
}

// errorOf words a refusal for the client.
func errorOf(r *postern.Refusal, severity string) report {
	e := report{severity: severity, code: sqlstate(r.Code), message: "postern: " + r.Reason, detail: r.Detail, hint: r.Hint, position: r.Position}
	switch {
	case r.Rule != "" && r.Detail != "":
		e.detail = "rule " + r.Rule + ": " + r.Detail
	case r.Rule != "":
		e.detail = "rule " + r.Rule
	}
	switch {
	case r == &idleTimeout:
		e.code, e.message = "57P05", r.Reason
	case r.Code == postern.CodeUndefined:
		e.code, e.message = undefinedState(r.Undefined), r.Reason
	case r.Code == postern.CodeStale:
		e.message, e.detail, e.routine = "cached plan must not change result type", "postern: "+r.Reason, "RevalidateCachedQuery"
	}
	return e
}

// idleTimeout ends a session that did nothing for too long.
var idleTimeout = postern.Refusal{Code: postern.CodeKilled, Reason: "terminating connection due to idle-session timeout", Hint: "connect again"}

// undefined is the error for a prepared statement or cursor that the session has not
// got, in the words of the target itself.
func undefined(what byte, name string) report {
	if what == 'S' {
		return report{severity: "ERROR", code: "26000", message: `prepared statement "` + name + `" does not exist`}
	}
	return report{severity: "ERROR", code: "34000", message: `portal "` + name + `" does not exist`}
}

func notice(text string) []byte {
	return report{severity: "NOTICE", code: "00000", message: "postern: " + text}.append(nil, 'N')
}

// scrub says how much of the target's errors and notices a client may see.
type scrub struct {
	all      bool // the task allows everything: nothing is held back
	quotes   bool // values are masked, or code of the resource runs: nothing that quotes stored values or says what it likes
	generic  bool // masks are kept by the result alone: no message either
	rows     bool // rows are changed: no detail, which quotes them with columns that nobody may read
	position bool // the text is the client's own, so that positions fit
}

// append copies the allowed fields of an ErrorResponse or NoticeResponse. Where the
// code lies, internal queries and context are allowed only with everything else. A body that is not
// understood becomes an error without a text.
func (s scrub) append(dst []byte, typ byte, body []byte) []byte {
	from := len(dst)
	dst, at := begin(dst, typ)
	c := wire.Read(body)
	for {
		key := c.Byte()
		if key == 0 {
			break
		}
		value := c.CString()
		if c.Err() != nil {
			break
		}
		if key == 'M' && s.generic && !hole.Is("wire-error-text") {
			value = []byte(withheld)
		}
		if s.allows(key) {
			dst = append(dst, key)
			dst = append(append(dst, value...), 0)
		}
	}
	if c.Err() != nil {
		return report{severity: "ERROR", code: "58000", message: unreadable}.append(dst[:from], typ)
	}
	return end(append(dst, 0), at)
}

// withheld stands for a text that may quote values that are masked on their way back.
const withheld = "the text of this message is withheld, because the statement reads masked columns"

// unreadable stands for an error that is not understood.
const unreadable = "postern: the resource sent an error that cannot be read"

func (s scrub) allows(key byte) bool {
	if s.all || hole.Is("wire-error-fields") {
		return true
	}
	switch key {
	case 'S', 'V', 'C', 'M':
		return true
	case 'P':
		return s.position
	case 'D':
		return !s.quotes && !s.generic && !s.rows
	case 'H', 's', 't', 'c', 'd', 'n':
		return !s.quotes && !s.generic
	}
	return false
}

// field returns one field of an ErrorResponse, or nothing.
func field(body []byte, want byte) []byte {
	c := wire.Read(body)
	for {
		key := c.Byte()
		if key == 0 {
			return nil
		}
		if value := c.CString(); key == want {
			return value
		}
	}
}
