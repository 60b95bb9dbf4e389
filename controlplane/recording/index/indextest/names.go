package indextest

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// longNames takes names as long as they may be, which do not get shorter by compression.
func longNames(t *testing.T, x index.Index) {
	ctx := context.Background()
	long := func(begin string) string {
		for len(begin) < index.MaxName {
			begin += strings.ToLower(rand.Text())
		}
		return begin[:index.MaxName]
	}
	column, path := long("files.home."), long("/")
	u := update("s", 0, 0)
	u.Session.Subject = long("s")
	u.Statements = []index.Statement{{Number: 1, Seq: 2, Time: began, Text: "read", Verdict: postern.VerdictAllow, Touched: []record.Touch{
		{Column: column, Role: record.RoleOutput, Mask: long("m")}, {Column: path, Role: record.RoleOutput},
	}}}
	must(t, x.Commit(ctx, u))
	for _, name := range []string{column, path} {
		if uses, err := x.Who(ctx, index.Who{Name: name, Limit: 2}); err != nil || len(uses) != 1 {
			t.Errorf("%.20s...: %v, %v", name, uses, err)
		}
	}
	if list, err := x.Sessions(ctx, index.Filter{Subject: u.Session.Subject, Limit: 2}); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}
