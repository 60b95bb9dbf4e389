package record

import (
	"bytes"
	"regexp"
)

// steering is what a program tells a terminal beside its text: where to write and how.
var steering = regexp.MustCompile("\x1b(\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(\x07|\x1b\\\\)?|[@-Z\\\\^_=>]|[()][0-9A-B])")

// said shows what a command or terminal wrote, as text: line by line below the time, and
// without what moved the cursor.
func (t *teller) said(e *Event) {
	text := steering.ReplaceAll(e.Data, nil)
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	text = bytes.TrimSuffix(text, []byte("\n"))
	if !bytes.ContainsAny(text, "\n\r") && len(text) <= maxCell {
		t.at(e, t.number(e)+t.paint(faint, clean(e.Tag)+" | ")+clean(string(text)))
		return
	}
	t.at(e, t.number(e)+t.paint(faint, clean(e.Tag)))
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		if cr := bytes.LastIndexByte(line, '\r'); cr >= 0 && cr < len(line)-1 {
			line = line[cr+1:] // what was written over is not seen
		}
		t.under(t.paint(faint, "| ") + clean(string(bytes.TrimSuffix(line, []byte("\r")))))
	}
}
