package account

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/postern"
)

// opens reports whether a password is the one of a SCRAM verifier.
func opens(t *testing.T, verifier, password string) bool {
	t.Helper()
	var parts []string
	for _, p := range strings.Split(verifier, "$") {
		parts = append(parts, strings.Split(p, ":")...)
	}
	if len(parts) != 5 || parts[0] != "SCRAM-SHA-256" {
		t.Fatalf("no verifier: %q", verifier)
	}
	rounds, err := strconv.Atoi(parts[1])
	salt, errSalt := base64.StdEncoding.DecodeString(parts[2])
	salted, errKey := pbkdf2.Key(sha256.New, password, salt, rounds, sha256.Size)
	if err = errors.Join(err, errSalt, errKey); err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, salted)
	mac.Write([]byte("Client Key"))
	stored := sha256.Sum256(mac.Sum(nil))
	return base64.StdEncoding.EncodeToString(stored[:]) == parts[3]
}

// TestRotate: the server has the verifier of what is lent from then on, and sessions live
// on or end as their resource says.
func TestRotate(t *testing.T) {
	for _, by := range []string{"app", "shop", "shop-ends"} { // the Secret and the account have one name; and resources
		h := newHouse(t)
		for _, l := range []struct {
			r, id, purpose string
			live           bool
			since          time.Duration
		}{
			{"shop", "s-kept", "session", true, -time.Minute}, {"shop", "s-over", "session", false, -time.Minute}, {"shop", "s-catalog", "catalog", true, -time.Minute},
			{"shop", "s-later", "session", true, time.Minute}, {"shop-ends", "s-ended", "session", true, -time.Minute},
		} {
			h.lent = append(h.lent, credential.Lent{
				Resource: postern.ResourceName(l.r), Account: "app", Session: postern.SessionID(l.id), Purpose: l.purpose, Live: l.live, Created: h.now.Add(l.since),
			})
		}
		resp, err := h.rotate(by)
		if err != nil {
			t.Fatal(err)
		}
		got := h.values("app")
		if got["password"] == "old" || got[nextKey] != "" || !opens(t, h.server.verifiers["app"], got["password"]) || opens(t, h.server.verifiers["app"], "old") {
			t.Errorf("%s: lent %v, at the server %v", by, got, h.server.verifiers)
		}
		if fmt.Sprint(resp.GetResources(), resp.GetKept(), resp.GetEnded(), h.server.killed) != "[shop shop-ends] [s-kept] [s-ended] [s-ended]" || resp.GetAccount() != "app" || resp.GetSecret() != "app" {
			t.Errorf("%s: %v, killed %v", by, resp, h.server.killed)
		}
		if h.told("account.rotate") != 1 {
			t.Errorf("%s: told %d times", by, h.told("account.rotate"))
		}
	}
}

// TestRotationCutShort: whether or not the server has the new password when a rotation
// breaks off, what is lent is what it takes, and the next one finishes.
func TestRotationCutShort(t *testing.T) {
	for _, place := range []string{"app", "kv/team/kept"} {
		for _, late := range []bool{false, true} {
			h := newHouse(t)
			account := map[string]string{"app": "app", "kv/team/kept": "kept"}[place]
			values := func() map[string]string {
				if place == "app" {
					return h.values("app")
				}
				return h.vault.values
			}
			h.server.fails, h.server.late = "the wire was cut", late
			if _, err := h.rotate(place); fault.CodeOf(err) != codes.Unavailable || !strings.Contains(fmt.Sprint(fault.From(err).Violations), "rotate it again") {
				t.Errorf("%s: %v", place, err)
			}
			before := values()
			if before["password"] != "old" || before[nextKey] == "" || h.told("account.rotate") != 0 {
				t.Errorf("%s: %v", place, before)
			}
			if late && !opens(t, h.server.verifiers[account], before[nextKey]) {
				t.Errorf("%s: the server has a password that nobody knows", place)
			}
			h.server.fails = ""
			if _, err := h.rotate(place); err != nil {
				t.Fatal(err)
			}
			after := values()
			if after["password"] != before[nextKey] || after[nextKey] != "" || !opens(t, h.server.verifiers[account], after["password"]) || h.told("account.rotate") != 1 {
				t.Errorf("%s: %v after %v", place, after, before)
			}
		}
	}
}

// TestRotateInVault: KV keeps what else it had, and loses nothing to somebody who writes at
// the same time; a static role is Vault's to rotate, and needs no wall.
func TestRotateInVault(t *testing.T) {
	h := newHouse(t)
	resp, err := h.rotate("kept") // the account and the resource
	if err != nil || resp.GetSecret() != "kv/team/kept" || resp.GetAccount() != "kept" {
		t.Fatalf("%v, %v", resp, err)
	}
	if v := h.vault.values; v["note"] != "ours" || v["username"] != "kept" || !opens(t, h.server.verifiers["kept"], v["password"]) {
		t.Errorf("%v", v)
	}
	if h.vault.rotated != 0 {
		t.Error("the static role was rotated")
	}
	h.vault.meddle = func() { h.vault.version++ }
	was := h.server.verifiers["kept"]
	if _, err := h.rotate("kv/team/kept"); fault.CodeOf(err) != codes.Aborted || h.server.verifiers["kept"] != was {
		t.Errorf("somebody was first: %v", err)
	}
	h.vault.meddle = nil

	h.lent = []credential.Lent{{Resource: "standing", Account: "own", Session: "s-1", Purpose: "session", Live: true, Created: h.now.Add(-time.Hour)}}
	for i, name := range []string{"db/own", "own", "standing"} {
		resp, err := h.rotate(name)
		if err != nil || h.vault.rotated != i+1 || resp.GetAccount() != "own" || fmt.Sprint(resp.GetKept()) != "[s-1]" || h.server.verifiers["own"] != "" {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
	}
	if n := h.told("account.rotate"); n != 4 {
		t.Errorf("told %d times", n)
	}
	h.vault.broken = errors.New("sealed")
	if _, err := h.rotate("db/own"); err == nil {
		t.Error("a Vault that does not answer rotates")
	}
	if _, err := h.rotate("app"); err != nil {
		t.Errorf("a Secret, by its name, while Vault is away: %v", err)
	}
	if _, err := h.rotate("nobody"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("what may be in a Vault that is away: %v", err)
	}
}

func TestWhatIsNotRotated(t *testing.T) {
	h := newHouse(t)
	for name, code := range map[string]codes.Code{
		"nothing": codes.NotFound,
		"db/made": codes.NotFound,           // made for each session
		"lonely":  codes.FailedPrecondition, // no wall
	} {
		if resp, err := h.rotate(name); fault.CodeOf(err) != code {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
	}
	if len(h.server.verifiers) != 0 || h.values("lonely")[nextKey] != "" {
		t.Errorf("%v", h.server.verifiers)
	}
	h.cfg.Vault = nil
	if _, err := h.rotate("db/own"); fault.CodeOf(err) != codes.FailedPrecondition {
		t.Errorf("without a Vault: %v", err)
	}
}
