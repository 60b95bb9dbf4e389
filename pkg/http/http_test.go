package http

import (
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/postern"
)

func TestTarget(t *testing.T) {
	for raw, want := range map[string]string{
		"/":                                 "/",
		"/api/orders/42":                    "/api/orders/42",
		"/api/orders/":                      "/api/orders/",
		"/a%20b/%C3%A9?x=1&y":               "/a%20b/%C3%A9?x=1&y",
		"/%61pi/orders":                     "/api/orders",
		"/a?b=c+d&e=%2B&f=%26%3D":           "/a?b=c%20d&e=%2B&f=%26%3D",
		"/a?x=1&&y=2&":                      "/a?x=1&y=2",
		"/a.b/..c/c../v1.0~x":               "/a.b/..c/c../v1.0~x",
		"/orders('42')?$filter=id%20eq%204": "/orders('42')?$filter=id%20eq%204",
		"/@a%2fb/%2F/c%2F":                  "/@a%2Fb/%2F/c%2F",
	} {
		got, err := ParseTarget(raw)
		if err != nil || got.String() != want {
			t.Errorf("%s: %q %v, want %s", raw, got.String(), err, want)
		}
	}
	for _, raw := range []string{
		"", "api", "*", "//", "//host/a", "/a//b", "/a/./b", "/a/../b", "/..", "/a/..", "/a/%2e%2e/b", "/a/%2e./b", "/a/...", "/a/.%20./b",
		"/a/%252e%252e/b", "/a/..;/b", "/a;x=1/b", "/a%3bb", "/a%252fb", "/a%25%2fb", "/a%%2fb", "/a%2%2fb", "/a%2f..%2fb", "/a%2F%2e%2e", "/a/..%2fb", "/a/.%2fb", "/%2f..", "/a%5cb", `/a\b`, "/a%00.json", "/a%0d%0ab", "/a%7f", "/a%", "/a%4", "/a%zz",
		"/a/%E2%80%A5/admin", "/a/%EF%BC%8F..", "/%ff", "/a%E2%80%8Bb", "/a#b", "/a b", "/a?b;c", "/a?x=%00", "/a?x=%ff", "/é",
		"/a?" + strings.Repeat("a&", 300), "/" + strings.Repeat("a", MaxTarget),
	} {
		if got, err := ParseTarget(raw); err == nil {
			t.Errorf("%q is read as %q", raw, got.String())
		}
	}
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/", "/a/b?c=d&e", "/%C3%A9?x=+", "/a/%2e%2e", "//", "/a;b", "/a%25", "/a%2fb/%2F/c%2f..", "/a%2%2f", "/?%00", "/?" + strings.Repeat("|", MaxTarget/2)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := ParseTarget(raw)
		if err != nil {
			return
		}
		canonical := got.String()
		again, err := ParseTarget(canonical)
		if err != nil || again.String() != canonical || again.Path != got.Path || len(again.Query) != len(got.Query) {
			t.Fatalf("%q became %q, which is read as %q: %v", raw, canonical, again.String(), err)
		}
		slashed := strings.ReplaceAll(got.Path, Slash, "/")
		if strings.ContainsAny(slashed, "%\\;\x00") || strings.Contains(got.Path, "//") || strings.Contains(slashed+"/", "/../") {
			t.Fatalf("%q has the path %q", raw, got.Path)
		}
	})
}

