package http

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/request"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/postern"
)

// A talk is what a request has to do with a server of MCP. Its methods take none for one
// that has nothing to do with any.
type talk struct {
	*mcp.Talk
	server   *mcp.Server
	memory   mcp.Memory
	rule     *postern.MCPRule
	batch    bool
	calls    []*call        // that are sent on
	refusals []*mcp.Message // of those that are not
	refused  error          // of one that is not and wants no answer
	heard    *mcp.Bodies    // nil until there is an answer
}

// A call is one message that was admitted.
type call struct {
	*mcp.Message
	sent   *mcp.Message // as the server gets it
	effect postern.Effect
	flow   engine.Flow
}

// sessionHeader names the session of the protocol.
const sessionHeader = "Mcp-Session-Id"

// converse finds what is known of the server, and judges each message that the request
// carries by itself. Those that may go on are the body then, in their one form.
func (x *exchange) converse(ctx context.Context, rule *postern.MCPRule) error {
	t := &talk{rule: rule, server: x.e.mcp.Of(x.terms.Grant, string(x.terms.Resource)+" "+x.facts.Path)}
	t.memory = func(told *nodev1.PinServerRequest) (*nodev1.ServerPins, error) {
		told.Path = x.facts.Path
		return x.v.PinServer(ctx, told)
	}
	if t.server == nil {
		return &postern.Refusal{Code: postern.CodeLimit, Reason: "too many servers of MCP for one grant", Hint: "use fewer paths of the resource"}
	}
	x.talk = t
	if t.Talk = t.server.Talk(x.r.Header.Get(sessionHeader)); t.Talk == nil {
		return x.deny(ctx, &postern.Refusal{
			Code: postern.CodeProtocol, Reason: "the session of MCP is not known here", Rule: x.adm.Decision.Rule, Hint: "begin a new one: initialize", Cause: errNoTalk,
		})
	}
	if x.r.Method != http.MethodPost {
		if x.r.ContentLength != 0 { // many servers read one whatever the method is
			return x.deny(ctx, request.Bad("messages of MCP come by POST, and there is a body"))
		}
		return nil
	}
	if x.facts.ContentType != "application/json" {
		return x.deny(ctx, request.Bad("messages of MCP come as application/json"))
	}
	body, err := x.plain(ctx)
	if err != nil {
		return x.deny(ctx, postern.AsRefusal(err))
	}
	messages, batch, err := mcp.Parse(body)
	if err != nil {
		return x.deny(ctx, request.Bad(err.Error()))
	}
	t.batch = batch
	if x.facts.Header == nil {
		x.headers()
	}
	for _, m := range messages {
		if err = x.judge(ctx, m); err != nil {
			break
		}
	}
	if err == nil {
		err = x.compose()
	}
	if err != nil {
		no := postern.AsRefusal(err)
		err = errors.Join(err, t.done(&engine.Outcome{Code: no.Code.String(), Message: no.Reason}))
	}
	return err
}

// errNoTalk says that a client names a session of the protocol that is not its own, or is
// over. By its status it knows that it must begin another.
var errNoTalk = errors.New("http: no such session of MCP")

// deny records that nothing of the request is sent on, and returns why.
func (x *exchange) deny(ctx context.Context, no *postern.Refusal) error {
	_, _, err := x.prepare(ctx, unclear(x.facts.Method+" "+x.to, no))
	return err
}

// judge has one message admitted, or refused by itself. An error is of the whole request.
func (x *exchange) judge(ctx context.Context, m *mcp.Message) error {
	c, err := x.call(ctx, m)
	switch {
	case err == nil:
		x.talk.calls = append(x.talk.calls, c)
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !m.Request():
		x.talk.refused = err
		return nil
	}
	answer := mcp.Refusal(m.ID, postern.AsRefusal(err))
	if held := (*heldError)(nil); errors.As(err, &held) {
		answer = mcp.Held(m.ID, held.notice)
	}
	x.talk.refusals = append(x.talk.refusals, answer)
	return nil
}

// message makes the Statement of one message.
func (x *exchange) message(f *mcp.Facts) *engine.Statement {
	text := f.Text()
	return &engine.Statement{
		Text: text, Context: x.beside(), Meets: meets, Body: x.parse, Private: f.Changed != "",
		Analyse: func(context.Context) (engine.Analysis, error) { return &analysis{facts: f, text: text}, nil },
	}
}

func (x *exchange) call(ctx context.Context, m *mcp.Message) (*call, error) {
	t, f := x.talk, m.Facts(x.facts)
	var err error
	if f.Changed, f.Now, err = t.server.Changed(t.memory, f, t.rule); err != nil {
		return nil, x.deny(ctx, postern.AsRefusal(err))
	}
	st := x.message(f)
	c := &call{Message: m, effect: f.Effect()}
	for range maxJudged {
		adm, an, err := x.prepare(ctx, st)
		if err != nil {
			return nil, err
		}
		args, err := x.told(f, adm, an)
		if err != nil {
			return nil, err
		}
		if err := x.pass(ctx, adm, args, &c.flow); again(err) {
			continue
		} else if err != nil {
			return nil, err
		}
		if err := c.keepRaw(f, adm, an); err != nil {
			no := postern.AsRefusal(err)
			return nil, errors.Join(err, c.flow.Done(engine.Outcome{Code: no.Code.String(), Message: no.Reason, Affected: -1}))
		}
		if f.Changed != "" && adm.Decision.Verdict == postern.VerdictHold {
			if err := t.server.Accept(t.memory, f, f.Changed, t.rule, c.flow.Hold()); err != nil {
				no := postern.AsRefusal(err)
				return nil, errors.Join(no, c.flow.Done(engine.Outcome{Code: no.Code.String(), Message: no.Reason, Affected: -1}))
			}
		}
		if c.sent, err = t.Ask(m, mcp.Terms{List: an.messages, Masks: an.masks}); err != nil {
			no := request.Bad(err.Error())
			return nil, errors.Join(no, c.flow.Done(engine.Outcome{Code: no.Code.String(), Message: no.Reason, Affected: -1}))
		}
		return c, nil
	}
	return nil, errUnsteady
}

