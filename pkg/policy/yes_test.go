package policy

import (
	"testing"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

func TestMet(t *testing.T) {
	yes := func(name string, groups ...string) *typesv1.Approval {
		return &typesv1.Approval{Subject: name, Groups: groups, Approved: true}
	}
	rule := func(distinct bool, q ...*typesv1.ApprovalQuorum) *typesv1.ApprovalRuleSpec {
		return &typesv1.ApprovalRuleSpec{All: q, Distinct: distinct}
	}
	of := func(group string, n int32) *typesv1.ApprovalQuorum {
		return &typesv1.ApprovalQuorum{Group: group, AtLeast: n}
	}
	both := []*typesv1.Approval{yes("a", "x", "y"), yes("b", "x")}
	for name, c := range map[string]struct {
		rule *typesv1.ApprovalRuleSpec
		said []*typesv1.Approval
		want bool
	}{
		"asks nobody":               {rule(true), both, false},
		"no group":                  {rule(true, of("", 1)), both, false},
		"zero is one":               {rule(true, of("x", 0)), nil, false},
		"one stands for two groups": {rule(false, of("x", 1), of("y", 1)), both[:1], true},
		"but not where distinct":    {rule(true, of("x", 1), of("y", 1)), both[:1], false},
		"moved to make room":        {rule(true, of("x", 1), of("y", 1)), both, true},
		"a no is no yes":            {rule(true, of("x", 1)), []*typesv1.Approval{{Subject: "a", Groups: []string{"x"}}}, false},
		"more than can be":          {rule(true, of("x", 1<<30)), both, false},
		"the same group twice":      {rule(true, of("x", 1), of("x", 1)), both[1:], false},
	} {
		if got := Met(c.rule, c.said); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
