// Package shell understands what a command line would run, by the grammar of the POSIX
// shell, and says it again in a form that every such shell reads alike. It knows simple
// commands of constant words, joined by pipes and lists; all else, such as expansions,
// redirections and compound commands, is not understood, and what is not understood is
// denied by those who ask. It is pure.
package shell

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"mvdan.cc/sh/v3/syntax"
)

// Bounds of a line.
const (
	MaxLine     = 32 << 10 // bytes
	MaxCommands = 64
	MaxWords    = 1024 // of all commands
)

// A Line is what a command line would run. It is immutable.
type Line struct {
	commands []Command
	joins    []string // between commands: ";", "&&", "||" or "|"
}

// A Command is a simple command: a program and its arguments, all constant.
type Command struct {
	Argv []string
	// Quiet names the streams that are thrown away or joined, as they are written:
	// ">/dev/null", "2>/dev/null", "2>&1" and "</dev/null".
	Quiet []string
}

// Program is what runs: a path, or a name that is looked up.
func (c *Command) Program() string { return c.Argv[0] }

// An Error says what in a line is not understood.
type Error struct{ What string }

func (e *Error) Error() string { return "the command line is not understood: " + e.What }

func unknown(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// Parse reads a line. The error is an *Error.
func Parse(line string) (*Line, error) {
	if len(line) > MaxLine {
		return nil, unknown("it is longer than %d bytes", MaxLine)
	}
	if !utf8.ValidString(line) {
		return nil, unknown("it is not UTF-8")
	}
	for _, r := range line {
		if r < ' ' && r != '\t' && r != '\n' || r == 0x7f {
			return nil, unknown("it has the control character %#U", r)
		}
	}
	if nested(line) {
		return nil, unknown("it is nested too deeply")
	}
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(line), "")
	if err != nil {
		return nil, unknown("%s", strings.TrimPrefix(err.Error(), "1:1: "))
	}
	l := &Line{}
	for _, s := range file.Stmts {
		if err := l.statement(s, ";"); err != nil {
			return nil, err
		}
	}
	if len(l.commands) == 0 {
		return nil, unknown("it is empty")
	}
	return l, nil
}

// Commands are what runs, in the order of the line.
func (l *Line) Commands() []Command { return l.commands }

// Simple reports whether it is one command alone.
func (l *Line) Simple() bool { return len(l.commands) == 1 }

// statement adds what s would run, joined to what is there by join.
func (l *Line) statement(s *syntax.Stmt, join string) error {
	switch {
	case s.Negated:
		return unknown("a negated command")
	case s.Background || s.Coprocess || s.Disown:
		return unknown("a command in the background")
	}
	switch cmd := s.Cmd.(type) {
	case *syntax.CallExpr:
		return l.call(s, cmd, join)
	case *syntax.BinaryCmd:
		if len(s.Redirs) > 0 {
			return unknown("a redirection of several commands")
		}
		op, ok := map[syntax.BinCmdOperator]string{syntax.AndStmt: "&&", syntax.OrStmt: "||", syntax.Pipe: "|"}[cmd.Op]
		if !ok {
			return unknown("the operator %s", cmd.Op)
		}
		if err := l.statement(cmd.X, join); err != nil {
			return err
		}
		return l.statement(cmd.Y, op)
	case nil:
		return unknown("a redirection without a command")
	}
	return unknown("a compound command")
}

func (l *Line) call(s *syntax.Stmt, call *syntax.CallExpr, join string) error {
	if len(call.Assigns) > 0 {
		return unknown("an assignment to a variable")
	}
	if len(l.commands) == MaxCommands {
		return unknown("it has more than %d commands", MaxCommands)
	}
	c := Command{}
	for _, w := range call.Args {
		text, err := word(w)
		if err != nil {
			return err
		}
		c.Argv = append(c.Argv, text)
	}
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return unknown("a command without a name")
	}
	total := len(c.Argv)
	for i := range l.commands {
		total += len(l.commands[i].Argv)
	}
	if total > MaxWords {
		return unknown("it has more than %d words", MaxWords)
	}
	for _, r := range s.Redirs {
		quiet, err := redirect(r)
		if err != nil {
			return err
		}
		c.Quiet = append(c.Quiet, quiet)
	}
	if len(l.commands) > 0 {
		l.joins = append(l.joins, join)
	}
	l.commands = append(l.commands, c)
	return nil
}

// redirect reads one of the redirections that reach no file.
func redirect(r *syntax.Redirect) (string, error) {
	n := ""
	if r.N != nil {
		n = r.N.Value
	}
	to, err := word(r.Word)
	if err != nil {
		return "", err
	}
	switch said := n + r.Op.String() + to; said {
	case ">/dev/null", "1>/dev/null", "2>/dev/null", "2>&1", "</dev/null":
		return said, nil
	}
	return "", unknown("the redirection %s%s%s", n, r.Op, to)
}

