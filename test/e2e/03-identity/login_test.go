package identity

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

// ok ends the test when a program failed.
func ok(t *testing.T, r house.Result) house.Result {
	t.Helper()
	if r.Code != 0 {
		t.Fatalf("exit code %d:\n%s", r.Code, r.All())
	}
	return r
}

// TestLogin: people sign in by the browser or with a code, and are then themselves at
// the API and at the listener.
func TestLogin(t *testing.T) {
	h := house.Start(t)
	t.Run("before", func(t *testing.T) {
		p := h.Person(t)
		r := p.Run(t, "", "whoami")
		if r.Code == 0 {
			t.Errorf("%+v", r)
		}
		house.Has(t, r.Err, "postern login")
	})
	t.Run("by the browser", func(t *testing.T) {
		p := h.Person(t)
		p.Browser(t, "alice")
		signedIn(t, h, p, ok(t, p.Run(t, "", "login")))
	})
	t.Run("with a code", func(t *testing.T) {
		p := h.Person(t)
		s := p.Start(t, "login", "--device")
		code := regexp.MustCompile(`shows the code (\S+)`)
		// It asks twice: for the API and for listeners.
		first := code.FindStringSubmatch(s.Expect("shows the code"))[1]
		device(t, h, first, "alice")
		house.Eventually(t, func() string { return "it asks a second time" }, func() bool {
			return len(code.FindAllString(s.Expect("shows the code"), -1)) == 2
		})
		device(t, h, code.FindAllStringSubmatch(s.Expect("listeners"), -1)[1][1], "alice")
		signedIn(t, h, p, ok(t, s.End()))
	})
	t.Run("refused", func(t *testing.T) {
		p := h.Person(t)
		s := p.Start(t, "login", "--device")
		code := regexp.MustCompile(`shows the code (\S+)`).FindStringSubmatch(s.Expect("shows the code"))[1]
		form := url.Values{"user_code": {code}, "deny": {"1"}}
		resp := house.Must(http.PostForm(h.Issuer+"/device", form))(t)
		resp.Body.Close()
		r := s.End()
		if r.Code == 0 {
			t.Errorf("%+v", r)
		}
		house.Has(t, r.Out, "denied")
		if _, err := os.Stat(filepath.Join(p.Home, "postern", "tokens.json")); err == nil {
			t.Error("tokens were kept")
		}
	})
}

// device answers a device's code as a person.
func device(t *testing.T, h *house.House, code, who string) {
	t.Helper()
	resp := house.Must(http.PostForm(h.Issuer+"/device", url.Values{"user_code": {code}, "name": {who}, "password": {who}}))(t)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the provider does not take the code %s: %s", code, resp.Status)
	}
}

// signedIn is what alice can do once she is.
func signedIn(t *testing.T, h *house.House, p *house.Person, r house.Result) {
	t.Helper()
	house.Has(t, r.All(), "alice", "analysts")
	file := filepath.Join(p.Home, "postern", "tokens.json")
	if st := house.Must(os.Stat(file))(t); st.Mode().Perm() != 0o600 {
		t.Errorf("tokens are kept with mode %s", st.Mode())
	}
	house.Has(t, ok(t, p.Run(t, "", "whoami")).Out, "alice", "alice@sample.example", "analysts")
	house.Has(t, ok(t, p.Run(t, "", "whoami", "--format", "json")).Out, `"alice"`)
	house.Has(t, ok(t, p.Run(t, "", "tasks")).Out, "sales-report", "purge-order", "schema-change")
	token := strings.TrimSpace(ok(t, p.Run(t, "", "token")).Out)
	if r := h.PsqlWith(t, token, "sales-report", "SELECT email FROM customers WHERE id = 900001;"); r.Out != "***\n" {
		t.Errorf("with the token: %+v", r)
	}
	// What has expired is renewed without a person.
	text := string(house.Must(os.ReadFile(file))(t))
	old := regexp.MustCompile(`"expires": "[^"]*"`).ReplaceAllString(text, `"expires": "2020-01-01T00:00:00Z"`)
	if err := os.WriteFile(file, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	house.Has(t, ok(t, p.Run(t, "", "whoami")).Out, "alice")
	if renewed := strings.TrimSpace(ok(t, p.Run(t, "", "token")).Out); renewed == token || strings.Contains(string(house.Must(os.ReadFile(file))(t)), "2020-") {
		t.Error("the tokens were not renewed")
	}
	// The token of the listener is not one of the API.
	other := h.Person(t)
	other.Env = []string{"POSTERN_TOKEN=" + token}
	if r := other.Run(t, "", "whoami"); r.Code != 3 {
		t.Errorf("the data token at the API: %+v", r)
	}
	house.Has(t, ok(t, p.Run(t, "", "psql", "sales-report", "--", "-X", "-At", "-c", "SELECT count(*) FROM regions")).Out, "6")
	ok(t, p.Run(t, "", "logout"))
	if _, err := os.Stat(file); err == nil {
		t.Error("tokens are there after logout")
	}
	if r := p.Run(t, "", "token"); r.Code == 0 || r.Out != "" {
		t.Errorf("a token after logout: %+v", r)
	}
}
