// Package mcp understands the Model Context Protocol over streamable HTTP: what a client
// asks a server as facts for policy, what is sent on in its one form, and what of the
// answers may be shown. Each message is judged by itself, of a batch too; what is not
// known is refused. It knows no transport and no policy.
package mcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/posterngate/postern/pkg/postern"
)

// ErrMessage means that a message is not strictly JSON-RPC 2.0 as MCP has it.
var ErrMessage = errors.New("not a message of MCP")

// An ID names a request: a JSON string or integer, as JSON. It is empty where there is none.
type ID string

// A Message is a request, a notification or a response.
type Message struct {
	ID     ID
	Method string         // empty for a response
	Params map[string]any // of a request or notification; nil where left out
	Result map[string]any // of a response; nil with Error
	Error  *Error
}

// An Error is why a request has no result.
type Error struct {
	Code    int64
	Message string
	Data    any
}

// The codes of errors that the gateway gives.
const (
	CodeInvalid = -32600
	CodeRefused = -32003 // by policy
	CodeHeld    = -32004 // people have been asked
)

// Response reports whether the message answers a request.
func (m *Message) Response() bool { return m.Method == "" }

// Request reports whether the message wants an answer.
func (m *Message) Request() bool { return m.Method != "" && m.ID != "" }

// Parse reads what a client sends: one message, or a batch. An error is ErrMessage and
// says why; then no message of it is to be sent on.
func Parse(body []byte) (messages []*Message, batch bool, err error) { return parse(body, true) }

func parse(body []byte, fold bool) (messages []*Message, batch bool, err error) {
	v, err := parseValue(body, fold)
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	list, batch := v.([]any)
	switch {
	case !batch:
		list = []any{v}
	case len(list) == 0 || len(list) > maxBatch:
		return nil, false, fmt.Errorf("%w: a batch has 1 to %d messages", ErrMessage, maxBatch)
	}
	seen := map[ID]bool{}
	for _, v := range list {
		m, err := message(v)
		if err != nil {
			return nil, false, fmt.Errorf("%w: %w", ErrMessage, err)
		}
		if m.Request() && seen[m.ID] {
			return nil, false, fmt.Errorf("%w: two requests have the id %s", ErrMessage, m.ID)
		}
		seen[m.ID] = true
		messages = append(messages, m)
	}
	return messages, batch, nil
}

func message(v any) (*Message, error) {
	o, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("it is no object")
	}
	if o["jsonrpc"] != "2.0" {
		return nil, errors.New(`jsonrpc is not "2.0"`)
	}
	m := &Message{}
	for name, v := range o {
		switch name {
		case "jsonrpc":
		case "id":
			id, err := parseID(v)
			if err != nil {
				return nil, err
			}
			m.ID = id
		case "method":
			if m.Method, ok = v.(string); !ok || m.Method == "" || len(m.Method) > maxMethod {
				return nil, errors.New("method is no name")
			}
		case "params":
			if m.Params, ok = v.(map[string]any); !ok {
				return nil, errors.New("params is no object")
			}
		case "result":
			if m.Result, ok = v.(map[string]any); !ok {
				return nil, errors.New("result is no object")
			}
		case "error":
			var err error
			if m.Error, err = parseError(v); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("it has a member %q", name)
		}
	}
	answers := m.Result != nil || m.Error != nil
	switch {
	case m.Method != "" && answers, m.Result != nil && m.Error != nil:
		return nil, errors.New("it is two things at once")
	case m.Method == "" && !answers:
		return nil, errors.New("it has no method, result or error")
	case answers && m.Params != nil:
		return nil, errors.New("an answer has params")
	case answers && m.ID == "" && m.Result != nil:
		return nil, errors.New("an answer has no id")
	}
	return m, nil
}

const (
	maxMethod = 128
	maxID     = 256
)

func parseID(v any) (ID, error) {
	switch v := v.(type) {
	case string:
		if len(v) > maxID {
			break
		}
		b, err := encode(v)
		return ID(b), err
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return ID(strconv.FormatInt(n, 10)), nil
		}
	case nil:
		return "", nil // of an error that answers nothing that could be read
	}
	return "", errors.New("id is neither a string nor an integer")
}

func parseError(v any) (*Error, error) {
	o, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("error is no object")
	}
	e := &Error{Data: o["data"]}
	n, isNumber := o["code"].(json.Number)
	code, err := strconv.ParseInt(n.String(), 10, 64)
	if e.Message, ok = o["message"].(string); !ok || !isNumber || err != nil {
		return nil, errors.New("error has no code or message")
	}
	e.Code = code
	for name := range o {
		if name != "code" && name != "message" && name != "data" {
			return nil, fmt.Errorf("error has a member %q", name)
		}
	}
	return e, nil
}

// object is the message as it is written.
func (m *Message) object() map[string]any {
	o := map[string]any{"jsonrpc": "2.0"}
	if m.ID != "" {
		o["id"] = json.RawMessage(m.ID)
	}
	switch {
	case m.Method != "":
		o["method"] = m.Method
		if m.Params != nil {
			o["params"] = m.Params
		}
	case m.Error != nil:
		e := map[string]any{"code": m.Error.Code, "message": m.Error.Message}
		if m.Error.Data != nil {
			e["data"] = m.Error.Data
		}
		o["error"] = e
		if m.ID == "" {
			o["id"] = nil
		}
	default:
		o["result"] = m.Result
	}
	return o
}

// Encode writes messages in their one form, as a batch or the one that there is.
func Encode(messages []*Message, batch bool) ([]byte, error) {
	if !batch && len(messages) == 1 {
		return encode(messages[0].object())
	}
	list := make([]any, len(messages))
	for i, m := range messages {
		list[i] = m.object()
	}
	return encode(list)
}

// Refusal answers a request that is not sent on. Its message says all, for programs show
// nothing else; the data says the same in parts.
func Refusal(id ID, no *postern.Refusal) *Message {
	code := int64(CodeRefused)
	if no.Code == postern.CodeProtocol {
		code = CodeInvalid
	}
	why, data := "postern: "+no.Reason, map[string]any{"code": no.Code.String()}
	for _, p := range [...]struct{ name, before, text, after string }{{"detail", " (", no.Detail, ")"}, {"rule", " [rule ", no.Rule, "]"}, {"hint", ". ", no.Hint, ""}} {
		if p.text != "" {
			why += p.before + p.text + p.after
			data[p.name] = p.text
		}
	}
	return &Message{ID: id, Error: &Error{Code: code, Message: why, Data: data}}
}

// Held answers a request about which people have been asked: the same call goes through
// once they have said yes.
func Held(id ID, notice string) *Message {
	const hint = "make the same call again once it is approved"
	return &Message{ID: id, Error: &Error{Code: CodeHeld, Message: "postern: " + notice + ". " + hint, Data: map[string]any{"code": "held", "notice": notice, "hint": hint}}}
}
