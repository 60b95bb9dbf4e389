package ssh

import "testing"

// TestQuoted: what was judged is known again by its text, so no two things are said alike.
func TestQuoted(t *testing.T) {
	said := map[string]string{}
	for _, names := range [][]string{
		{"/a"}, {"/a (/b)"}, {"/a ", "(/b)"}, {"/a", "/b"}, {"/a /b"}, {"/a'", "'/b"}, {"/a' '/b"}, {"'/a'"}, {`"/a"`},
		{"/a?b"}, {"/a\x01b"}, {"/a\x02b"}, {`/a\x01b`}, {"/a\xff"}, {"/a\ufffd"}, {"/a\u2028"}, {"/a\u0085"}, {"/a\n"}, {""},
	} {
		text := ""
		for _, n := range names {
			text += " " + quoted(n)
		}
		if was, taken := said[text]; taken {
			t.Errorf("%q is said as%s, and so is %s", names, text, was)
		}
		said[text] = names[0]
		if printable(text) != text {
			t.Errorf("%q steers a terminal as %q", names, text)
		}
	}
}
