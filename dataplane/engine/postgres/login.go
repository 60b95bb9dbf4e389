package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/pkg/wire"
)

// login is a connection to the target that is logged in and idle.
type login struct {
	conn    net.Conn
	dialled net.Conn // beneath conn
	born    time.Time
	account string
	key     backendKey
	status  startup           // what the target says of its settings
	pinned  map[string]string // what of that must not change
	path    []string
	tokens  tokens

	// Where sessions have it one after the other:
	pool  engine.Reuser // of the session that has it; else nil
	under string        // the key that it is left under
	rest  startup       // status when it was new
}

// tokensOf copies the keys that come with a credential; wipe ends them.
func tokensOf(cred *engine.Credential) tokens {
	out := make(tokens, len(cred.MaskKeys))
	for name, key := range cred.MaskKeys {
		out[name] = secret.New(bytes.Clone(key.Reveal()))
	}
	return out
}

func (t tokens) wipe() {
	for _, key := range t {
		key.Wipe()
	}
}

// maxHandshakeMessage is the longest message that the target may send while logging in.
const maxHandshakeMessage = 64 << 10

// login connects with a credential that is lent for the purpose, and checks that the
// session has the settings under which statements are judged.
func (e *Engine) login(ctx context.Context, s engine.Session, purpose engine.Purpose, params startup) (_ *login, err error) {
	defer func() { s.Reached(ctx, err) }()
	terms := s.Terms()
	nc, err := s.Dial(ctx)
	if err != nil {
		return nil, unreachable(terms, err)
	}
	// A dead context must end the reads below.
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	l := &login{conn: nc, dialled: nc, born: time.Now(), status: startup{}, path: searchPath(terms)}
	var in inbox
	err = s.Lend(ctx, purpose, func(cred *engine.Credential) error {
		l.account = strings.Clone(cred.Account)
		if purpose == engine.PurposeSession {
			l.tokens = tokensOf(cred)
		}
		cert, err := certificate(cred)
		if err != nil {
			return err
		}
		if l.conn, err = secure(ctx, nc, terms.TLS, cert); err != nil {
			return err
		}
		if _, err := l.conn.Write(startupPacket(s, purpose, cred.Account, params)); err != nil {
			return err
		}
		in.r = l.conn
		return authenticate(&in, l.conn, terms.TLS, cred, e.keys)
	})
	if err == nil {
		err = l.settle(&in, terms)
	}
	err = chosenAmiss(err, params, settings(s, purpose, params))
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = nc.Close()
		return nil, unreachable(terms, err)
	}
	return l, nil
}

// unreachable words a failed login for the user, who is not told what the target said.
func unreachable(terms *engine.Terms, err error) error {
	var r *postern.Refusal
	if errors.As(err, &r) {
		return err
	}
	return &postern.Refusal{
		Code: postern.CodeUnavailable, Reason: fmt.Sprintf("cannot log in to resource %q", terms.Resource),
		Hint: "try again; if it stays, tell the operators", Cause: fmt.Errorf("log in to %s: %w", terms.Resource, err),
	}
}

// searchPath is the search_path of every session with the resource. "$user" is never in
// it: which schema that is depends on the role that the account acts for, which the
// target may change behind our back.
func searchPath(terms *engine.Terms) []string {
	for _, p := range terms.Pins {
		if p.Name == "search_path" {
			return withoutUser(schemas(p.Value))
		}
	}
	return []string{"public"}
}

// withoutUser leaves out what stands for a schema of the account's name.
func withoutUser(path []string) []string {
	return slices.DeleteFunc(path, func(s string) bool { return s == "$user" })
}

// schemas are those of a search path, as the target spells it.
func schemas(path string) (all []string) {
	for _, s := range strings.Split(path, ",") {
		if s = unquote(strings.TrimSpace(s)); s != "" {
			all = append(all, s)
		}
	}
	return all
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return strings.ReplaceAll(s[1:len(s)-1], `""`, `"`)
	}
	return strings.ToLower(s)
}

// settings is what the session is started with.
func settings(s engine.Session, purpose engine.Purpose, params startup) startup {
	terms := s.Terms()
	out := startup{}
	if purpose == engine.PurposeSession {
		maps.Copy(out, params)
		// A client may lower the bound of the task, and not lift it.
		if own, _ := timeout(params["statement_timeout"]); terms.StatementTimeout > 0 && (own == 0 || own > terms.StatementTimeout) && !hole.Is("wire-timeout") {
			out["statement_timeout"] = strconv.FormatInt(max(terms.StatementTimeout.Milliseconds(), 1), 10)
		}
		if terms.ReadOnly {
			out["default_transaction_read_only"] = "on"
		}
	}
	for _, p := range terms.Pins {
		out[strings.ToLower(p.Name)] = p.Value
	}
	var path []string
	for _, schema := range searchPath(terms) {
		path = append(path, `"`+strings.ReplaceAll(schema, `"`, `""`)+`"`)
	}
	out["search_path"] = strings.Join(path, ", ")
	out["client_encoding"] = "UTF8"
	out["standard_conforming_strings"] = "on"
	out["application_name"] = applicationName(s)
	if terms.Pool != "" {
		out["application_name"] = programPrefix + string(terms.Pool) // what a reset goes back to
	}
	if purpose == engine.PurposeCatalog {
		out["search_path"] = "pg_catalog"
		out["default_transaction_read_only"] = "on"
	}
	return out
}

