package ssh

import (
	"strconv"
	"strings"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/ssh/shell"
)

// exitRefused is the exit status of what was not run, as shells have it for what cannot
// be executed.
const exitRefused = 126

// say words a refusal for a terminal or a log.
func say(r *postern.Refusal) string {
	var b strings.Builder
	b.WriteString("postern: " + printable(r.Reason) + "\n")
	for _, part := range [...]struct{ name, text string }{{"rule", r.Rule}, {"detail", r.Detail}, {"hint", r.Hint}} {
		if part.text != "" {
			b.WriteString("  " + part.name + ": " + printable(part.text) + "\n")
		}
	}
	return b.String()
}

// printable replaces what would steer a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, s)
}

// quoted is a name as the text of a statement has it: no two names, nor what stands
// between them, are said alike, since what was judged is known again by its text.
func quoted(name string) string {
	if printable(name) != name {
		return strconv.QuoteToASCII(name) // in double quotes, where others stand in single ones
	}
	return shell.Quote(name)
}

// lines turns line ends into those of a terminal in raw mode.
func lines(text string, terminal bool) []byte {
	if terminal {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	return []byte(text)
}

// fatal reports whether a refusal of a statement ends its session too.
func fatal(r *postern.Refusal) bool {
	return r.Code == postern.CodeKilled || r.Code == postern.CodeProtocol
}
