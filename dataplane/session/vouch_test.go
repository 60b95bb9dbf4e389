package session

import (
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// TestVouch: one token serves until it is time for another; without the control plane it
// serves to its end, and without a right not at all.
func TestVouch(t *testing.T) {
	h := newHouse(t)
	opened, err := h.Open(t.Context(), engine.Claim{Protocol: postern.Postgres, Permission: "report", Token: secret.FromString("token")})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close(nil)
	resource := string(opened.Terms().Resource)
	unavailable := &postern.Refusal{Code: postern.CodeUnavailable, Reason: "nobody answers"}
	for _, c := range []struct {
		after   time.Duration
		unheard error
		want    string
	}{
		{0, nil, "1"}, {2 * time.Minute, nil, "1"}, {2 * time.Minute, nil, "2"},
		{4 * time.Minute, unavailable, "2"}, {2 * time.Minute, unavailable, ""}, {0, nil, "3"},
		{4 * time.Minute, &postern.Refusal{Code: postern.CodeKilled, Reason: "the grant is over"}, ""},
	} {
		h.mu.Lock()
		h.now, h.unheard = h.now.Add(c.after), c.unheard
		h.mu.Unlock()
		token, err := opened.Vouch(t.Context())
		if want := "g-1 " + resource + " " + c.want; c.want == "" && err == nil || c.want != "" && token != want {
			t.Errorf("after %s: %q %v, want %q", c.after, token, err, c.want)
		}
	}
}