func TestBody(t *testing.T) {
	b, err := ParseBody("application/json", []byte(`{"a": {"B": [1, 2.5, "x", null, true, -9223372036854775808]}, "\u00e9": ""}`))
	if err != nil {
		t.Fatal(err)
	}
	list := b.Value.(map[string]any)["a"].(map[string]any)["B"].([]any)
	if list[0] != int64(1) || list[1] != 2.5 || list[2] != "x" || list[3] != nil || list[4] != true || !b.Names["é"] || !b.Names["B"] {
		t.Errorf("%#v %v", b.Value, b.Names)
	}
	for _, bad := range []string{
		``, `{`, `{}{}`, `{} x`, `{"a":1,"a":2}`, `{"name":1,"NAME":2}`, `{"k":1,"` + "\u212a" + `":2}`, `{"a":{"b":1,"B":1}}`, "{\"a\":\"\xff\"}",
		`{"a":"\ud800"}`, `{"a":1e999}`, `9223372036854775808`, `[1,]`, "\xef\xbb\xbf{}", `{"a":01}`, `{'a':1}`,
		strings.Repeat("[", 100) + strings.Repeat("]", 100), `"` + strings.Repeat("a", MaxBody) + `"`,
	} {
		if got, err := ParseBody("application/json", []byte(bad)); err == nil {
			t.Errorf("%.60q is read as %#v", bad, got.Value)
		}
	}
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"} {
		if _, err := ParseBody(kind, []byte(`{}`)); err == nil {
			t.Errorf("%q passes for JSON", kind)
		}
	}
	if _, err := ParseBody("application/merge-patch+json", []byte(`{}`)); err != nil {
		t.Error(err)
	}
}

func FuzzBody(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":[1,{"b":null}]}`, `{"a":1,"A":2}`, `"\ud800"`, `[[[[`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := ParseBody("application/json", b); err == nil && got == nil {
			t.Fatal("nothing and no error")
		}
	})
}

func TestEffect(t *testing.T) {
	for _, c := range []struct {
		facts *Facts
		want  postern.Effect
	}{
		{nil, postern.EffectUnknown}, {&Facts{}, postern.EffectControl}, {&Facts{Method: "GET"}, postern.EffectRead},
		{&Facts{Method: "GET", Unknown: "x"}, postern.EffectUnknown}, {&Facts{Method: "get"}, postern.EffectControl},
		{&Facts{Method: "DELETE"}, postern.EffectWrite}, {&Facts{Method: "PROPFIND"}, postern.EffectControl},
		{&Facts{Method: "GET", Upgrade: "websocket"}, postern.EffectControl},
	} {
		if got := c.facts.Effect(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.facts, got, c.want)
		}
	}
}

func TestValues(t *testing.T) {
	f := &Facts{Query: []Pair{{Name: "a", Value: "1"}, {Name: "b"}}}
	if v, ok := f.Values(); !ok || v["a"] != "1" || !f.Once("a") {
		t.Errorf("%v %t", v, ok)
	}
	f.Query = append(f.Query, Pair{Name: "A", Value: "2"})
	if _, ok := f.Values(); ok || f.Once("a") {
		t.Error("a name stands twice")
	}
	for _, same := range []string{"user.id", "user id", "User_Id", " user_id", "user_id[]", "user[id"} { // to PHP
		f.Query = []Pair{{Name: "user_id", Value: "1"}, {Name: same, Value: "2"}}
		if _, ok := f.Values(); ok || f.Once("user_id") {
			t.Errorf("%q stands beside user_id", same)
		}
	}
}

// TestMembers: parameters that are members of one are each its own.
func TestMembers(t *testing.T) {
	f := &Facts{Query: []Pair{{Name: "page[size]"}, {Name: "page[number]"}, {Name: "page.size"}}}
	if _, ok := f.Values(); !ok || !f.Once("page[size]") {
		t.Error("members pass for each other")
	}
}

// TestOverrides: no parameter has a server take the method for another.
func TestOverrides(t *testing.T) {
	for _, query := range []string{"_method=DELETE", "a=1&_METHOD=put", "%5Fmethod=DELETE", ".method=DELETE", "_method[]=DELETE", "x-http-method-override=DELETE"} {
		if got, err := ParseTarget("/a?" + query); err == nil {
			t.Errorf("%s is read as %v", query, got)
		}
	}
	if _, err := ParseTarget("/a?method=DELETE&my_method=x"); err != nil {
		t.Error(err)
	}
}
