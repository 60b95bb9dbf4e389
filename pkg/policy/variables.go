package policy

import (
	"strings"

	"cel.dev/cel-go/cel"

	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// variables resolves what a condition reads, each only when it is read. What is not
// there is not found, which is an error, which denies.
type variables struct {
	subject   *postern.Subject
	request   Request
	statement *sql.Statement // nil where there is none
	task      *task          // of the statement
	http      *http.Facts    // nil where there are none
	call      *mcp.Facts     // nil where there is none
	usage     *Usage         // nil where there is none
	estimate  *int64
	claims    map[string]any // of a workload's token
}

// Parent is part of cel.Activation; there is none.
func (v *variables) Parent() cel.Activation { return nil }

// ResolveName is part of cel.Activation.
func (v *variables) ResolveName(name string) (any, bool) {
	scope, field, _ := strings.Cut(name, ".")
	switch scope {
	case "subject":
		return v.ofSubject(field)
	case "request":
		return v.ofRequest(field)
	case "statement":
		return v.ofStatement(field)
	case "http":
		return v.ofHTTP(field)
	case "call":
		return v.ofCall(field)
	case "grant":
		return v.ofGrant(field)
	case "claims":
		return v.claims, v.claims != nil
	}
	return nil, false
}

func (v *variables) ofCall(field string) (any, bool) {
	if v.call == nil {
		return nil, false
	}
	switch field {
	case "method":
		return v.call.Method, true
	case "name":
		return v.call.Name, true
	case "arguments":
		return v.call.Values()
	}
	return nil, false
}

func (v *variables) ofSubject(field string) (any, bool) {
	if v.subject == nil {
		return nil, false
	}
	switch field {
	case "id":
		return v.subject.Name, true
	case "email":
		return v.subject.Email, true
	case "groups":
		return v.subject.Groups, true
	case "claims":
		return v.subject.Claims, true
	case "mfa":
		return v.subject.MFA, true
	case "actor":
		return v.subject.Actor, true
	case "actors":
		return v.subject.Actors(), true
	}
	return nil, false
}

func (v *variables) ofRequest(field string) (any, bool) {
	switch field {
	case "time":
		return v.request.Time, !v.request.Time.IsZero()
	case "ip":
		return address(v.request.Address), true
	case "region":
		return v.request.Region, true
	case "client":
		return v.request.Client, true
	case "ticket":
		return v.request.Ticket, true
	case "reason":
		return v.request.Reason, true
	}
	return nil, false
}

// address cuts the port and the brackets off.
func address(a string) string {
	if rest, ok := strings.CutPrefix(a, "["); ok {
		ip, _, _ := strings.Cut(rest, "]")
		return ip
	}
	if strings.Count(a, ":") == 1 {
		a, _, _ = strings.Cut(a, ":")
	}
	return a
}

func (v *variables) ofStatement(field string) (any, bool) {
	if field == "estimatedRows" {
		if v.estimate == nil {
			return nil, false
		}
		return *v.estimate, true
	}
	if v.statement == nil {
		return nil, false
	}
	st := v.statement
	set := newSet()
	switch field {
	case "verbs":
		set.add(string(st.Verb))
		for i := range st.Tables {
			for _, verb := range st.Tables[i].Verbs {
				set.add(string(verb))
			}
		}
	case "tables":
		for i := range st.Tables {
			set.add(st.Tables[i].String())
		}
	case "columns":
		for i := range st.Tables {
			t := &st.Tables[i]
			for _, columns := range [][]string{t.Read, t.TargetReads, t.Write} {
				for _, c := range columns {
					set.add(t.String() + "." + c)
				}
			}
			if t.AllColumns {
				v.star(set, t)
			}
		}
	case "functions":
		for _, f := range st.Functions {
			set.add(f.String())
		}
	default:
		return nil, false
	}
	return set.list, true
}

func (v *variables) ofHTTP(field string) (any, bool) {
	if v.http == nil {
		return nil, false
	}
	switch field {
	case "method":
		return v.http.Method, true
	case "path":
		return v.http.Path, true
	case "query":
		return v.http.Values()
	case "headers":
		return v.http.Header, v.http.Header != nil && len(v.http.Twice) == 0
	case "body":
		if v.http.Body != nil {
			return v.http.Body.Value, true
		}
	}
	return nil, false
}

// star adds what * may stand for: every column that any permit lists for the table, so
// that a condition against one column cannot be passed by with *.
func (v *variables) star(set *set, t *sql.Table) {
	if permits := v.task.permits(t); permits != nil {
		for _, p := range permits[verbIndex(sql.Select)] {
			for _, c := range p.order {
				set.add(t.String() + "." + c)
			}
		}
		return
	}
	set.add(t.String() + ".*")
}

func (v *variables) ofGrant(field string) (any, bool) {
	if v.usage == nil {
		return nil, false
	}
	switch field {
	case "rowsUsed":
		return v.usage.Rows, true
	case "bytesUsed":
		return v.usage.Bytes, true
	case "age":
		return v.usage.Age, true
	}
	return nil, false
}

// set is a list without duplicates, in order of first mention.
type set struct {
	list []string
	seen map[string]bool
}

func newSet() *set { return &set{list: []string{}, seen: map[string]bool{}} }

func (s *set) add(w string) {
	if !s.seen[w] {
		s.seen[w] = true
		s.list = append(s.list, w)
	}
}
