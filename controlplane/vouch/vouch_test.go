package vouch_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/credential/sealed"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/controlplane/vouch"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
)

const world = `
kind: Resource
metadata: {name: orders}
spec: {protocol: http, endpoint: {host: 127.0.0.1, port: 1, http: {identity: true, auth: {scheme: none}}}}
---
kind: Resource
metadata: {name: plain}
spec: {protocol: http, endpoint: {host: 127.0.0.1, port: 1, http: {auth: {scheme: none}}}}
---
kind: Resource
metadata: {name: other}
spec: {protocol: http, endpoint: {host: 127.0.0.1, port: 1, http: {identity: true, auth: {scheme: none}}}}
---
kind: Task
metadata: {name: read}
spec: {purpose: a test, duration: 1h, resources: {names: [orders, plain]}, permit: [{methods: [GET], path: /}]}
---
kind: Lock
metadata: {name: gone}
spec: {subject: carol, reason: left}
`

func TestVouch(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	mem := storetest.NewMemory()
	keeper, err := sealed.OpenKeyFile(t.TempDir() + "/key")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := authority.Open(t.Context(), authority.Config{Store: mem, Keeper: keeper, Audit: audit.New(mem, time.Now), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	snapshot := policytest.Compile(t, world)
	grants := map[string]*typesv1.Grant{
		"g-1":    {Id: "g-1", Task: "read", State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(now.Add(time.Hour)), Subject: &typesv1.Subject{Name: "alice", Actor: "bot", Via: []string{"portal"}}},
		"g-soon": {Id: "g-soon", Task: "read", State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(now.Add(time.Minute)), Subject: &typesv1.Subject{Name: "bob"}},
		"g-over": {Id: "g-over", Task: "read", State: typesv1.GrantState_GRANT_STATE_OVER, EndTime: timestamppb.New(now.Add(time.Hour)), Subject: &typesv1.Subject{Name: "bob"}},
		"g-gone": {Id: "g-gone", Task: "read", State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(now.Add(time.Hour)), Subject: &typesv1.Subject{Name: "carol"}},
	}
	alone := 45 * time.Second
	s := vouch.New(vouch.Config{
		Issuer: "https://postern.example", Sign: keys.SignIdentity, Keys: keys.IdentityKeys, Snapshot: func() *policy.Snapshot { return snapshot },
		Resource: func(node postern.NodeName, r postern.ResourceName) (*typesv1.Resource, bool) {
			res, ok := snapshot.Resource(r)
			return res, ok && node == "n1"
		},
		Grant: func(_ context.Context, id postern.GrantID) (*typesv1.Grant, error) {
			if g := grants[string(id)]; g != nil {
				return g, nil
			}
			return nil, fault.New(codes.NotFound, "no")
		},
		Alone: func(postern.TaskName) time.Duration { return alone }, Now: func() time.Time { return now },
	})

	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, vouch.Path, nil))
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(rec.Body.Bytes(), &set); err != nil || len(set.Keys) != 1 {
		t.Fatalf("%v: %s", err, rec.Body)
	}
	for _, c := range []struct {
		grant              string
		alone, life, renew time.Duration
	}{
		{"g-1", 45 * time.Second, 5 * time.Minute, 200 * time.Second},
		{"g-soon", 45 * time.Second, time.Minute, 40 * time.Second},
		{"g-1", 15 * time.Minute, 15*time.Minute + 30*time.Second, 200 * time.Second}, // it is good for longer, and no older
	} {
		grant := c.grant
		alone = c.alone
		resp, err := s.Vouch(t.Context(), "n1", &nodev1.VouchRequest{Grant: grant, Resource: "orders", Session: "s-1"})
		if err != nil {
			t.Fatal(err)
		}
		token, err := jwt.ParseSigned(resp.GetToken(), []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		want, renew := now.Add(c.life), now.Add(c.renew)
		var c vouch.Claims
		if err := token.Claims(set, &c); err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(jwt.Expected{Issuer: "https://postern.example", AnyAudience: jwt.Audience{"orders"}, Time: now}); err != nil {
			t.Error(err)
		}
		if !c.Expiry.Time().Equal(want) || !resp.GetExpireTime().AsTime().Equal(want) || !resp.GetRenewTime().AsTime().Equal(renew) {
			t.Errorf("%s ends at %s and %s, is renewed at %s, want %s and %s", grant, c.Expiry.Time(), resp.GetExpireTime().AsTime(), resp.GetRenewTime().AsTime(), want, renew)
		}
		if c.Task != "read" || c.Grant != grant || c.Session != "s-1" || c.ID == "" || c.Subject != grants[grant].GetSubject().GetName() {
			t.Errorf("%+v", c)
		}
		switch a := c.Actor; {
		case grant == "g-1" && (a == nil || a.Subject != "bot" || a.Actor == nil || a.Actor.Subject != "portal" || a.Actor.Actor != nil):
			t.Errorf("the chain of actors is %+v", a)
		case grant != "g-1" && a != nil:
			t.Errorf("%s acts for %s", a.Subject, grant)
		}
	}
	for name, c := range map[string]struct {
		node, grant, resource, session string
		kind                           postern.Code
	}{
		"a grant that is over":                {"n1", "g-over", "orders", "s-1", postern.CodeKilled},
		"a grant that is not there":           {"n1", "g-2", "orders", "s-1", postern.CodeKilled},
		"somebody who is locked":              {"n1", "g-gone", "orders", "s-1", postern.CodeKilled},
		"a resource that another node serves": {"n2", "g-1", "orders", "s-1", postern.CodeDenied},
		"a resource that does not ask":        {"n1", "g-1", "plain", "s-1", postern.CodeDenied},
		"a resource of another task":          {"n1", "g-1", "other", "s-1", postern.CodeDenied},
		"a resource that is not there":        {"n1", "g-1", "nowhere", "s-1", postern.CodeDenied},
	} {
		resp, err := s.Vouch(t.Context(), postern.NodeName(c.node), &nodev1.VouchRequest{Grant: c.grant, Resource: c.resource, Session: c.session})
		if err == nil || fault.From(err).Kind != c.kind.String() {
			t.Errorf("%s: %v %v", name, resp, err)
		}
	}
}