// told is what a message says beside its text: as people are asked about it, or as it is recorded,
// with the masks of its answer.
func (x *exchange) told(f *mcp.Facts, adm *engine.Admission, an *analysis) (engine.Args, error) {
	masks := an.masks
	if adm.Decision.Verdict == postern.VerdictHold {
		masks = nil
	}
	asked, err := f.Asked(masks)
	if err != nil {
		return engine.Args{}, err
	}
	if with := request.Approved(x.talk.forward(x)); len(with) > 0 {
		asked = append([][]byte{withHeaders(veiled(with, masks))}, asked...) // no JSON, as arguments are; and what has changed is the last
	}
	return engine.Args{Values: asked, Null: func(int) bool { return false }}, nil
}

// keepRaw keeps what was recorded masked, where the task wants that.
func (c *call) keepRaw(f *mcp.Facts, adm *engine.Admission, an *analysis) error {
	if an.masks.Empty() || adm.Decision.Verdict == postern.VerdictHold || !c.flow.KeepsRaw() {
		return nil
	}
	asked, err := f.Asked(nil)
	for _, p := range asked {
		err = errors.Join(err, c.flow.RawOutput(engine.Asked, p))
	}
	return err
}

// compose makes the body of what may go on, and has the request be the call that may do
// most: its flow tells what comes back.
func (x *exchange) compose() error {
	t := x.talk
	if len(t.calls) == 0 {
		if len(t.refusals) == 0 {
			return t.refused
		}
		return nil
	}
	most, messages := t.calls[0], make([]*mcp.Message, len(t.calls))
	for i, c := range t.calls {
		messages[i] = c.sent
		if c.effect > most.effect {
			most = c
		}
	}
	x.flow = most.flow
	most.flow = engine.Flow{}
	body, err := mcp.Encode(messages, t.batch)
	x.body, x.buffered = body, true
	return err
}

// forward are the headers that go on, without those that say only how messages come.
func (t *talk) forward(x *exchange) http.Header {
	h := x.h.Forward(x.r)
	t.headers(h)
	for _, name := range []string{"Accept", "Content-Type", sessionHeader, "Mcp-Protocol-Version"} {
		h.Del(name)
	}
	return h
}

// headers makes the headers agree that say once more what a message is.
func (t *talk) headers(h http.Header) {
	if t == nil {
		return
	}
	for name := range h {
		if strings.HasPrefix(name, "Mcp-") && name != sessionHeader && name != "Mcp-Protocol-Version" {
			h.Del(name)
		}
	}
	if len(t.calls) == 1 && !t.batch {
		for name, v := range t.calls[0].sent.Headers() {
			h.Set(name, v)
		}
	}
}

// silent reports whether nothing of what a client asked goes on.
func (t *talk) silent() bool { return t != nil && len(t.calls) == 0 && len(t.refusals) > 0 }

// unanswered answers all that was asked, for a request that failed as a whole.
func (t *talk) unanswered(no *postern.Refusal) []*mcp.Message {
	if t == nil {
		return nil
	}
	out := t.refusals
	for _, c := range t.calls {
		if c.Request() {
			out = append(out, mcp.Refusal(c.ID, no))
		}
	}
	return out
}

// tell records what the answer has shown to be other than it must be, and tells operators.
func (x *exchange) tell() error {
	if x.talk == nil || x.talk.heard == nil {
		return nil
	}
	for _, c := range x.talk.heard.Outcome().Changed {
		x.e.log.Warn("what a server of mcp says of itself has changed, and is held back", "session", x.v.ID(), "task", x.terms.Task, "resource", x.terms.Resource, "what", c.What, "change", c.How)
		if err := x.v.Note(postern.NoteAlert, c.String()); err != nil {
			return err
		}
	}
	return nil
}

// done ends the flows of the calls, and what nobody will be answered any more. It leaves
// how the call went whose flow is the request's in its outcome.
func (t *talk) done(o *engine.Outcome) error {
	if t == nil {
		return nil
	}
	var failed error
	heard := &mcp.Outcome{}
	if t.heard != nil {
		heard = t.heard.Outcome()
	}
	for _, c := range t.calls {
		tag, answered := heard.Answers[c.ID]
		switch {
		case !c.Request():
			tag = o.Tag
		case !answered:
			tag = "no answer"
			if !heard.Resumable {
				t.Forget(c.ID)
			}
		}
		if c.flow.Admitted() {
			failed = errors.Join(failed, c.flow.Done(engine.Outcome{Tag: tag, Affected: -1, Code: o.Code, Message: o.Message}))
		} else {
			o.Tag = tag
		}
	}
	return failed
}
