// Package approvals_test shows the ways on which people answer: the page, Slack, and what
// outside of Postern ends a grant.
package approvals_test

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

var notice = regexp.MustCompile(`waiting for leads to approve: (https://\S+/approvals/(h-[a-z0-9]+))`)

type step = house.Step

var browse = house.Browse

// TestPage: from the notice in psql to the yes, in a browser.
func TestPage(t *testing.T) {
	h := house.Start(t)
	t.Run("the yes", func(t *testing.T) {
		psql := h.StartPsql(t, "alice", "purge-order")
		psql.Say("DELETE FROM sales.orders WHERE id = 7;")
		where := notice.FindStringSubmatch(psql.Expect("postern approve "))[1]
		s := browse(t,
			step{Open: where, SignIn: "bob", Then: where},
			step{See: "main"},
			step{Fill: "input[name=reason]", With: "a duplicate", Press: "input[name=reason]", Key: "Enter"}, // Enter is no yes
			step{See: "#state"},
			step{Click: "button[value=yes]", Wait: "#state", Text: "approved|consumed"},
		)
		house.Has(t, s.Texts[0], "alice asks for this statement under the task purge-order", "DELETE FROM sales.orders WHERE id = 7", "about 1, as the resource estimates", "sessions with this task", "leads, by the rule leads")
		if s.Texts[1] != "pending" {
			t.Errorf("Enter made it %q", s.Texts[1])
		}
		psql.Expect("DELETE 1")
		if i := slices.IndexFunc(s.Cookies, func(c house.Crumb) bool {
			return c.Name == "__Host-postern" && c.Secure && c.HTTPOnly && c.SameSite == "Lax" && c.Path == "/"
		}); i < 0 || len(s.Cookies) == 0 {
			t.Errorf("cookies: %+v", s.Cookies)
		}
		r := h.CLI(t, "bob", "approvals", notice.FindStringSubmatch(psql.Expect("DELETE 1"))[2])
		house.Has(t, r.Out, "bob: yes a duplicate")
	})
	t.Run("nobody answers their own", func(t *testing.T) {
		psql := h.StartPsql(t, "alice", "purge-order")
		psql.Say("DELETE FROM sales.orders WHERE id = 8;")
		where := notice.FindStringSubmatch(psql.Expect("postern approve "))[1]
		s := browse(t, step{Open: where, SignIn: "alice", Then: where}, step{See: "main"}, step{Click: "button[value=withdraw]", Wait: "#state", Text: "withdrawn"})
		if strings.Contains(s.Texts[0], "Approve") {
			t.Errorf("alice may answer herself:\n%s", s.Texts[0])
		}
		psql.Expect("the request was withdrawn")
	})
	t.Run("the no", func(t *testing.T) {
		psql := h.StartPsql(t, "alice", "purge-order")
		psql.Say("DELETE FROM sales.orders WHERE id = 9;")
		where := notice.FindStringSubmatch(psql.Expect("postern approve "))[1]
		list := h.Addr + "/approvals"
		s := browse(t,
			step{Open: list, SignIn: "bob", Then: list},
			step{Click: "main a"},
			step{Click: "button[value=no]", See: "#failed"}, // a no needs a reason
			step{Open: where, Fill: "input[name=reason]", With: "<b>not</b> today"},
			step{Click: "button[value=no]", Wait: "#state", Text: "refused"},
			step{See: "main"},
			step{Click: "header button", See: "#out"},
			step{Open: where, See: "body"}, // the issuer still knows bob, or asks him
		)
		house.Has(t, s.Texts[0], "required for a no")
		house.Has(t, s.Texts[1], "bob: no, <b>not</b> today")
		psql.Expect("refused by bob: <b>not</b> today")
	})
	t.Run("headers", func(t *testing.T) {
		resp := house.Must(h.HTTP().Get(h.Addr + "/web/style.css"))(t)
		resp.Body.Close()
		csp := resp.Header.Get("Content-Security-Policy")
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(csp, "default-src 'none'; ") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: %q", resp.Status, csp)
		}
	})
}
