package answerapi

import (
	"context"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/recording/index"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// doubted is an index of one session, which its node may have made up.
type doubted struct {
	Index
	session *typesv1.Session
}

func (d doubted) Search(context.Context, index.Query) ([]index.Found, error) {
	return []index.Found{{Session: d.session, Row: index.Row{Statement: index.Statement{Number: 1, Verdict: postern.VerdictAllow}}}}, nil
}

func (d doubted) Who(context.Context, index.Who) ([]index.Use, error) {
	return []index.Use{{Session: d.session, Statements: 1}}, nil
}

// TestAnswersNameWhoActsAndWhatIsDoubted: an answer that names somebody says who acted for them,
// and that a node may have made it up.
func TestAnswersNameWhoActsAndWhatIsDoubted(t *testing.T) {
	h := New(Config{Index: doubted{session: &typesv1.Session{Id: "s-1", Subject: "bob", Actors: []string{"helper", "bot"}, Doubt: "the grant is carol's"}}})
	ctx := authz.With(t.Context(), &authz.Caller{Roles: []policy.RoleGrant{{Role: authz.Auditor}}})
	check := func(what string, s interface {
		GetActors() []string
		GetDoubt() string
	}) {
		if strings.Join(s.GetActors(), " for ") != "helper for bot" || s.GetDoubt() != "the grant is carol's" {
			t.Errorf("%s: by %q, doubted %q", what, s.GetActors(), s.GetDoubt())
		}
	}
	found, err := h.SearchStatements(ctx, connect.NewRequest(&apiv1.SearchStatementsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	check("a statement", found.Msg.GetStatements()[0])
	uses, err := h.WhoUsed(ctx, connect.NewRequest(&apiv1.WhoUsedRequest{Resource: "warehouse"}))
	if err != nil {
		t.Fatal(err)
	}
	check("a use", uses.Msg.GetUses()[0])
}