// programPrefix begins the name under which sessions are known at the target.
const programPrefix = "postern/"

func applicationName(s engine.Session) string { return programPrefix + string(s.ID()) }

func startupPacket(s engine.Session, purpose engine.Purpose, account string, params startup) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 4), protocol30)
	b = appendCString(appendCString(b, "user"), clean(account))
	b = appendCString(appendCString(b, "database"), clean(s.Terms().Database))
	set := settings(s, purpose, params)
	for _, name := range slices.Sorted(maps.Keys(set)) {
		b = appendCString(appendCString(b, clean(name)), clean(set[name]))
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b))) //nolint:gosec // far below 4 GiB
	return b
}

// settle reads what follows the authentication, up to the first ReadyForQuery, and what
// came with that.
func (l *login) settle(in *inbox, terms *engine.Terms) error {
	for ready := false; !ready || !in.empty(); {
		typ, body, err := in.next()
		if err != nil {
			return err
		}
		switch {
		case typ == 'S':
			l.report(body)
		case typ == 'K' && !ready:
			c := wire.Read(body)
			l.key.pid = c.Uint32()
			l.key.secret = bytes.Clone(c.Rest())
			if c.Err() != nil || len(l.key.secret) == 0 || len(l.key.secret) > 256 {
				return errors.New("the resource sent an invalid cancel key")
			}
		case typ == 'N':
		case typ == 'E':
			return targetError(body)
		case typ == 'Z' && !ready:
			ready = true
		default:
			return fmt.Errorf("the resource sent message %q while logging in", typ)
		}
	}
	return l.pin(terms)
}

// pin checks the settings that decide what a text means, and notes which must stay.
func (l *login) pin(terms *engine.Terms) error {
	if got := l.status["client_encoding"]; got != "UTF8" {
		return fmt.Errorf("the resource answers in encoding %q, not UTF8", got)
	}
	if got := l.status["standard_conforming_strings"]; got != "on" {
		return fmt.Errorf("the resource has standard_conforming_strings %q", got)
	}
	l.pinned = map[string]string{"client_encoding": "UTF8", "standard_conforming_strings": "on"}
	if terms.Own {
		l.pinned = map[string]string{"client_encoding": "UTF8"}
		return nil
	}
	for _, p := range terms.Pins {
		if got, reported := l.status[p.Name]; reported {
			l.pinned[p.Name] = got
		}
	}
	return nil
}

// A saying is what the target said, for operators.
type saying struct{ code, message string }

func (s *saying) Error() string { return "the resource says " + s.code + ": " + s.message }

func targetError(body []byte) error {
	return &saying{string(field(body, 'C')), string(field(body, 'M'))}
}

// chosenAmiss tells a client of a parameter of its own that the target does not know, or not
// with that value: a time zone that it has not got, say, of which nobody else can know. What
// it is started with otherwise is the operators' to mend.
func chosenAmiss(err error, chosen, sent startup) error {
	var said *saying
	if !errors.As(err, &said) || said.code != "22023" && said.code != "42704" {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(chosen)) {
		if chosen[name] == sent[name] && strings.Contains(strings.ToLower(said.message), name) {
			return &postern.Refusal{
				Reason: fmt.Sprintf("the resource does not take the startup parameter %s with the value %q", name, chosen[name]),
				Hint:   "leave it out of the connection string, or give another one", Cause: err,
			}
		}
	}
	return err
}

// authenticate proves the credential. A password goes in the clear only over TLS that
// was verified; MD5 is refused, since its hash is as good as the password.
func authenticate(in *inbox, c net.Conn, t engine.TLSTerms, cred *engine.Credential, keys *keyCache) error {
	for {
		typ, body, err := in.next()
		if err != nil {
			return err
		}
		if typ == 'E' {
			return targetError(body)
		}
		if typ == 'v' || typ == 'N' {
			continue
		}
		r := wire.Read(body)
		method := r.Uint32()
		if typ != 'R' || r.Err() != nil {
			return fmt.Errorf("the resource sent message %q while logging in", typ)
		}
		switch method {
		case 0:
			return nil
		case 3:
			if t.Mode != "verify-full" && t.Mode != "verify-ca" {
				return errors.New("the resource asks for the password in the clear, which needs verified TLS")
			}
			err = sendPassword(c, cred)
		case 10:
			err = scramLogin(in, c, r.Rest(), cred, keys)
		default:
			return fmt.Errorf("the resource asks for authentication method %d, which is not supported", method)
		}
		if err != nil {
			return err
		}
	}
}

func sendPassword(w io.Writer, cred *engine.Credential) error {
	b, at := begin(nil, 'p')
	b = end(append(append(b, cred.Password.Reveal()...), 0), at)
	_, err := w.Write(b)
	clear(b)
	return err
}
