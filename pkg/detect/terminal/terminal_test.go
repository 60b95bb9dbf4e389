package terminal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/detect"
	"github.com/posterngate/postern/pkg/postern"
)

func set(t testing.TB) *detect.Set {
	t.Helper()
	var rules []postern.DetectRule
	for _, k := range []string{"email", "card", "iban", "phone", "us-ssn", "secrets"} {
		m := &postern.MaskRule{Name: "m", Method: postern.MaskRedact, Value: "[hidden]"}
		if k == "card" {
			m = &postern.MaskRule{Name: "p", Method: postern.MaskPartial, KeepLast: 4}
		}
		rules = append(rules, postern.DetectRule{Kind: k, Mask: m})
	}
	s, err := detect.Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func shown(s *detect.Set, width int, text string) string {
	st := New(s, width)
	return string(st.Close(st.Append(nil, []byte(text))))
}

func TestStream(t *testing.T) {
	s := set(t)
	const mail = "alice@example.com"
	stars := strings.Repeat("*", len(mail))
	for in, want := range map[string]string{
		"hello\r\n":                          "hello\r\n",
		mail + "\r\n":                        stars + "\r\n",
		"card 4111 1111 1111 1111\r\n":       "card ***************1111\r\n",
		"ali\x1b[0mce@exa\x1b[31mmple.com":   "***\x1b[0m******\x1b[31m********",
		"\x1b[1m" + mail + "\x1b[0m, x":      "\x1b[1m" + stars + "\x1b[0m, x",
		"alicX\be@example.com\n":             "****X\b*************\n",
		mail + "\b\b\bxxx\n":                 stars + "\b\b\b***\n",
		"XXXXX@example.com\ralice\n":         stars + "\r*****\n",
		mail + "\r" + mail + "\n":            stars + "\r" + stars + "\n",
		mail + "\rnothing to see here\n":     stars + "\rnothing to see here\n",
		mail + "\x1b[2K\r\n":                 stars + "\x1b[2K\r\n",
		mail + "\x1b[5Dxx\n":                 stars + "\x1b[5Dxx\n",
		"alice@example\x1b[1C\x1b[1D.com ":   "*************\x1b[1C\x1b[1D**** ",
		"alice@exam\r\nple.com\r\n":          "**********\r\n*******\r\n", // at width 10
		"alice@exam \rple.com\r\n":           "********** \r*******\r\n",  // as readline wraps
		"short\r\nple.com\r\n":               "short\r\nple.com\r\n",
		"\x1b]0;" + mail + "\x07x":           "\x1b]0;" + stars + "\x07x",
		"\x1b]8;;mailto:" + mail + "\x1b\\x": "\x1b]8;;mailto:" + stars + "\x1b\\x",
		"password: hunter2\r\nnext":          "password: *******\r\nnext",
		"password: \r\nnext":                 "password: \r\nnext",
		"10%\r20%\r100%\r\n":                 "10%\r20%\r100%\r\n",
		"日本 " + mail + " 語\r\n":              "日本 " + stars + " 語\r\n",
		"a\tb\x1b[3Gc\x1b[Kd\x1b[1Kx\n":      "a\tb\x1b[3Gc\x1b[Kd\x1b[1Kx\n",
		"card 41\x1b[14b ok\r\n":             "card **\x1b[14b ok\r\n",
		"=\x1b[20b|\x1b[b\r\n":               "=\x1b[20b|\x1b[b\r\n",
		mail + "\x1b[H" + mail:               stars + "\x1b[H" + stars,
	} {
		width := 80
		if strings.Contains(in, "ple.com\r\n") {
			width = 10
		}
		if got := shown(s, width, in); got != want {
			t.Errorf("%q\n got %q\nwant %q", in, got, want)
		}
	}
	key := "-----BEGIN OPENSSH PRIVATE KEY-----\r\nb3BlbnNzaC1rZXkt\r\nAAAA\r\n-----END OPENSSH PRIVATE KEY-----\r\n$ "
	if got := shown(s, 80, key); strings.ContainsAny(strings.TrimSuffix(got, "$ "), "abAB") || !strings.HasSuffix(got, "\r\n$ ") || strings.Count(got, "\n") != 4 {
		t.Errorf("a key shows as %q", got)
	}
}

func TestTyped(t *testing.T) {
	st := New(set(t), 80)
	var out []byte
	for _, b := range []byte("ls alice") {
		st.Typed([]byte{b})
		if out = st.Append(out, []byte{b}); !bytes.HasSuffix(out, []byte{b}) {
			t.Fatalf("the echo of %q is held", b)
		}
	}
	out = st.Append(out, []byte("@example.com "))
	if got := string(out); got != "ls alice************ " {
		t.Errorf("%q", got)
	}
	st.Typed([]byte("x\r"))
	if out = st.Append(out[:0], []byte("x@y")); len(out) > 0 {
		t.Errorf("%q was waited for past the end of a line", out)
	}
}

func TestFlush(t *testing.T) {
	st := New(set(t), 80)
	if out := st.Flush(st.Append(nil, []byte("go on? y/n"))); string(out) != "go on? y/n" {
		t.Errorf("%q", out)
	}
	st, out := New(set(t), 80), []byte(nil)
	for _, b := range []byte("alice@example.com \r\n") {
		out = st.Flush(st.Append(out, []byte{b}))
	}
	if got := string(out); got != "a**************** \r\n" {
		t.Errorf("what drips shows as %q", got)
	}
}

var planted = []string{
	"alice.longname@mail.example.com", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "123-45-6789", "AKIAIOSFODNN7EXAMPLE",
	"ghp_abcdefghijklmnopqrstuvwxyz0123456789", "pst_abcdefghijklmnop0123456789",
}

var sequences = []string{"\x1b[0m", "\x1b[31;1m", "\x1b[?25l", "\x1b]0;title\x07", "\x1b(B", "\x1b[K", "\x07", "\x1b[38;5;10m"}

// disguise writes a value as a terminal may have it and shows the same.
func disguise(r *rand.Rand, value string, width, col int) string {
	var b strings.Builder
	for i := range len(value) {
		switch r.IntN(12) {
		case 0, 1, 2:
			b.WriteString(sequences[r.IntN(len(sequences))])
		case 3:
			b.WriteString("Z\b")
		case 4:
			if col > 0 && col%width != 0 {
				b.WriteString("\b\x1b[C")
			}
		case 5:
			if col > 0 && col%width == 0 {
				b.WriteString([]string{"\r\n", " \r"}[r.IntN(2)])
			}
		}
		b.WriteByte(value[i])
		col++
	}
	return b.String()
}

var escapes = regexp.MustCompile(`\x1b\[[0-9;?]*[@-~]|\x1b\][^\x07]*\x07|\x1b\(B|[\x07\x00]`)

var leading = regexp.MustCompile("^(?:" + escapes.String() + ")")

// screen shows text as a terminal does, in rows that are joined where they are full.
func screen(text string, width int) string {
	var out, row []byte
	col := 0
	place := func(b byte) {
		if col == width {
			out, row, col = append(out, row...), row[:0], 0
		}
		for len(row) <= col {
			row = append(row, ' ')
		}
		row[col] = b
		col++
	}
	for text != "" {
		if m := leading.FindStringIndex(text); m != nil {
			if text[:m[1]] == "\x1b[C" {
				col = min(col+1, width-1)
			}
			if text[:m[1]] == "\x1b[K" {
				row = row[:min(col, len(row))]
			}
			text = text[m[1]:]
			continue
		}
		switch b := text[0]; b {
		case '\r':
			col = 0
		case '\n':
			if len(row) < width {
				row = append(row, '\n')
			}
			out, row, col = append(out, row...), row[:0], 0
		case '\b':
			if col == width {
				col--
			}
			col = max(0, col-1)
		default:
			place(b)
		}
		text = text[1:]
	}
	return string(append(out, row...))
}

// TestChunkings plants values in all disguises, and looks for them in the bytes, in the
// bytes without sequences, and on a screen.
func TestChunkings(t *testing.T) {
	s := set(t)
	for seed := range uint64(10_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		width := []int{20, 40, 80}[r.IntN(3)]
		var text, in = "", []string(nil)
		for range 1 + r.IntN(5) {
			line := strings.Repeat("word ", r.IntN(6))
			value := planted[r.IntN(len(planted))]
			in = append(in, value)
			switch kind := r.IntN(3); {
			case kind == 0:
				text += line + disguise(r, value, width, len(line)) + " ok\r\n"
			case kind == 1 && len(value) < width:
				text += strings.Repeat("#", len(value)) + "\r" + disguise(r, value, width, 0) + " ok\r\n"
			default:
				text += line + value + "\r\n"
			}
		}
		st, rest, got := New(s, width), []byte(text), []byte(nil)
		most := []int{1, 2, 5, 17, 200}[r.IntN(5)]
		for len(rest) > 0 {
			n := min(len(rest), 1+r.IntN(most))
			chunk := bytes.Clone(rest[:n])
			got = st.Append(got, chunk)
			clear(chunk)
			rest = rest[n:]
		}
		got = st.Close(got)
		views := []string{string(got), escapes.ReplaceAllString(string(got), ""), screen(string(got), width)}
		for _, v := range in {
			for i, view := range views {
				if strings.Contains(view, v) {
					t.Fatalf("seed %d, width %d: %q shows in view %d\n of %q\nfrom %q", seed, width, v, i, got, text)
				}
			}
		}
		if len(got) != len(text) {
			t.Fatalf("seed %d: %d bytes became %d", seed, len(text), len(got))
		}
		if one := shown(s, width, text); most == 200 && strings.Count(one, "*") == 0 {
			t.Fatalf("seed %d: nothing was masked", seed)
		}
	}
}

func TestResize(t *testing.T) {
	st := New(set(t), 80)
	out := st.Append(nil, []byte("alice@ex"))
	st.Resize(10)
	if out = st.Close(st.Append(out, []byte("\r\nalice@exam\r\nple.com\r\n"))); string(out) != "alice@ex\r\n**********\r\n*******\r\n" {
		t.Errorf("%q", out)
	}
	for cut := 1; cut < len("alice@example.com"); cut++ { // in the midst of a value
		st := New(set(t), 80)
		out := st.Append(nil, []byte("alice@example.com "[:cut]))
		st.Resize(40)
		if out = st.Close(st.Append(out, []byte("alice@example.com "[cut:]))); string(out) != strings.Repeat("*", 17)+" " {
			t.Errorf("cut at %d: %q", cut, out)
		}
	}
}

func TestHeldIsBounded(t *testing.T) {
	for _, text := range []string{"a", "1 ", "a@", "\x1b[9999C", "\x1b[99@", "a\b", "\x1b]0;", "a\x1b[D\x1b[99@", "\x1b[1;", "a\x1b[99b"} {
		st, most, lines := New(set(t), 80), 0, 0
		chunk := []byte(strings.Repeat(text, 100))
		for range 300 {
			st.Append(nil, chunk)
			most, lines = max(most, st.Held()), max(lines, len(st.line))
		}
		if most > 2*maxLine+len(chunk)*4 || lines > 4*maxLine {
			t.Errorf("%q: %d bytes were held, a line of %d", text, most, lines)
		}
	}
}

func FuzzTerminal(f *testing.F) {
	for i, v := range planted {
		f.Add([]byte(v+"\r\n"), uint8(i), uint64(i))
	}
	f.Add([]byte("a\x1b[3Db\x1b[2@c\x1b[P\x1b[2K\t\x1b]0;x\x07\x1b[H日\b"), uint8(9), uint64(1))
	s := set(f)
	f.Fuzz(func(t *testing.T, text []byte, width uint8, seed uint64) {
		st, r, rest, got := New(s, int(width)), rand.New(rand.NewPCG(seed, 1)), text, []byte(nil)
		for len(rest) > 0 {
			n := min(len(rest), 1+r.IntN(9))
			st.Typed(rest[:r.IntN(n)])
			got = st.Append(got, rest[:n])
			if rest = rest[n:]; r.IntN(4) == 0 {
				got = st.Flush(got)
			}
			if r.IntN(9) == 0 {
				st.Resize(r.IntN(100))
			}
		}
		if got = st.Close(got); len(got) != len(text) || st.Held() != 0 {
			t.Fatalf("%d bytes became %d, %d held", len(text), len(got), st.Held())
		}
		for i, b := range got {
			if b != text[i] && b != '*' && b != 0 && !bytes.Contains(text, []byte{b}) {
				t.Fatalf("%q became %q", text, got)
			}
		}
	})
}

func BenchmarkLogs(b *testing.B) {
	st := New(set(b), 120)
	chunk := []byte(strings.Repeat("Nov 25 20:45:01 \x1b[32mweb-1\x1b[0m nginx[1234]: upstream timed out while reading from 10.0.0.7\r\n", 350))
	dst := make([]byte, 0, 2*len(chunk))
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		dst = st.Append(dst[:0], chunk)
	}
}

func ExampleStream() {
	set, err := detect.Compile([]postern.DetectRule{{Kind: "email", Mask: &postern.MaskRule{Method: postern.MaskRedact}}})
	if err != nil {
		panic(err)
	}
	st := New(set, 80)
	for _, chunk := range []string{"mail ali\x1b[", "1mce@exam", "ple.com\x1b[0m now\r\n"} {
		fmt.Printf("%q\n", st.Append(nil, []byte(chunk)))
	}
	// Output:
	// "mail "
	// ""
	// "***\x1b[1m**************\x1b[0m now\r\n"
}
