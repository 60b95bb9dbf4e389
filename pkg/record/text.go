package record

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/posterngate/postern/pkg/postern"
)

// Options say how a recording is shown.
type Options struct {
	Colour bool
	// Speed replays with the pauses of the session, so many times as fast; 0 shows all
	// at once.
	Speed float64
	// MaxPause is the longest pause of a replay; 0 means 2 s.
	MaxPause time.Duration
}

const (
	margin  = "            " // under the time
	further = margin + "  "  // before what goes on from the line before
	maxCell = 120            // characters of a cell that are shown
)

const (
	bold   = "1"
	faint  = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// Text writes a recording for people to read. What a recording holds cannot steer the
// terminal: control characters are shown as such. Nor can it pass for what is said of it:
// the further lines of a text are set further in than any line of ours. It ends at the
// first error of events or w, and when ctx is done.
func Text(ctx context.Context, w io.Writer, events iter.Seq2[*Event, error], o Options) error {
	t := &teller{w: bufio.NewWriter(w), o: o, columns: map[uint64][]Column{}}
	if t.o.MaxPause == 0 {
		t.o.MaxPause = 2 * time.Second
	}
	for e, err := range events {
		if err != nil {
			return err
		}
		if err := t.pause(ctx, e.Time); err != nil {
			return err
		}
		t.tell(e)
		if err := t.w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// A teller shows events one after another.
type teller struct {
	w       *bufio.Writer
	o       Options
	start   time.Time // of the session
	last    time.Time // of the event before
	columns map[uint64][]Column
}

func (t *teller) pause(ctx context.Context, at time.Time) error {
	if t.start.IsZero() {
		t.start, t.last = at, at
	}
	wait := time.Duration(0)
	if t.o.Speed > 0 {
		wait = min(time.Duration(float64(at.Sub(t.last))/t.o.Speed), t.o.MaxPause)
	}
	t.last = at
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (t *teller) paint(colour, s string) string {
	if !t.o.Colour || s == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

// at begins a line with the time since the session began.
func (t *teller) at(e *Event, s string) {
	offset := e.Time.Sub(t.start)
	stamp := fmt.Sprintf("+%d:%02d.%03d", int(offset.Minutes()), int(offset.Seconds())%60, offset.Milliseconds()%1000)
	fmt.Fprintf(t.w, "%s%s%s\n", t.paint(faint, stamp), strings.Repeat(" ", max(1, len(margin)-len(stamp))), setIn(s))
}

// under writes a line below.
func (t *teller) under(s string) { fmt.Fprintf(t.w, "%s%s\n", margin, setIn(s)) }

// setIn sets the further lines of a text in.
func setIn(s string) string { return strings.ReplaceAll(s, "\n", "\n"+further) }

func (t *teller) tell(e *Event) {
	if e.Raw {
		t.at(e, t.number(e)+t.paint(yellow, "before its masks:"))
	}
	switch e.Kind {
	case KindOpened:
		if e.Session != nil {
			t.opened(e, e.Session)
		}
	case KindIntent:
		t.at(e, t.statement(e))
		t.params(e)
		t.allowed(e)
	case KindDenied:
		t.at(e, t.statement(e))
		t.params(e)
		t.under(t.paint(red, "denied: "+clean(e.Reason)) + t.rule(e))
	case KindHeld:
		t.at(e, t.paint(yellow, "waits for "+orPeople(e.People)+" to approve")+t.paint(faint, "  "+clean(e.Hold)))
		if e.Text != "" {
			t.under(t.statement(e))
			t.params(e)
		}
	case KindSettled:
		t.settled(e)
	case KindRows:
		t.rows(e)
	case KindChunk:
		way := "to the client"
		if e.Direction == ToTarget {
			way = "to the resource"
		}
		if e.Tag != "" {
			t.said(e)
			return
		}
		t.at(e, t.number(e)+fmt.Sprintf("%d bytes %s", max(e.Bytes, int64(len(e.Data))), way))
	case KindFinished:
		t.finished(e)
	case KindNote:
		t.at(e, t.paint(faint, clean(e.Tag)+": "+clean(e.Text)))
	case KindClosed:
		if e.Seq == 0 {
			t.at(e, t.paint(red, "the recording ends here: "+clean(e.Reason)))
			return
		}
		t.at(e, t.paint(bold, "closed: "+clean(e.Reason)))
	default:
		t.at(e, t.paint(faint, e.Kind.String()))
	}
}

func (t *teller) opened(e *Event, s *Session) {
	who := s.Subject
	if len(s.Groups) > 0 {
		who += " (" + strings.Join(s.Groups, ", ") + ")"
	}
	if len(s.Actors) > 0 {
		who += ", for whom acts " + strings.Join(s.Actors, ", for ")
	}
	for _, line := range [][2]string{
		{"session", string(s.ID)},
		{"who", who},
		{"task", fmt.Sprintf("%s on %s (%s)", s.Task, s.Resource, strings.TrimSpace(string(s.Protocol)+" "+s.Database))},
		{"grant", string(s.Grant)},
		{"from", strings.TrimSuffix(s.ClientAddress+", "+s.ClientProgram, ", ")},
		{"through", strings.TrimSpace(string(s.Node) + " " + s.Region)},
		{"account", s.Account},
		{"raw", map[bool]string{true: "what masks hide is recorded too"}[s.Raw]},
		{"policy", fmt.Sprintf("%s, level %s", s.Version, s.Level)},
		{"began", e.Time.UTC().Format("2006-01-02 15:04:05.000 MST")},
	} {
		if line[1] != "" {
			fmt.Fprintf(t.w, "%-9s%s\n", line[0], t.paint(bold, setIn(clean(line[1]))))
		}
	}
	fmt.Fprintln(t.w)
}

func (t *teller) number(e *Event) string {
	if e.Statement == 0 {
		return ""
	}
	return t.paint(faint, fmt.Sprintf("#%d ", e.Statement))
}

func (t *teller) statement(e *Event) string { return t.number(e) + t.paint(cyan, clean(e.Text)) }

func (t *teller) rule(e *Event) string {
	if e.Rule == "" {
		return ""
	}
	return t.paint(faint, "  by "+clean(e.Rule))
}

func (t *teller) params(e *Event) {
	for i, p := range e.Params {
		v := "NULL"
		if !p.Null {
			v = "'" + cell(paramText(p)) + "'"
		}
		t.under(t.paint(faint, fmt.Sprintf("$%d = ", i+1)) + v)
	}
}

func (t *teller) allowed(e *Event) {
	t.under(t.paint(green, "allowed") + t.rule(e) + t.paint(faint, fmt.Sprintf("  %s, %s", e.Effect, e.Level)))
	var masked []string
	for _, touch := range e.Touched {
		if touch.Mask != "" && touch.View == "" {
			masked = append(masked, clean(touch.Column)+" by "+clean(touch.Mask))
		}
	}
	if len(masked) > 0 {
		t.under(t.paint(faint, "masked: "+strings.Join(masked, ", ")))
	}
	if e.Forward != "" {
		t.under(t.paint(faint, "sent: "+clean(e.Forward)))
	}
}

func orPeople(people []string) string {
	if len(people) == 0 {
		return "people"
	}
	return clean(strings.Join(people, " and "))
}

func (t *teller) settled(e *Event) {
	reason := ""
	if e.Reason != "" {
		reason = ": " + clean(e.Reason)
	}
	if e.Verdict == postern.VerdictAllow {
		t.at(e, t.number(e)+t.paint(green, "approved by "+orPeople(e.People)+reason)+t.paint(faint, "  "+clean(e.Hold)))
		return
	}
	t.at(e, t.number(e)+t.paint(red, "not approved"+reason)+t.paint(faint, "  "+clean(e.Hold)))
}

func (t *teller) finished(e *Event) {
	delete(t.columns, e.Statement)
	took := t.paint(faint, fmt.Sprintf("  %s", e.Duration.Round(10*time.Microsecond)))
	if e.Code != "" || e.Message != "" {
		t.at(e, t.number(e)+t.paint(red, clean(strings.TrimSpace("error "+e.Code+": "+e.Message)))+took)
		return
	}
	what := []string{clean(e.Tag)}
	if e.Rows > 0 {
		what = append(what, fmt.Sprintf("%d rows, %d bytes", e.Rows, e.Bytes))
	}
	if e.Affected > 0 {
		what = append(what, fmt.Sprintf("%d affected", e.Affected))
	}
	t.at(e, t.number(e)+strings.Join(slices.DeleteFunc(what, func(s string) bool { return s == "" }), ", ")+took)
}

// rows shows captured rows as a table.
func (t *teller) rows(e *Event) {
	if e.Columns != nil {
		t.columns[e.Statement] = e.Columns
	}
	columns := t.columns[e.Statement]
	var table [][]string
	if e.Columns != nil {
		head := make([]string, len(columns))
		for i, c := range columns {
			head[i] = cell(c.Name)
			if c.Masked {
				head[i] += "*"
			}
		}
		table = append(table, head)
	}
	var err error
	if e.Encoding == EncodingDataRow {
		err = dataRows(e.Data, func(values [][]byte) error {
			row := make([]string, len(values))
			for i, v := range values {
				row[i] = "NULL"
				if v != nil {
					row[i] = cell(valueText(v, column(columns, i)))
				}
			}
			table = append(table, row)
			return nil
		})
	}
	if e.Encoding != EncodingDataRow || err != nil {
		t.at(e, t.number(e)+fmt.Sprintf("%d rows, %d bytes of %s", e.Rows, len(e.Data), clean(e.Encoding)))
		return
	}
	for i, line := range align(table, e.Columns != nil) {
		if i == 0 && e.Columns != nil {
			line = t.paint(bold, line)
		}
		t.under("  " + line)
	}
}

func column(columns []Column, i int) Column {
	if i < len(columns) {
		return columns[i]
	}
	return Column{}
}

// align makes lines of cells in columns, with a rule below the head.
func align(table [][]string, head bool) []string {
	var widths []int
	for _, row := range table {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	var lines []string
	for n, row := range table {
		var b strings.Builder
		for i, c := range row {
			if i > 0 {
				b.WriteString(" | ")
			}
			b.WriteString(c)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)))
			}
		}
		lines = append(lines, b.String())
		if n == 0 && head {
			var rule []string
			for _, w := range widths {
				rule = append(rule, strings.Repeat("-", w))
			}
			lines = append(lines, strings.Join(rule, "-+-"))
		}
	}
	return lines
}

// cell is a value on one line.
func cell(s string) string {
	s = strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(s)
	if utf8.RuneCountInString(s) > maxCell {
		s = string([]rune(s)[:maxCell]) + "…"
	}
	return clean(s)
}

// clean shows what could steer a terminal, or hide what is written, as an escape.
func clean(s string) string {
	ok := true
	for _, r := range s {
		ok = ok && (r == '\n' || unicode.IsPrint(r)) && r != utf8.RuneError
	}
	if ok {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\n' || unicode.IsPrint(r) && r != utf8.RuneError:
			b.WriteRune(r)
		case r == '\t':
			b.WriteString("    ")
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
