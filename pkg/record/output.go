package record

import (
	"bytes"
	"regexp"
)

// steering is what a program tells a terminal beside its text, where it has no room for
// text: where to write and how. What has room, such as a window's title, is shown, for
// somebody may have read it there.
var steering = regexp.MustCompile("\x1b(\\[[0-?]{0,16}[ -/]{0,2}[@-~]|[@-Z^_=>]|[()][0-9A-B])")

// said shows what a command or terminal wrote, as text: line by line below the time, and
// without what moved the cursor. What was written over is shown too, as a line before.
func (t *teller) said(e *Event) {
	text := steering.ReplaceAll(e.Data, nil)
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	text = bytes.ReplaceAll(text, []byte("\r"), []byte("\n"))
	text = bytes.TrimSuffix(text, []byte("\n"))
	if !bytes.Contains(text, []byte("\n")) && len(text) <= maxCell {
		t.at(e, t.number(e)+t.paint(faint, clean(e.Tag)+" | ")+clean(string(text)))
		return
	}
	t.at(e, t.number(e)+t.paint(faint, clean(e.Tag)))
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		t.under(t.paint(faint, "| ") + clean(string(line)))
	}
}
