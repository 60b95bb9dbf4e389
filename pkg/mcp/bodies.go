package mcp

import (
	"bytes"
	"fmt"
	"mime"
	"strconv"

	"github.com/posterngate/postern/pkg/content"
	"github.com/posterngate/postern/pkg/postern"
)

// Bodies is a content.Masker of what a server answers: JSON, or events. Beside what Show
// shows, the refusals of requests that were not sent on come first.
type Bodies struct {
	talk    *Talk
	masks   *content.Rule
	asked   Asked
	events  bool
	text    []byte // that is not whole yet
	outcome Outcome
}

// Asked is what a client asked with one request.
type Asked struct {
	Batch    bool
	Sent     []ID       // of what was sent on and wants an answer
	Refusals []*Message // answers to what was not
	Memory   Memory     // against which it is held what the server says of itself
}

// An Outcome is what came of what was asked.
type Outcome struct {
	Answers   map[ID]string // in a word: "result", "tool error" or "error" and its code
	Changed   []Change      // things that are not what they must be, of which nobody was told yet
	Resumable bool          // a client may ask elsewhere for what has not come
}

// NewBodies shows what a server answers to what was asked, of this content type; masks are
// those of what the server says by itself. An error is content.ErrType: nothing may be
// shown.
func (t *Talk) NewBodies(contentType string, masks *content.Rule, asked Asked) (*Bodies, error) {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "application/json" && kind != "text/event-stream" {
		return nil, fmt.Errorf("a server of MCP answers with content type %q: %w", contentType, content.ErrType)
	}
	return &Bodies{talk: t, masks: masks, asked: asked, events: kind == "text/event-stream", outcome: Outcome{Answers: map[ID]string{}}}, nil
}

// Events reports whether the body is a stream of events.
func (b *Bodies) Events() bool { return b.events }

// Outcome is what has been shown so far.
func (b *Bodies) Outcome() *Outcome { return &b.outcome }

// Append is part of content.Masker.
func (b *Bodies) Append(dst, chunk []byte) ([]byte, error) {
	var err error
	if b.events {
		for _, m := range b.asked.Refusals {
			if dst, err = event(dst, nil, []*Message{m}, false); err != nil {
				return dst, err
			}
		}
		b.asked.Refusals = nil
	}
	if len(b.text)+len(chunk) > maxMessage {
		return dst, fmt.Errorf("an answer is longer than %d bytes: %w", maxMessage, content.ErrLimit)
	}
	from := max(0, len(b.text)-3)
	b.text = append(b.text, chunk...)
	if !b.events {
		return dst, nil
	}
	for {
		end, width := eventEnd(b.text, from)
		if end < 0 {
			return dst, nil
		}
		if dst, err = b.event(dst, b.text[:end]); err != nil {
			return dst, err
		}
		b.text = append(b.text[:0], b.text[end+width:]...)
		from = 0
	}
}

// Close is part of content.Masker. An event that is not whole is not shown.
func (b *Bodies) Close(dst []byte) ([]byte, error) {
	if b.events {
		dst, err := b.Append(dst, nil)
		if err != nil || b.outcome.Resumable {
			return dst, err
		}
		for _, m := range b.unanswered() {
			if dst, err = event(dst, nil, []*Message{m}, false); err != nil {
				return dst, err
			}
		}
		return dst, nil
	}
	var out []*Message
	batch := b.asked.Batch
	if len(bytes.TrimSpace(b.text)) > 0 {
		messages, isBatch, err := parse(b.text, false)
		if err != nil {
			return dst, fmt.Errorf("%w: %w", content.ErrForm, err)
		}
		if out, err = b.show(messages); err != nil {
			return dst, err
		}
		batch = batch || isBatch
	}
	out = append(out, b.unanswered()...)
	if out = append(b.asked.Refusals, out...); len(out) == 0 {
		return dst, nil
	}
	text, err := Encode(out, batch)
	return append(dst, text...), err
}

