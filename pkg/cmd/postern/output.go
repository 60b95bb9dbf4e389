package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"

	yamlv3 "go.yaml.in/yaml/v3"
	"golang.org/x/term"
	"golang.org/x/text/width"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"sigs.k8s.io/yaml"
)

// forPeople has text write for people, and says what of it could not be written.
func (a *app) forPeople(text func(w io.Writer)) error {
	out := &tame{w: a.env.Stdout}
	text(out)
	return out.err
}

// print writes one message in the format that was asked for; text does so for people.
func (a *app) print(m proto.Message, text func(w io.Writer)) error {
	if a.format == "text" {
		return a.forPeople(text)
	}
	js, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	return a.raw(js)
}

// done tells that something was done whose answer says nothing to people: programs get the
// answer, for them in the place of a text beside it.
func (a *app) done(m proto.Message, format string, args ...any) error {
	if a.format != "text" {
		return a.print(m, nil)
	}
	a.say(format, args...)
	return nil
}

// printValue writes what is no message.
func (a *app) printValue(v any, text func(w io.Writer)) error {
	if a.format == "text" {
		return a.forPeople(text)
	}
	js, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return a.raw(js)
}

// printAll writes a list: a JSON or YAML array, or text for people.
func printAll[T proto.Message](a *app, all []T, text func(w io.Writer)) error {
	if a.format == "text" {
		return a.forPeople(text)
	}
	list := []json.RawMessage{}
	for _, m := range all {
		js, err := protojson.Marshal(m)
		if err != nil {
			return err
		}
		list = append(list, js)
	}
	js, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return a.raw(js)
}

func (a *app) raw(js []byte) error {
	if a.format == "yaml" {
		y, err := toYAML(js)
		if err != nil {
			return err
		}
		_, err = plainYAML{a.env.Stdout}.Write(y)
		return err
	}
	var out bytes.Buffer // protojson's own spacing varies on purpose
	if err := json.Indent(&out, js, "", "  "); err != nil {
		return err
	}
	_, err := fmt.Fprintln(plainJSON{a.env.Stdout}, out.String())
	return err
}

// tame writes texts of other people so that they cannot steer the terminal: control
// characters, and those that change the direction of text, are shown as such.
type tame struct {
	w   io.Writer
	err error // the first; nothing is written after it
}

func (t *tame) Write(p []byte) (int, error) {
	if t.err == nil {
		_, t.err = io.WriteString(t.w, tamed(string(p)))
	}
	if t.err != nil {
		return 0, t.err
	}
	return len(p), nil
}

func odd(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }

