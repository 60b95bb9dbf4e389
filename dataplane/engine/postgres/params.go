package postgres

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
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

// choices are the parameters that a client may choose for its session at the target, with
// the values that they may have: those that SET may change for every task.
var choices = map[string]func(value string) bool{
	"datestyle":                           func(v string) bool { return len(v) >= 3 && strings.EqualFold(v[:3], "iso") },
	"timezone":                            anything,
	"extra_float_digits":                  anything,
	"intervalstyle":                       anything,
	"bytea_output":                        anything,
	"client_min_messages":                 quiet, // lower ones print the server's inside
	"default_transaction_deferrable":      anything,
	"default_transaction_isolation":       anything,
	"idle_in_transaction_session_timeout": anything,
	"idle_session_timeout":                anything,
	"jit":                                 anything,
	"lock_timeout":                        anything,
	"plan_cache_mode":                     anything,
	"search_path":                         anything, // which must be the one that is held fixed: see heldPath
	"transaction_timeout":                 anything,
	"statement_timeout":                   func(v string) bool { _, ok := timeout(v); return ok },
}

func anything(string) bool { return true }

// heldPath refuses a search path that is not the one that is held fixed. It is asked once the
// task is known.
func (p startup) heldPath(terms *engine.Terms) error {
	asked, named := p["search_path"]
	held := searchPath(terms)
	if !named || slices.Equal(withoutUser(schemas(asked)), held) {
		return nil
	}
	return &postern.Refusal{
		Reason: "the search path is held fixed at " + strings.Join(held, ", "),
		Hint:   "leave search_path (currentSchema) out of the connection string, or name that one",
	}
}

func quiet(v string) bool {
	return slices.ContainsFunc([]string{"notice", "warning", "error"}, func(level string) bool { return strings.EqualFold(v, level) })
}

// timeout reads a duration as PostgreSQL does, without fractions. None is 0.
func timeout(value string) (time.Duration, bool) {
	digits := strings.TrimRight(value, "mins ")
	n, err := strconv.ParseInt(digits, 10, 32)
	unit, ok := map[string]time.Duration{"": time.Millisecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute}[strings.TrimSpace(value[len(digits):])]
	return time.Duration(n) * unit, ok && err == nil && n >= 0
}

// maxParameter is the longest value of such a parameter.
const maxParameter = 64

// check returns what may be sent to the target, or refuses a parameter that could
// change what statements mean or who runs them. What stands in options counts as
// parameters of their own.
func (p startup) check() (startup, error) {
	all, ok := options(p["options"])
	if !ok {
		return nil, &postern.Refusal{
			Reason: "the startup parameter options has a value that is not allowed",
			Detail: "it may hold -c NAME=VALUE, --NAME=VALUE, and nothing else",
			Hint:   "set PGOPTIONS to nothing",
		}
	}
	for name, value := range p {
		if name != "options" {
			all[strings.ToLower(name)] = value
		}
	}
	out := startup{}
	for _, name := range slices.Sorted(maps.Keys(all)) { // which is refused must not be chance
		value := all[name]
		switch name {
		case "user", "database", "application_name":
			continue
		case "client_encoding":
			if utf8Names[strings.ToUpper(strings.Trim(value, `'"`))] {
				continue
			}
			return nil, &postern.Refusal{Reason: "the client encoding must be UTF8", Hint: "set PGCLIENTENCODING=UTF8"}
		}
		may := choices[name]
		switch {
		case may == nil && hole.Is("wire-startup"):
		case may == nil:
			return nil, &postern.Refusal{
				Reason: "the startup parameter " + printable(name) + " is not allowed",
				Detail: "allowed: user, database, application_name, client_encoding, " + strings.Join(slices.Sorted(maps.Keys(choices)), ", "),
				Hint:   "leave it out of the connection string",
			}
		case len(value) > maxParameter || printable(value) != value || !may(value):
			return nil, &postern.Refusal{Reason: "the startup parameter " + name + " has a value that is not allowed", Hint: "leave it out of the connection string"}
		}
		out[name] = value
	}
	return out, nil
}

// options are the parameters in the text of that name, which PostgreSQL reads as a
// command line: words, of which a backslash takes the next character as it is. False
// means that there is something else in it.
func options(text string) (startup, bool) {
	out := startup{}
	var words []string
	word, open := "", false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case strings.IndexByte(" \t\n\v\f\r", c) >= 0:
			if open {
				words = append(words, word)
			}
			word, open = "", false
			continue
		case c == '\\' && i+1 < len(text):
			i++
		}
		word, open = word+text[i:i+1], true
	}
	if open {
		words = append(words, word)
	}
	for i := 0; i < len(words); i++ {
		setting, ok := strings.CutPrefix(words[i], "--")
		if !ok {
			if setting, ok = strings.CutPrefix(words[i], "-c"); ok && setting == "" && i+1 < len(words) {
				i++
				setting = words[i]
			}
		}
		name, value, is := strings.Cut(setting, "=")
		if !ok || !is || name == "" {
			return nil, false
		}
		out[strings.ToLower(strings.ReplaceAll(name, "-", "_"))] = value
	}
	return out, true
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
