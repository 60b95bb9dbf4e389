package content

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"compress/flate"
	"compress/zlib"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/posterngate/postern/pkg/postern"
)

var (
	stars = &postern.MaskRule{Name: "stars", Method: postern.MaskRedact, Value: "***"}
	null  = &postern.MaskRule{Name: "null", Method: postern.MaskNull}
	last4 = &postern.MaskRule{Name: "last4", Method: postern.MaskPartial, KeepLast: 4}
	looks = []postern.DetectRule{{Kind: "email", Mask: stars}, {Kind: "card", Mask: last4}, {Kind: "secrets", Mask: stars}}
)

func rule(t testing.TB, kinds []postern.DetectRule, fields ...postern.FieldRule) *Rule {
	t.Helper()
	r, err := Compile(&postern.ContentRule{Fields: fields, Detect: kinds})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func at(path string, m *postern.MaskRule) postern.FieldRule {
	return postern.FieldRule{Path: path, Mask: m}
}

// whole masks a body that comes as one.
func whole(r *Rule, contentType, body string) (string, error) {
	m, err := r.Masker(contentType)
	if err != nil {
		return "", err
	}
	out, err := m.Append(nil, []byte(body))
	if err == nil {
		out, err = m.Close(out)
	}
	return string(out), err
}

// reader masks a body by a rule as it is read.
func reader(r *Rule, body io.ReadCloser, contentType, contentEncoding string) (*Reader, error) {
	m, err := r.Masker(contentType)
	if err != nil {
		return nil, err
	}
	return NewReader(body, m, contentEncoding)
}

const jsonType = "application/json; charset=utf-8"

func TestPaths(t *testing.T) {
	r := rule(t, nil, at("/customer/email", stars), at("/lines/*/card", last4), at("/lines/0/note", null), at("/a~1b/~0", null), at("secret", stars), at("/whole", last4), at("/n", last4))
	for in, want := range map[string]string{
		`{"customer":{"email":"alice@example.com","id": 1.50e3}}`:                  `{"customer":{"email":"***","id": 1.50e3}}`,
		`{"Customer":{"EMAIL":"alice"}, "customer":{"ema\u0069l":"alice"}}`:        `{"Customer":{"EMAIL":"***"}, "customer":{"email":"***"}}`,
		`{"customer": {"email": null}}`:                                            `{"customer": {"email": "***"}}`,
		`{"customer": {"email": {"a": [1, {"email": 2}]}}, "x": 1}`:                `{"customer": {"email": "***"}, "x": 1}`,
		`{"customer": [{"email": "a"}]}`:                                           `{"customer": [{"email": "a"}]}`,
		`{"lines": [{"card": "4111111111111111"}, {"card": 4111111111111111}, 3]}`: `{"lines": [{"card": "************1111"}, {"card": "************1111"}, 3]}`,
		`{"lines": [{"note": "a", "card": null}, {"note": "b", "card": ["x"]}]}`:   `{"lines": [{"note": null, "card": null}, {"note": "b", "card": "[hidden]"}]}`,
		`{"a/b": {"~": 1, "x": true}}`:                                             `{"a/b": {"~": null, "x": true}}`,
		`[[{"secret": "x", "Secret": ["y"]}], {"ſecret": "z"}]`:                    `[[{"secret": "***", "Secret": "***"}], {"ſecret": "***"}]`,
		`{"whole": [1, [2], {"a": "b"}], "n": -12345.25, "b": true}`:               `{"whole": "[hidden]", "n": "*****5.25", "b": true}`,
		"{\"a\": \"\\ud83d\\ude00 \\n\\\"é日\", \"u\":\"\\u00e9\"}\n":               "{\"a\": \"\\ud83d\\ude00 \\n\\\"é日\", \"u\":\"\\u00e9\"}\n",
		` true `: ` true `,
		`0`:      `0`,
		`{}`:     `{}`,
		`[ ]`:    `[ ]`,
	} {
		if got, err := whole(r, jsonType, in); err != nil || got != want {
			t.Errorf("%s\n got %s, %v\nwant %s", in, got, err, want)
		}
	}
}

func TestDetected(t *testing.T) {
	r := rule(t, looks)
	for in, want := range map[string]string{
		`{"text":"mail \u0061lice@example.com \"now\""}`:       `{"text":"mail *** \"now\""}`,
		`["a","4111 1111 1111 1111",4111111111111111,12]`:      `["a","***************1111","************1111",12]`,
		`{"bob@example.com": {"password": "x", "token": [1]}}`: `{"***": {"password": "***", "token": "***"}}`,
		`["AKIAIOSFODNN7EXAMPLE\u0000\u2028<é>"]`:              `["***` + "\\u0000\u2028" + `<é>"]`,
	} {
		if got, err := whole(r, jsonType, in); err != nil || got != want {
			t.Errorf("%s\n got %s, %v\nwant %s", in, got, err, want)
		}
	}
	if got, err := whole(r, "application/x-ndjson", "{\"a\":\"bob@example.com\"}\n\n1\n[\"x\"]"); err != nil || got != "{\"a\":\"***\"}\n\n1\n[\"x\"]" {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := whole(r, "text/plain", "mail bob@example.com"); err != nil || got != "mail ***" {
		t.Errorf("%s, %v", got, err)
	}
	// The mask is of the field, whatever could be detected in it.
	both := rule(t, looks, at("/m", null))
	m, err := both.Masker(jsonType)
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.Append(nil, []byte(`{"m":"bob@example.com","n":"bob@example.com"}`))
	if err != nil || string(out) != `{"m":null,"n":"***"}` {
		t.Errorf("%s, %v", out, err)
	}
}

func TestTables(t *testing.T) {
	r := rule(t, looks, at("E-Mail", stars), at("card", last4))
	for in, want := range map[string]string{
		"id,e-mail,card\r\n1,alice,4111111111111111\r\n2,,\r\n":       "id,e-mail,card\r\n1,***,************1111\r\n2,***,\r\n",
		"id,\"E-MAIL\",note\n1,\"a \"\"b\"\"\n,c\",bob@example.com\n": "id,\"E-MAIL\",note\n1,\"***\",***\n",
		"a,password\nx,y": "a,password\nx,***",
		"a\n\nb\n":        "a\n\nb\n",
	} {
		if got, err := whole(r, "text/csv", in); err != nil || got != want {
			t.Errorf("%q\n got %q, %v\nwant %q", in, got, err, want)
		}
	}
	for _, in := range []string{"a,b\n1,2,3\n", "a\n\"b", "a\n\"b\"c\n", "a\nb\"c\n", "a\nb\rc", "a,A\n", "a\n" + strings.Repeat("x", MaxField+1), "a\nx\r"} {
		if got, err := whole(r, "text/csv", in); !errors.Is(err, ErrForm) && !errors.Is(err, ErrLimit) {
			t.Errorf("%.20q passed as %.20q, %v", in, got, err)
		}
	}
	for _, in := range []string{"id;e-mail;card\n1;alice;4\n", "id|e-mail\n", "id\te-mail\n", "sep=;\nid;e-mail\n", "\ufeffSEP=,\nid,e-mail\n", "i\x00d\x00,\x00e\x00\n"} {
		if got, err := whole(r, "text/csv", in); !errors.Is(err, ErrForm) {
			t.Errorf("%q passed as %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"id,\"a;b\"\n1,2\n", "id\n1;2\n"} {
		if got, err := whole(r, "text/csv", in); err != nil || got != in {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if got, err := whole(rule(t, looks), "text/csv", "id;mail\n1;bob@example.com\n"); err != nil || got != "id;mail\n1;***\n" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := whole(r, "text/tab-separated-values", "card\tx\n4111111111111111\ta,b"); err != nil || got != "card\tx\n************1111\ta,b" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestForms(t *testing.T) {
	r := rule(t, looks, at("email", stars), at("card", last4))
	for in, want := range map[string]string{
		"a=1&EMail=x&c=%41+b&card=4111111111111111": "a=1&EMail=***&c=%41+b&card=************1111",
		"q=to+bob%40example.com+x&f&=":              "q=to+***+x&f&=",
		"p%61ssword=abc&x=y":                        "p%61ssword=***&x=y",
	} {
		if got, err := whole(r, "application/x-www-form-urlencoded", in); err != nil || got != want {
			t.Errorf("%q\n got %q, %v\nwant %q", in, got, err, want)
		}
	}
	for _, in := range []string{"a=%4", "a=%zz", "a=1;b=2", "a=\n", strings.Repeat("x", MaxField+1)} {
		if got, err := whole(r, "application/x-www-form-urlencoded", in); !errors.Is(err, ErrForm) && !errors.Is(err, ErrLimit) {
			t.Errorf("%.20q passed as %.20q, %v", in, got, err)
		}
	}
}

// A line is what an element of an array would be, and a value by itself.
func TestLines(t *testing.T) {
	r := rule(t, nil, at("/*/email", stars), at("/1/note", stars), at("/id", null))
	const in, want = `{"email":"a","note":"b","id":1}` + "\n\n" + `{"x":{"email":"c"},"note":"d"}` + "\n" + `[{"email":"e"},"f"]`,
		`{"email":"***","note":"b","id":null}` + "\n\n" + `{"x":{"email":"***"},"note":"***"}` + "\n" + `[{"email":"***"},"f"]`
	if got, err := whole(r, "application/x-ndjson", in); err != nil || got != want {
		t.Errorf(" got %s, %v\nwant %s", got, err, want)
	}
}

// One value by itself and a list of it have the same paths.
func TestOneOrMany(t *testing.T) {
	r := rule(t, nil, at("/*/email", stars), at("/0/note", stars), at("/id", null))
	for in, want := range map[string]string{
		`{"email":"a","note":"b","id":1}`:                `{"email":"***","note":"***","id":null}`,
		`[{"email":"a","note":"b","id":1},{"note":"c"}]`: `[{"email":"***","note":"***","id":null},{"note":"c"}]`,
		`{"list":[{"email":"a","id":1}]}`:                `{"list":[{"email":"a","id":1}]}`,
		`[["a"],{"x":{"id":1}},"b"]`:                     `[["a"],{"x":{"id":1}},"b"]`,
	} {
		if got, err := whole(r, jsonType, in); err != nil || got != want {
			t.Errorf("%s\n got %s, %v\nwant %s", in, got, err, want)
		}
	}
}

// What two readers could understand in two ways is refused.
func TestStrictJSON(t *testing.T) {
	r := rule(t, nil, at("/a", stars))
	for _, in := range []string{
		``, ` `, `{`, `[`, `"`, `"a`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,}`, `[1,]`, `[1 2]`, `{"a" 1}`, `{a:1}`, `{'a':1}`, `[1}`, `{"a":1]`, `1 2`, `{}{}`, `{}x`, `,`, `]`,
		`{"a":1,"a":2}`, `{"b":1,"\u0062":2}`, `{"x":{"a":1,"b":2,"a":3}}`, `01`, `+1`, `1.`, `.5`, `-`, `1e`, `1e+`, `0x1`, `NaN`, `Infinity`, `tru`, `nulll`, `True`,
		`"\x41"`, `"\u12g4"`, `"\ud800"`, `"\ud800x"`, `"\ud800\n"`, `"\udc00"`, `"\ud800\ud800"`, "\"\n\"", "\"\x01\"", "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xe6\x97\"", "\xef\xbb\xbf{}",
		"{\"a\":1}\n{\"a\":2}", "// x\n1", "/**/1", strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1), `{"` + strings.Repeat("x", MaxName+1) + `":1}`, strings.Repeat("1", MaxNumber+1),
	} {
		got, err := whole(r, jsonType, in)
		if !errors.Is(err, ErrForm) && !errors.Is(err, ErrLimit) {
			t.Errorf("%.40q passed as %.40q, %v", in, got, err)
		}
		if valid := json.Valid([]byte(in)); valid && errors.Is(err, ErrForm) && !strings.Contains(in, `\u0062`) && strings.Count(in, `"a"`) < 2 && !strings.Contains(in, `\u`) && !strings.Contains(in, `\ud`) && strings.ToValidUTF8(in, "") == in {
			t.Errorf("%.40q is JSON: %v", in, err)
		}
	}
	var many strings.Builder
	for i := range MaxMembers + 1 {
		fmt.Fprintf(&many, `%q:1,`, fmt.Sprint(i))
	}
	if _, err := whole(r, jsonType, "{"+many.String()+`"x":1}`); !errors.Is(err, ErrLimit) {
		t.Error(err)
	}
	if _, err := whole(r, "application/x-ndjson", "{\n}"); !errors.Is(err, ErrForm) {
		t.Error(err)
	}
	if got, err := whole(r, jsonType, `{"a":"`+strings.Repeat("x", 2*MaxField)+`"}`); err != nil || got != `{"a":"***"}` {
		t.Errorf("%.40q, %v", got, err)
	}
	if got, err := whole(rule(t, nil, at("/a", last4)), jsonType, `{"a":"`+strings.Repeat("x", 2*MaxField)+`"}`); err != nil || got != `{"a":"[hidden]"}` {
		t.Errorf("%.40q, %v", got, err)
	}
}

func TestTypes(t *testing.T) {
	fields, kinds := rule(t, nil, at("/a", stars)), rule(t, looks)
	for _, c := range []struct {
		contentType    string
		fields, detect bool
	}{
		{"application/json", true, true}, {"application/problem+json; charset=UTF-8", true, true}, {"application/x-ndjson", true, true}, {"text/csv", false, true}, {"text/tab-separated-values", false, true}, {"application/x-www-form-urlencoded", false, true},
		{"text/csv; header=absent", false, true}, {"text/plain", false, true}, {"text/html; charset=utf-8", false, true}, {"application/xml", false, true},
		{"text/html; charset=utf-16", false, false}, {"application/json; charset=utf-7", false, false}, {"image/png", false, false}, {"application/octet-stream", false, false},
		{"multipart/mixed; boundary=x", false, false}, {"", false, false}, {"application/json;;", false, false}, {"x", false, false},
	} {
		_, err1 := fields.Masker(c.contentType)
		_, err2 := kinds.Masker(c.contentType)
		if (err1 == nil) != c.fields || (err2 == nil) != c.detect || err1 != nil && !errors.Is(err1, ErrType) {
			t.Errorf("%q: fields %v, kinds %v", c.contentType, err1, err2)
		}
	}
	if _, err := rule(t, nil, at("a", stars)).Masker("text/csv"); err != nil {
		t.Errorf("a name is one of a column, too: %v", err)
	}
	for _, path := range []string{"", "/", "*", "/a~2", "/a~", "/\xff", strings.Repeat("/a", MaxDepth+1)} {
		if CheckPath(path) == nil {
			t.Errorf("path %q", path)
		}
	}
	if _, err := Compile(&postern.ContentRule{Fields: []postern.FieldRule{{Path: "/a"}}}); err == nil {
		t.Error("a field without a mask")
	}
	if r, err := Compile(nil); err != nil || !r.Empty() || kinds.Empty() || fields.Empty() {
		t.Error("emptiness")
	}
}

var packers = map[string]func(w io.Writer) io.WriteCloser{
	"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"br":      func(w io.Writer) io.WriteCloser { return brotli.NewWriterLevel(w, 1) },
	"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
	"deflate-raw": func(w io.Writer) io.WriteCloser {
		f, err := flate.NewWriter(w, 1)
		if err != nil {
			panic(err)
		}
		return f
	},
	"zstd": func(w io.Writer) io.WriteCloser {
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(64<<10))
		if err != nil {
			panic(err)
		}
		return z
	},
}

func pack(t testing.TB, encoding string, body []byte) []byte {
	t.Helper()
	if packers[encoding] == nil {
		return body
	}
	var b bytes.Buffer
	w := packers[encoding](&b)
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pieces reads a body in random pieces.
type pieces struct {
	r    *rand.Rand
	body []byte
	most int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.body) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.body[:min(len(p.body), 1+p.r.IntN(p.most))])
	p.body = p.body[n:]
	return n, nil
}

const (
	plantedMail  = "alice.longname@mail.example.com"
	plantedField = "Elm Street 7, 10115 Berlin"
	plantedToken = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
)

// escaped writes a JSON string with random escapes.
func escaped(r *rand.Rand, s string) string {
	var b strings.Builder
	for _, c := range s {
		if r.IntN(6) == 0 {
			fmt.Fprintf(&b, `\u%04X`, c)
		} else {
			b.WriteRune(c)
		}
	}
	return `"` + b.String() + `"`
}

func jsonBody(r *rand.Rand) string {
	var lines []string
	for range 1 + r.IntN(4) {
		lines = append(lines, fmt.Sprintf(`{%s: %s, "id": %d, "note": %s, "t": [{"x": "é", "y": %s}]}`,
			escaped(r, []string{"address", "Address"}[r.IntN(2)]), escaped(r, plantedField), r.IntN(1000), escaped(r, "to "+plantedMail+" soon"), escaped(r, plantedToken)))
	}
	return `{"orders": [` + strings.Join(lines, ",\n ") + `]}`
}

func csvBody(r *rand.Rand) string {
	out := "id,address,note,token\n"
	for range 1 + r.IntN(5) {
		out += fmt.Sprintf("%d,\"%s\",to %s soon,\"%s\"\r\n", r.IntN(1000), plantedField, plantedMail, plantedToken)
	}
	return out
}

func formBody(r *rand.Rand) string {
	var b strings.Builder
	for _, c := range []byte("id=1&address=" + plantedField + "&note=" + plantedMail + "&t=" + plantedToken) {
		if c != '&' && c != '=' && (r.IntN(6) == 0 || c == ' ' || c == ',') {
			fmt.Fprintf(&b, "%%%02x", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func TestChunkings(t *testing.T) {
	kinds := []postern.DetectRule{{Kind: "email", Mask: stars}, {Kind: "secrets", Mask: stars}}
	r := rule(t, kinds, at("/orders/*/address", stars), at("address", stars))
	names, text := rule(t, kinds, at("address", stars)), rule(t, kinds)
	encodings := []string{"", "identity", "gzip", "br", "deflate", "deflate-raw", "zstd"}
	for seed := range uint64(10_000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		use, contentType, body := r, jsonType, jsonBody(rnd)
		switch rnd.IntN(5) {
		case 0:
			use, contentType, body = names, "text/csv", csvBody(rnd)
		case 1:
			use, contentType, body = names, "application/x-www-form-urlencoded", formBody(rnd)
		case 2:
			use, contentType, body = text, "text/html", "<p>"+plantedMail+"</p> "+plantedToken+"\n"
		}
		encoding := encodings[0]
		if seed%4 == 0 { // packing takes far longer than all else
			encoding = encodings[rnd.IntN(len(encodings))]
		}
		packed := pack(t, encoding, []byte(body))
		rd, err := reader(use, io.NopCloser(&pieces{rnd, packed, []int{1, 3, 20, 500}[rnd.IntN(4)]}), contentType, strings.TrimSuffix(encoding, "-raw"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rd)
		if err != nil {
			t.Fatalf("seed %d, %s, %s: %v\n%s", seed, contentType, encoding, err, body)
		}
		for _, v := range []string{plantedMail, plantedField, plantedToken} {
			if bytes.Contains(got, []byte(v)) {
				t.Fatalf("seed %d, %s: %q shows in %s", seed, contentType, v, got)
			}
		}
		if want, err := whole(use, contentType, body); err != nil || want != string(got) {
			t.Fatalf("seed %d, %s: in pieces %s\nas a whole %s, %v", seed, contentType, got, want, err)
		}
		if err := rd.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBombs(t *testing.T) {
	blanks := bytes.Repeat([]byte(" "), 8<<20)
	for encoding := range packers {
		packed := pack(t, encoding, blanks)
		rd, err := reader(rule(t, looks), io.NopCloser(bytes.NewReader(packed)), "text/plain", strings.TrimSuffix(encoding, "-raw"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, rd)
		if !errors.Is(err, ErrBomb) || n > 2*MaxFree+int64(len(packed))*MaxRatio {
			t.Errorf("%s: %d bytes of %d, %v", encoding, n, len(packed), err)
		}
		rd, err = reader(rule(t, looks), io.NopCloser(bytes.NewReader(packed[:len(packed)/2])), "text/plain", strings.TrimSuffix(encoding, "-raw"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, rd); err == nil {
			t.Errorf("%s: half of it passed", encoding)
		}
	}
	if _, err := reader(rule(t, looks), io.NopCloser(strings.NewReader("x")), "text/plain", "gzip, br"); !errors.Is(err, ErrType) {
		t.Errorf("two encodings: %v", err)
	}
	for _, encoding := range []string{"gzip", "br", "zstd", "deflate"} {
		rd, err := reader(rule(t, looks), io.NopCloser(strings.NewReader("this is not packed at all")), "text/plain", encoding)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := io.ReadAll(rd); err == nil {
			t.Errorf("%s: %q passed", encoding, out)
		}
	}
}

func benchmark(b *testing.B, r *Rule, contentType, unit string) {
	m, err := r.Masker(contentType)
	if err != nil {
		b.Fatal(err)
	}
	body := []byte(strings.Repeat(unit, 1<<20/len(unit)))
	dst := make([]byte, 0, 4<<20)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		dst = dst[:0]
		for rest := body; len(rest) > 0; rest = rest[min(len(rest), 32<<10):] {
			if dst, err = m.Append(dst, rest[:min(len(rest), 32<<10)]); err != nil {
				b.Fatal(err)
			}
		}
	}
}

const row = `{"id": 17, "customer": {"name": "Alice Example", "email": "alice@example.com"}, "total": 129.50, "note": "please ring twice, thank you", "lines": [1, 2, 3]}` + "\n"

func BenchmarkJSONPath(b *testing.B) {
	benchmark(b, rule(b, nil, at("/customer/email", stars)), "application/x-ndjson", row)
}

func BenchmarkJSONDetect(b *testing.B) {
	benchmark(b, rule(b, looks), "application/x-ndjson", row)
}

func BenchmarkCSV(b *testing.B) {
	benchmark(b, rule(b, nil, at("email", stars)), "text/csv", "id,email\n17,alice@example.com\n"[9:]+"18,please ring twice\n")
}

func TestText(t *testing.T) {
	r := rule(t, looks, at("X-Customer", last4), at("/x-other", stars))
	for _, c := range []struct{ name, text, want string }{
		{"x-customer", "customer 1234", "*********1234"}, {"X-Other", "customer 1234", "customer 1234"}, {"Location", "/of/alice@example.com", "/of/***"},
		{"X-Password", "x", "***"}, {"", "", ""},
	} {
		if got := r.Text(c.name, c.text); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := rule(t, nil, at("a", stars)).Text("b", "alice@example.com"); got != "alice@example.com" {
		t.Errorf("without anything to detect: %q", got)
	}
}