// unanswered tells of what was asked and has no answer, for which nobody needs to wait any more.
func (b *Bodies) unanswered() (out []*Message) {
	for _, id := range b.asked.Sent {
		if b.outcome.Answers[id] == "" {
			out = append(out, Refusal(id, &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the server did not answer this"}))
		}
	}
	return out
}

func (b *Bodies) show(messages []*Message) (out []*Message, err error) {
	for _, m := range messages {
		shown, changed, err := b.talk.Show(m, b.masks, b.asked.Memory)
		if err != nil {
			return nil, err
		}
		b.outcome.Changed = append(b.outcome.Changed, changed...)
		if shown != nil {
			if shown.Response() && shown.ID == "" && !b.asked.Batch && len(b.asked.Sent) == 1 && b.outcome.Answers[b.asked.Sent[0]] == "" {
				shown.ID = b.asked.Sent[0] // there is nothing else that the server could not read
				b.talk.Forget(shown.ID)
			}
			if shown.Response() && shown.ID != "" {
				b.outcome.Answers[shown.ID] = answer(shown)
			}
			out = append(out, shown)
		}
	}
	return out, nil
}

// answer is what came of a request, in a word.
func answer(m *Message) string {
	switch {
	case m.Error != nil:
		return "error " + strconv.FormatInt(m.Error.Code, 10)
	case m.Result["isError"] == true:
		return "tool error"
	}
	return "result"
}

// eventEnd is where an event ends, and how long its end is; from is where to look.
func eventEnd(text []byte, from int) (at, width int) {
	for i := from; i < len(text); i++ {
		if text[i] != '\n' && text[i] != '\r' {
			continue
		}
		first := 1
		if text[i] == '\r' && i+1 < len(text) && text[i+1] == '\n' {
			first = 2
		}
		next := i + first
		switch {
		case next < len(text) && text[next] == '\n':
			return i, first + 1
		case next+1 < len(text) && text[next] == '\r' && text[next+1] == '\n':
			return i, first + 2
		case next+1 < len(text) && text[next] == '\r':
			return i, first + 1
		}
		i = next - 1
	}
	return -1, 0
}

// event shows one event: its message, and its id, by which a client asks for what comes
// after it.
func (b *Bodies) event(dst, text []byte) ([]byte, error) {
	var id, data, retry []byte
	has, first := false, true
	text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "id":
			if len(value) <= maxID && !bytes.ContainsRune(value, 0) {
				id = value
				b.outcome.Resumable = true
			}
		case "retry":
			if _, err := strconv.ParseUint(string(value), 10, 31); err == nil {
				retry = value
			}
		case "event":
			if string(value) != "message" {
				return dst, nil
			}
		case "data":
			if !first {
				data = append(data, '\n')
			}
			data, first, has = append(data, value...), false, true
		}
	}
	if retry != nil {
		dst = append(append(append(dst, "retry: "...), retry...), '\n')
	}
	if len(bytes.TrimSpace(data)) == 0 {
		dst = named(dst, id) // where a client may resume
		if !has {
			return append(dst, ":\n\n"...), nil // it shows that the server lives
		}
		return append(dst, "data:\n\n"...), nil
	}
	messages, batch, err := parse(data, false)
	if err != nil {
		return dst, fmt.Errorf("%w: %w", content.ErrForm, err)
	}
	shown, err := b.show(messages)
	if err != nil || len(shown) == 0 {
		return dst, err
	}
	return event(dst, id, shown, batch)
}

// event appends messages as one event.
func event(dst, id []byte, messages []*Message, batch bool) ([]byte, error) {
	text, err := Encode(messages, batch)
	if err != nil {
		return dst, err
	}
	dst = named(append(dst, "event: message\n"...), id)
	return append(append(append(dst, "data: "...), text...), "\n\n"...), nil
}

// named appends the id of an event, where it has one: an empty one would have the client forget
// where it was.
func named(dst, id []byte) []byte {
	if len(id) == 0 {
		return dst
	}
	return append(append(append(dst, "id: "...), id...), '\n')
}
