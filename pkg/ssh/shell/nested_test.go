package shell

import (
	"io"
	"runtime"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/syntax"
)

// TestNested: what would take the parser deep is refused before it is parsed, also behind what
// makes quotes look open, and what stands in quotes is not.
func TestNested(t *testing.T) {
	for _, deep := range []string{"case x in x) ", "(", "{ ", "$(", "`\\`", "\"$(", "${a:-", "if ", "if\n", "while ", "until ", "for i in a; do ", "f()", "(#)\n", "$((", "if("} {
		for _, before := range []string{"", "#'\n", "a#'' \n", "<<E\n'\nE\n", "$'\\'' ", "\"$( ' \" ' ", "\"$( ' \" #' ", "`'` ", "\\' ", "\\ #", "\"'\" ", "'\"' ", "\"\\\"'\" ", "${a:-'} "} {
			line := before + strings.Repeat(deep, (MaxLine-len(before))/len(deep))
			if _, err := Parse(line); err == nil || !strings.HasSuffix(err.Error(), "it is nested too deeply") {
				t.Errorf("%q behind %q: %v", deep, before, err)
			}
		}
	}
	for _, line := range []string{
		"psql -c '" + strings.Repeat("(1),", 5000) + "'", "grep \"" + strings.Repeat("(", 5000) + "\" x", "uptime # it's (all) right\nuptime",
		"echo '$' " + strings.Repeat("'('", 1000), "uptime #" + strings.Repeat("(", 5000),
	} {
		if _, err := Parse(line); err != nil {
			t.Errorf("%.20q: %v", line, err)
		}
	}
}

// FuzzNested: into what is not called nested the parser does not go deep, whatever stands before.
func FuzzNested(f *testing.F) {
	deep := []string{"(", "$(", "{ ", "${a:-", "if ", "\"$(", "f()", "$((", "`\\`", "case x in x) ", "a|"}
	for i, before := range []string{"#'\n", "<<E\n'\nE\n", "\"$( ' \" ' ", "\\ #", "$'\\'' ", "a '(' # b"} {
		f.Add(before, uint8(i))
	}
	f.Fuzz(func(t *testing.T, before string, kind uint8) {
		line := before + strings.Repeat(deep[int(kind)%len(deep)], 700)
		if nested(line) {
			return
		}
		d := &depth{text: line, at: make([]uintptr, 20*maxNested)}
		_, _ = syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(d, "")
		if d.most > 16*maxNested {
			t.Errorf("behind %q the parser goes %d deep", before, d.most)
		}
	})
}

// depth is a text that notes from how deep it is read.
type depth struct {
	text string
	most int
	at   []uintptr
}

func (d *depth) Read(p []byte) (int, error) {
	d.most = max(d.most, runtime.Callers(0, d.at))
	if d.text == "" {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 64)], d.text)
	d.text = d.text[n:]
	return n, nil
}
