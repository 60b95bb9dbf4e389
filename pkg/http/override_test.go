package http

import (
	"math/rand/v2"
	"strings"
	"testing"
)

const (
	formType, partsType, jsonType = "application/x-www-form-urlencoded", "multipart/form-data", "application/json"

	part = "--b\r\nContent-Disposition: form-data; "
)

// overriding are bodies with a field that names another method; plain ones are without.
var overriding = []struct{ kind, body string }{
	{formType, "a=1&_method=DELETE"}, {formType, "_method=put"}, {formType, "a;_METHOD=x"}, {formType, "a&b=%5Fm%65thod&%5Fm%65thod="}, {formType, "a=1&" + strings.Repeat("+%20", 200) + "_method=DELETE"},
	{formType, ".method=DELETE"}, {formType, "_method[]=DELETE"}, {formType, "X-HTTP-Method-Override=DELETE"}, {"", "_method=DELETE"},
	{partsType, part + "name=\"_method\"\r\n\r\nDELETE\r\n--b--"}, {partsType, part + "name=\"a\"\r\n\r\n1\n\r\n" + part + "name=_method\r\n\r\nDELETE\r\n--b--"},
	{partsType, "--b\r\nContent-Type: text/plain\r\ncONTENT-dISPOSITION:form-data;\r\n name='_method'\n\nDELETE\r\n--b--"}, {partsType, part + "filename=\"name=a\"; name=\"_m\\ethod\"\r\n\r\n"},
	{partsType, part + "name*=utf-8''%5Fmethod\r\n\r\nDELETE"}, {partsType, part + "name=\"" + strings.Repeat("a", maxPart) + "\"; name=\"_method\"\r\n\r\n"}, {"multipart/mixed", part + "name=\"_method\"\r\n\r\n"},
	{jsonType, `{"a":"\"","_method":"DELETE"}`}, {jsonType, "{\"\\u005fm\\u0065thod\" \n: \"DELETE\"}"}, {"application/vnd.api+json", `{"_Method":1}`},
}

var plainly = []struct{ kind, body string }{
	{formType, "a=_method=DELETE&b=&c&_methods=1&my_method=x&method=DELETE&_method"}, {formType, strings.Repeat("_method", 40) + "=1"}, {"text/plain", "_method=DELETE"}, {"application/octet-stream", "_method=DELETE"},
	{partsType, part + "name=\"file\"; filename=\"_method\"\r\n\r\n<input name=\"_method\" value=\"delete\">\r\n def _method=\r\n--b--"}, {partsType, part + "name=\"_methods\"\r\n\r\nx"},
	{jsonType, `{"a":"_method","b":["_method",{"my_method":1,"_method2":"\u00e9"}],"c":"x\\","d":"\":_method"}`}, {jsonType, `["\u5f5f","\\_method","_method"]`},
}

func TestOverridesInBodies(t *testing.T) {
	find := func(kind, body string, size int) string {
		o, found := NewOverrides(kind, false), ""
		for found == "" && body != "" {
			n := min(size, len(body))
			found, body = o.Find([]byte(body[:n])), body[n:]
		}
		return found
	}
	for kind, want := range map[string]bool{formType: true, partsType: true, "": true, jsonType: false, "text/plain": false} {
		if found := NewOverrides(kind, true).Find([]byte("\x1f\x8b")) != ""; found != want {
			t.Errorf("of a packed body of type %q something is found: %v", kind, found)
		}
	}
	for _, size := range []int{1, 3, 1 << 20} {
		for _, c := range overriding {
			if find(c.kind, c.body, size) == "" {
				t.Errorf("%s, %d bytes at once: nothing is found in %.200q", c.kind, size, c.body)
			}
		}
		for _, c := range plainly {
			if found := find(c.kind, c.body, size); found != "" {
				t.Errorf("%s, %d bytes at once: %q is found in %q", c.kind, size, found, c.body)
			}
		}
	}
}

// FuzzOverrides makes sure that what is found does not rest on how a body is cut.
func FuzzOverrides(f *testing.F) {
	for seed, c := range append(overriding, plainly...) {
		f.Add(c.kind, []byte(c.body), uint64(seed)) //nolint:gosec // small
	}
	f.Fuzz(func(t *testing.T, kind string, body []byte, seed uint64) {
		want := NewOverrides(kind, false).Find(body)
		r, o, got, rest := rand.New(rand.NewPCG(seed, 1)), NewOverrides(kind, false), "", body
		for got == "" && len(rest) > 0 {
			n := min(len(rest), 1+r.IntN(9))
			got, rest = o.Find(rest[:n]), rest[n:]
		}
		if got != want {
			t.Fatalf("in pieces %q is found, and as a whole %q, in %q", got, want, body)
		}
	})
}