func tamed(s string) string {
	if !strings.ContainsFunc(s, odd) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if odd(r) {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// plainJSON writes JSON so that it cannot steer the terminal either: what tame would show
// as an escape is one, and says the same to programs.
type plainJSON struct{ w io.Writer }

func (j plainJSON) Write(p []byte) (int, error) {
	var b strings.Builder
	for _, r := range string(p) {
		switch {
		case r < 0x7f || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	if _, err := io.WriteString(j.w, b.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// toYAML makes YAML of JSON, whatever characters that has: YAML takes some as escapes alone.
func toYAML(js []byte) ([]byte, error) {
	var b strings.Builder
	for _, r := range string(js) {
		if odd(r) && r >= 0x7f && r <= 0xffff {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return yaml.JSONToYAML([]byte(b.String()))
}

// plainYAML writes YAML, a document at a time, so that it cannot steer the terminal either:
// scalars with what tame would show as an escape are in double quotes, where it is one.
type plainYAML struct{ w io.Writer }

func (y plainYAML) Write(p []byte) (int, error) {
	text := p
	if bytes.ContainsFunc(p, odd) {
		var doc yamlv3.Node
		err := yamlv3.Unmarshal(p, &doc)
		if err == nil {
			quoteOdd(&doc)
			text, err = yamlv3.Marshal(&doc)
		}
		if err != nil {
			return 0, err
		}
	}
	if _, err := io.WriteString(y.w, tamed(string(text))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func quoteOdd(n *yamlv3.Node) {
	if n.Kind == yamlv3.ScalarNode && strings.ContainsFunc(n.Value, odd) {
		n.Style = yamlv3.DoubleQuotedStyle
	}
	for _, below := range n.Content {
		quoteOdd(below)
	}
}

// field writes what is known of a thing under a name, and nothing where nothing is known.
// Further lines of the value, which is often other people's text, begin below the first
// and not where names stand: they cannot pass for fields of ours.
func field(w io.Writer, width int, name, value string) {
	if value = strings.TrimRight(value, "\n"); value != "" {
		fmt.Fprintf(w, "%-*s %s\n", width, name, strings.ReplaceAll(value, "\n", "\n"+strings.Repeat(" ", width+1)))
	}
}

// gap is between the columns of a table, and prose the least that its last one is cut to.
const (
	gap   = 2
	prose = 20
)

// table aligns rows under a head. On a terminal that is too narrow the last column is cut
// where it is prose; names and ids, which people copy, are not, and where they do not fit
// each row is a list of fields.
func table(w io.Writer, head string, rows [][]string) {
	names := strings.Fields(strings.ToUpper(head))
	widths := make([]int, len(names))
	for i, n := range names {
		widths[i] = cells(n)
	}
	last := len(names) - 1
	word := widths[last] // the longest that the last column must have room for
	for _, r := range rows {
		for i, c := range r {
			if r[i] = tamed(strings.Join(strings.Fields(c), " ")); r[i] == "" {
				r[i] = "-"
			}
			widths[i] = max(widths[i], cells(r[i]))
		}
		if !strings.Contains(r[last], " ") {
			word = max(word, cells(r[last]))
		}
	}
	if room := columns(w); room > 0 {
		for _, n := range widths[:last] {
			room -= n + gap
		}
		if room < min(widths[last], max(word, prose)) {
			stacked(w, names, rows)
			return
		}
		for _, r := range rows {
			r[last] = oneLine(r[last], room)
		}
	}
	for _, r := range append([][]string{names}, rows...) {
		var line strings.Builder
		for i, c := range r[:last] {
			line.WriteString(c + strings.Repeat(" ", widths[i]-cells(c)+gap))
		}
		fmt.Fprintln(w, line.String()+r[last])
	}
}

// cells is how many columns of a terminal a text takes: letters of East Asia and most emoji are
// as wide as two, and accents that stand by themselves stand over the letter before.
func cells(s string) (n int) {
	for _, r := range s {
		n += cellsOf(r)
	}
	return n
}

func cellsOf(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		return 2
	}
	return 1
}

// stacked writes rows one below the other.
func stacked(w io.Writer, names []string, rows [][]string) {
	wide := 0
	for _, n := range names {
		wide = max(wide, len(n))
	}
	for i, r := range rows {
		if i > 0 {
			fmt.Fprintln(w)
		}
		for c, n := range names {
			field(w, wide, n, r[c])
		}
	}
}

// columns is how many characters fit on a line; 0 where there is no end.
func columns(w io.Writer) int {
	t, _ := w.(*tame)
	if t == nil || !isTerminal(t.w) {
		return 0
	}
	n, _, err := term.GetSize(int(t.w.(*os.File).Fd()))
	if err != nil {
		return 0
	}
	return n
}

func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Local().Format("2006-01-02 15:04:05")
}

// oneLine is a text on one line of at most so many columns.
func oneLine(s string, most int) string {
	s = strings.Join(strings.Fields(s), " ")
	if cells(s) <= most {
		return s
	}
	n := 0
	for i, r := range s {
		if n += cellsOf(r); n > most-1 {
			return s[:i] + "…"
		}
	}
	return s
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colours reports whether what is written to standard output may have colours.
func (a *app) colours() bool {
	return isTerminal(a.env.Stdout) && a.env.Getenv("NO_COLOR") == "" && a.env.Getenv("TERM") != "dumb"
}
