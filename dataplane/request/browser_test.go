package request

import (
	"net/http"
	"strings"
	"testing"
)

// FuzzCookies: no cookie of the gateway's own goes on, and every other one does, whatever
// stands beside it.
func FuzzCookies(f *testing.F) {
	for _, s := range []string{"a=b", "__Host-postern=x", "a=b; __Host-postern=x; c=d", "__host-POSTERN-login=x", "a=b;;__Host-postern-login=x;", " __Host-postern = x", "a=\"; __Host-postern=x; \"", "=", "=__Host-postern=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		src := http.Header{"Cookie": {header}}
		dst := http.Header{}
		Forward(dst, src)
		parse := func(h http.Header) (out []string, own bool) {
			for _, c := range (&http.Request{Header: h}).Cookies() {
				if strings.HasPrefix(strings.ToLower(c.Name), "__host-postern") {
					own = true
					continue
				}
				out = append(out, c.Name+"="+c.Value)
			}
			return out, own
		}
		before, _ := parse(src)
		after, own := parse(dst)
		if own || strings.Join(before, "|") != strings.Join(after, "|") {
			t.Errorf("%q became %q", header, dst["Cookie"])
		}
	})
}

// TestSetCookie: a resource sets its own cookies, and none of the gateway's.
func TestSetCookie(t *testing.T) {
	dst := http.Header{}
	Return(dst, http.Header{"Set-Cookie": {"__Host-postern=x; Path=/", "app=1", " __HOST-Postern-login=x", "=__Host-postern=x", " = __Host-postern-login=x"}})
	if got := strings.Join(dst["Set-Cookie"], "|"); got != "app=1" {
		t.Errorf("%q", got)
	}
}

// TestForward: what each side says of its own connection and of where it goes is not passed on.
func TestForward(t *testing.T) {
	dst := http.Header{}
	Forward(dst, http.Header{"Expect": {"y 100-continue"}, "Host": {"other"}, "Connection": {"X-Hop"}, "X-Hop": {"1"}, "Te": {"trailers"}, "X-End": {"1"}})
	if len(dst) != 1 || dst.Get("X-End") != "1" {
		t.Errorf("%v", dst)
	}
}
