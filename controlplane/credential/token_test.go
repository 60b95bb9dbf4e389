package credential

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/mask"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// A session gets a key for each of its task's tokens, derived for the domain; without one
// nothing is lent.
func TestTokenKeys(t *testing.T) {
	h := newHouse(t)
	h.policy.tokens = map[string]*postern.MaskRule{"pseudonym": {Name: "pseudonym", Method: postern.MaskToken, Domain: "email", Key: "tokens"}}
	if _, err := h.Lease(t.Context(), h.node(), ask("s-0")); err == nil {
		t.Error("a control plane without secrets lends a task with tokens")
	}
	const key = "the very key of tokens"
	h.cfg.Key = func(_ context.Context, name string) (secret.Bytes, error) {
		if name != "tokens" {
			return secret.Bytes{}, errors.New("there is no such secret")
		}
		return secret.FromString(key), nil
	}
	want, err := mask.TokenKey([]byte(key), "email")
	if err != nil {
		t.Fatal(err)
	}
	c := h.open("s-1", h.take("s-1"))
	if got := c.GetMaskKeys()["pseudonym"]; len(c.GetMaskKeys()) != 1 || !bytes.Equal(got, want) {
		t.Errorf("the node has %d keys", len(c.GetMaskKeys()))
	}
	if strings.Contains(c.String(), key) || bytes.Contains(c.GetMaskKeys()["pseudonym"], []byte(key)) || strings.Contains(h.log.String(), key) {
		t.Error("the key itself has left the control plane")
	}
	h.policy.tokens["pseudonym"].Key = "gone"
	if _, err := h.Lease(t.Context(), h.node(), ask("s-2")); err == nil || strings.Contains(err.Error(), key) {
		t.Errorf("without a key: %v", err)
	}
	if h.vault.live() != 1 {
		t.Errorf("%d users live, of one session", h.vault.live())
	}
}
