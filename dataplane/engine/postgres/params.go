package postgres

import (
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/wire"
)

// startup is the parameters of a startup packet by name.
type startup map[string]string

// decodeStartup reads a startup packet of version 3; unknown are the protocol options
// that it asks for.
func decodeStartup(packet []byte) (params startup, unknown []string, err error) {
	c := wire.Read(packet)
	c.Uint32()
	params = startup{}
	for {
		name := c.CString()
		if c.Err() != nil {
			return nil, nil, broken("invalid startup packet layout")
		}
		if len(name) == 0 {
			break
		}
		value := c.CString()
		if _, twice := params[string(name)]; twice || c.Err() != nil {
			return nil, nil, broken("invalid startup packet layout")
		}
		if strings.HasPrefix(string(name), "_pq_.") {
			unknown = append(unknown, string(name))
			continue
		}
		params[string(name)] = string(value)
	}
	if c.Done() != nil {
		return nil, nil, broken("invalid startup packet layout")
	}
	slices.Sort(unknown)
	return params, unknown, nil
}

// passed are the parameters that a client may choose for its session at the target.
var passed = []string{"DateStyle", "TimeZone", "extra_float_digits", "IntervalStyle"}

// maxParameter is the longest value of such a parameter.
const maxParameter = 64

// check returns what may be sent to the target, or refuses a parameter that could
// change what statements mean or who runs them.
func (p startup) check() (startup, error) {
	out := startup{}
	for name, value := range p {
		switch name {
		case "user", "database", "application_name":
			continue
		case "options":
			if strings.TrimSpace(value) == "" {
				continue
			}
		case "client_encoding":
			if utf8Names[strings.ToUpper(strings.Trim(value, `'"`))] {
				continue
			}
			return nil, &postern.Refusal{Reason: "the client encoding must be UTF8", Hint: "set PGCLIENTENCODING=UTF8"}
		}
		i := slices.IndexFunc(passed, func(known string) bool { return strings.EqualFold(known, name) })
		if i < 0 && hole.Is("wire-startup") {
			out[name] = value
			continue
		}
		if i < 0 {
			return nil, &postern.Refusal{
				Reason: "the startup parameter " + printable(name) + " is not allowed",
				Detail: "allowed: user, database, application_name, client_encoding, " + strings.Join(passed, ", "),
				Hint:   "leave it out of the connection string",
			}
		}
		if len(value) > maxParameter || printable(value) != value {
			return nil, &postern.Refusal{Reason: "the startup parameter " + passed[i] + " has a value that is not allowed"}
		}
		out[passed[i]] = value
	}
	return out, nil
}

// utf8Names are the encodings in which the target answers UTF8. A client that declares
// no encoding of its own takes what comes, and is told UTF8.
var utf8Names = map[string]bool{"UTF8": true, "UTF-8": true, "UNICODE": true, "SQL_ASCII": true}

// printable replaces what is not printable ASCII, for texts that are shown.
func printable(s string) string {
	if len(s) > maxParameter {
		s = s[:maxParameter]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