// plain are the bytes that mean themselves in every shell, wherever they stand. A word of
// them alone may still be special as a whole; see String.
func plain(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("_@%+=:,./-", b) >= 0
}

// word is the text of a constant word.
func word(w *syntax.Word) (string, error) {
	var out strings.Builder
	for _, p := range w.Parts {
		switch p := p.(type) {
		case *syntax.Lit:
			bare := strings.ReplaceAll(p.Value, mark, "")
			for j := range len(bare) {
				if b := bare[j]; !plain(b) && b < utf8.RuneSelf {
					return "", unknown("%q outside of quotes", string(b))
				}
			}
			out.WriteString(strings.ReplaceAll(p.Value, mark, "!"))
		case *syntax.SglQuoted:
			if p.Dollar {
				return "", unknown("a string with escapes")
			}
			out.WriteString(p.Value)
		case *syntax.DblQuoted:
			if p.Dollar {
				return "", unknown("a translated string")
			}
			for _, q := range p.Parts {
				lit, ok := q.(*syntax.Lit)
				if !ok {
					return "", unknown("an expansion")
				}
				if strings.ContainsAny(lit.Value, "$`\\!") {
					return "", unknown("a special character in double quotes; use single ones")
				}
				out.WriteString(lit.Value)
			}
		default:
			return "", unknown("an expansion")
		}
	}
	text := out.String()
	if strings.ContainsAny(text, "\\\n") {
		return "", unknown("a backslash or line break in a word") // some shells read them in single quotes
	}
	return text, nil
}

// String is the line again, so that every POSIX shell reads it alike: words that are not
// plain stand in single quotes.
func (l *Line) String() string { return l.with(nil, Quote) }

// With is the line with the programs replaced: those that run by name become paths.
// programs has one path for each command; an empty one leaves it as it is. Most other
// shells read it alike, too.
func (l *Line) With(programs []string) string {
	if l.varies() {
		return "/bin/sh -c " + Quote(l.with(programs, posix))
	}
	return l.with(programs, Quote)
}

// varies reports whether other shells read the line in another way: csh takes the number of a
// redirection for one more argument, and what follows it for the name of a file, and binds &&
// more tightly than ||.
func (l *Line) varies() bool {
	return slices.Contains(l.joins, "&&") && slices.Contains(l.joins, "||") ||
		slices.ContainsFunc(l.commands, func(c Command) bool { return len(c.Quiet) > 0 })
}

func (l *Line) with(programs []string, quote func(string) string) string {
	var out strings.Builder
	for i := range l.commands {
		c := &l.commands[i]
		if i > 0 {
			if l.joins[i-1] != ";" {
				out.WriteByte(' ')
			}
			out.WriteString(l.joins[i-1] + " ")
		}
		for j, w := range c.Argv {
			if j > 0 {
				out.WriteByte(' ')
			} else if i < len(programs) && programs[i] != "" {
				w = programs[i]
			}
			out.WriteString(quote(w))
		}
		for _, q := range c.Quiet {
			out.WriteString(" " + q)
		}
	}
	return out.String()
}

// mark is ! outside of quotes. In csh, which is some hosts' login shell, it stands for
// earlier words even in single quotes, and brings along what closes them; so said it means
// itself in every shell.
const mark = `\!`

// Quote is a word for a command line.
func Quote(w string) string {
	if bare(w) {
		return w
	}
	parts := strings.Split(w, "!")
	for i, p := range parts {
		if p != "" || len(parts) == 1 {
			parts[i] = single(p)
		}
	}
	return strings.Join(parts, mark)
}

// posix is a word for a line that a POSIX shell reads.
func posix(w string) string {
	if bare(w) {
		return w
	}
	return single(w)
}

func single(w string) string { return "'" + strings.ReplaceAll(w, "'", `'"'"'`) + "'" }

// bare reports whether a word means itself without quotes.
func bare(w string) bool {
	safe := w != "" && w[0] != '=' && w[0] != '%' && w[0] != '-' || len(w) > 1 && w[0] == '-'
	for i := 0; safe && i < len(w); i++ {
		safe = plain(w[i])
	}
	// A word with = before the program would be an assignment.
	return safe && !strings.Contains(w, "=") && !reserved[w]
}

var reserved = map[string]bool{
	"if": true, "then": true, "else": true, "elif": true, "fi": true, "do": true, "done": true, "case": true, "esac": true, "while": true,
	"until": true, "for": true, "in": true, "function": true, "select": true, "time": true, "coproc": true,
}
