package identity_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/identity"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

func workload(name, issuer, when string) *typesv1.Workload {
	return &typesv1.Workload{
		Metadata: &typesv1.Metadata{Name: name},
		Spec: &typesv1.WorkloadSpec{
			Owner: "ada", Expires: timestamppb.New(time.Now().Add(30 * time.Minute)),
			Trust: &typesv1.WorkloadTrust{Issuer: issuer, Audience: "https://postern.example", When: when},
		},
	}
}

func TestWorkloads(t *testing.T) {
	ci := newIssuer(t)     // known by trust rules alone
	people := newIssuer(t) // at which people sign in too
	over := workload("over", ci.url, `claims.repository_id == "9"`)
	over.Spec.Expires = timestamppb.New(time.Now().Add(-time.Minute))
	orphan := workload("orphan", ci.url, `claims.repository_id == "8"`)
	orphan.Spec.Owner = ""
	data := workload("inside", people.url, `claims.sub == "nightly"`)
	data.Spec.Trust.Audience = "postern-data"
	all := []*typesv1.Workload{
		workload("nightly", ci.url, `claims.repository_id == "42" && claims.environment == "prod"`),
		workload("twin-a", ci.url, `claims.repository_id == "7"`), workload("twin-b", ci.url, `claims.repository_id == "7"`),
		workload("unruled", ci.url, ""), over, orphan, data,
	}
	v := verifier(t, identity.Config{
		Issuers:   []identity.IssuerConfig{{URL: people.url}},
		Workloads: func() []*typesv1.Workload { return all },
	})
	job := func(change map[string]any) string {
		base := map[string]any{"aud": "https://postern.example", "sub": "repo:acme/etl", "repository_id": "42", "environment": "prod", "groups": []string{"leads"}}
		for k, x := range change {
			base[k] = x
		}
		return ci.token(base)
	}
	sub, end, err := v.Data(t.Context(), job(nil))
	if err != nil || sub.Name != "nightly" || sub.Workload != "nightly" || len(sub.Groups) != 0 || sub.Claims["repository_id"] != "42" {
		t.Fatalf("subject %+v, %v", sub, err)
	}
	if time.Until(end) > 30*time.Minute {
		t.Errorf("outlives its workload: %s", time.Until(end))
	}
	if sub, _, err := v.Workload(t.Context(), job(nil)); err != nil || sub.Workload != "nightly" {
		t.Errorf("by Workload: %+v, %v", sub, err)
	}
	for name, c := range map[string]struct{ token, text string }{
		"other environment": {job(map[string]any{"environment": "dev"}), "not that of any workload"},
		"claim missing":     {job(map[string]any{"environment": nil}), "not that of any workload"},
		"two fit":           {job(map[string]any{"repository_id": "7"}), "fits two workloads"},
		"expired workload":  {job(map[string]any{"repository_id": "9"}), "is over"},
		"no owner":          {job(map[string]any{"repository_id": "8"}), "no owner"},
		"expired token":     {job(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}), "expired"},
		"no exp":            {job(map[string]any{"exp": nil}), "no end"},
		"other audience":    {job(map[string]any{"aud": "postern-data"}), "not one that is trusted"},
		"two audiences":     {job(map[string]any{"aud": []string{"https://postern.example", "x"}}), "not one that is trusted"},
		"another's key":     {sign(t, "ES256", people.signer().Key, "k1", nil, mustJSON(t, ci.claims(map[string]any{"aud": "https://postern.example", "repository_id": "42", "environment": "prod"}))), "not signed"},
	} {
		_, _, err := v.Data(t.Context(), c.token)
		refused(t, name, c.token, err, c.text)
	}
	_, _, err = v.Authenticate(t.Context(), job(nil))
	refused(t, "at the API", "", err, "not one that is trusted")

	// One issuer and audience for people and a workload: the rule tells them apart.
	sub, _, err = v.Data(t.Context(), people.token(map[string]any{"aud": "postern-data", "sub": "nightly"}))
	if err != nil || sub.Workload != "inside" {
		t.Errorf("workload by the people's issuer: %+v, %v", sub, err)
	}
	sub, _, err = v.Data(t.Context(), people.token(map[string]any{"aud": "postern-data"}))
	if err != nil || sub.Workload != "" || sub.Name != "alice" {
		t.Errorf("person beside a workload: %+v, %v", sub, err)
	}
	_, _, err = v.Workload(t.Context(), people.token(map[string]any{"aud": "postern-data"}))
	refused(t, "a person as a workload", "", err, "not that of any workload")

	all = nil
	_, _, err = v.Data(t.Context(), job(nil))
	refused(t, "after its workload is gone", "", err, "not one that is trusted")
}
