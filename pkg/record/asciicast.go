package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
	"unicode/utf8"
)

// errNoTerminal is a recording in which nothing was written to a terminal or by a command.
var errNoTerminal = errors.New("nothing in this recording was written to a terminal: export it as JSON lines")

// The size of a terminal that never told its own, and the largest that is believed.
const (
	castColumns, castRows = 80, 24
	maxCastSize           = 1 << 14
)

// Asciicast writes what terminals and commands of a session showed as asciicast, version
// 2, which asciinema and its players show at the pace of then. What was asked for, and
// what was denied, stands in markers. It ends at the first error of events or w.
func Asciicast(w io.Writer, events iter.Seq2[*Event, error]) error {
	c := &cast{enc: json.NewEncoder(w), columns: castColumns, rows: castRows, terminal: map[uint64]bool{}, rest: map[string][]byte{}}
	c.enc.SetEscapeHTML(false)
	for e, err := range events {
		if err != nil {
			return err
		}
		if err := c.event(e); err != nil {
			return err
		}
	}
	if !c.began {
		return errNoTerminal
	}
	return nil
}

type cast struct {
	enc           *json.Encoder
	columns, rows int
	began         bool // the header is written
	start         time.Time
	title         string
	waiting       []castLine        // markers from before the header
	terminal      map[uint64]bool   // the statements that run on a terminal
	rest          map[string][]byte // of each stream, what is not yet a whole character
}

// castLine is one line after the header: when, what, and its text.
type castLine struct {
	at   time.Duration
	code string // o output, i input, r resize, m marker
	text string
}

func (l castLine) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{json.Number(fmt.Sprintf("%.6f", l.at.Seconds())), l.code, l.text})
}

func (c *cast) event(e *Event) error {
	switch e.Kind {
	case KindOpened:
		c.start = e.Time
		if s := e.Session; s != nil {
			c.title = fmt.Sprintf("%s on %s by %s, session %s", s.Task, s.Resource, s.Subject, s.ID)
		}
	case KindIntent:
		return c.put(castLine{e.Elapsed, "m", e.Text})
	case KindDenied:
		return c.put(castLine{e.Elapsed, "m", "denied: " + e.Text + " (" + e.Reason + ")"})
	case KindFinished:
		delete(c.terminal, e.Statement)
	case KindChunk:
		return c.chunk(e)
	}
	return nil
}

func (c *cast) chunk(e *Event) error {
	switch e.Tag {
	case "resize":
		c.terminal[e.Statement] = true
		var columns, rows int
		if n, _ := fmt.Sscanf(string(e.Data), "%dx%d", &columns, &rows); n != 2 || columns <= 0 || rows <= 0 || columns > maxCastSize || rows > maxCastSize {
			return nil
		}
		if !c.began {
			c.columns, c.rows = columns, rows
			return nil
		}
		return c.put(castLine{e.Elapsed, "r", fmt.Sprintf("%dx%d", columns, rows)})
	case "asked": // of a shell without a terminal
		if text := c.whole(fmt.Sprint(e.Statement, e.Tag), e.Data); text != "" {
			return c.put(castLine{e.Elapsed, "i", text})
		}
	case "stdout", "stderr":
		text := c.whole(fmt.Sprint(e.Statement, e.Tag), e.Data)
		if !c.terminal[e.Statement] { // nobody has told lines apart as a terminal needs it
			text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
		}
		if text == "" {
			return nil
		}
		if err := c.begin(); err != nil {
			return err
		}
		return c.put(castLine{e.Elapsed, "o", text})
	}
	return nil
}

// whole is data as text; a character that is cut waits for its rest.
func (c *cast) whole(stream string, data []byte) string {
	data = append(c.rest[stream], data...)
	cut := len(data)
	for i := 1; i < utf8.UTFMax && i <= len(data); i++ {
		if at := len(data) - i; utf8.RuneStart(data[at]) {
			if !utf8.FullRune(data[at:]) {
				cut = at
			}
			break
		}
	}
	c.rest[stream] = bytes.Clone(data[cut:])
	return strings.ToValidUTF8(string(data[:cut]), "\uFFFD")
}

// begin writes the header, and what has waited for it.
func (c *cast) begin() error {
	if c.began {
		return nil
	}
	c.began = true
	head := struct {
		Version   int    `json:"version"`
		Width     int    `json:"width"`
		Height    int    `json:"height"`
		Timestamp int64  `json:"timestamp,omitempty"`
		Title     string `json:"title,omitempty"`
	}{2, c.columns, c.rows, 0, c.title}
	if !c.start.IsZero() {
		head.Timestamp = c.start.Unix()
	}
	if err := c.enc.Encode(head); err != nil {
		return err
	}
	for _, l := range c.waiting {
		if err := c.enc.Encode(l); err != nil {
			return err
		}
	}
	c.waiting = nil
	return nil
}

// maxCastWaiting bounds the markers that wait for the first output.
const maxCastWaiting = 1000

func (c *cast) put(l castLine) error {
	if !c.began {
		if len(c.waiting) < maxCastWaiting {
			c.waiting = append(c.waiting, l)
		}
		return nil
	}
	return c.enc.Encode(l)
}
