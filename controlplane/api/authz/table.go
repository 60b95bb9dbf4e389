package authz

import (
	"slices"
	"strings"

	api "github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	"github.com/posterngate/postern/pkg/policy"
)

// Rule says who may call a method. The zero Rule lets nobody.
type Rule struct {
	Public   bool // without a token; one that is sent is not looked at
	Optional bool // a token that is sent must be good; without one the method itself decides
	Signed   bool // whoever signed in
	Roles    []string
	Scoped   bool // a role with a scope will do: the service looks at what it reaches
	Audit    auditing
	Limit    limit // how often; the zero limit is none
}

type auditing uint8

const (
	reads  auditing = iota // leaves no entry
	writes                 // leaves an entry once it is done
	opens                  // leaves an entry before it begins: a recording is looked into
)

// Table has every method of the API by its procedure.
func Table() map[string]Rule {
	signed := Rule{Signed: true}
	act := Rule{Signed: true, Audit: writes}
	view := Rule{Roles: includes(Viewer), Scoped: true}
	operate := Rule{Roles: includes(Operator), Scoped: true, Audit: writes}
	return map[string]Rule{
		api.PolicyServiceCreateProcedure: operate, // MayWrite looks at each object
		api.PolicyServiceUpdateProcedure: operate,
		api.PolicyServiceDeleteProcedure: operate,
		api.PolicyServiceApplyProcedure:  operate,
		api.PolicyServiceGetProcedure:    view, // MayRead looks at each object
		api.PolicyServiceListProcedure:   view,
		api.PolicyServiceWatchProcedure:  view,

		api.PolicyServiceWhoCanProcedure:  view, // it tells of what the caller may read
		api.PolicyServiceCompareProcedure: view,

		api.AccessServiceWhoAmIProcedure:        signed,
		api.AccessServiceLoginOptionsProcedure:  {Public: true, Limit: LimitLogin},
		api.AccessServiceListTasksProcedure:     signed,
		api.AccessServiceExplainProcedure:       signed,
		api.AccessServiceListEndpointsProcedure: signed,
		api.AccessServiceDoctorProcedure:        view, // it tells what is open at a target that the caller may read about

		api.GrantServiceCreateGrantProcedure:  {Optional: true, Audit: writes, Limit: LimitExchange}, // a workload shows its own token in the request
		api.GrantServiceRequestGrantProcedure: {Signed: true, Audit: writes, Limit: LimitAsk},
		api.GrantServiceGetGrantProcedure:     signed, // one's own, or by role: the service looks
		api.GrantServiceListGrantsProcedure:   signed,
		api.GrantServiceRevokeGrantProcedure:  act,

		api.ApprovalServiceListHoldsProcedure:    signed, // one's own, or those one may answer: the service looks
		api.ApprovalServiceGetHoldProcedure:      signed,
		api.ApprovalServiceReviewHoldProcedure:   {Signed: true, Audit: writes, Limit: LimitApprove},
		api.ApprovalServiceWithdrawHoldProcedure: act,
		api.ApprovalServiceWatchHoldsProcedure:   signed,

		api.SessionServiceListSessionsProcedure:  signed, // one's own, or by role: the service looks
		api.SessionServiceGetSessionProcedure:    signed,
		api.SessionServiceReadRecordingProcedure: {Signed: true, Audit: opens},
		api.SessionServiceKillSessionProcedure:   act,

		api.SessionServiceSetLegalHoldProcedure: {Roles: includes(Auditor), Audit: writes},

		api.AnswerServiceSearchStatementsProcedure: {Roles: includes(Auditor), Audit: opens},
		api.AnswerServiceWhoUsedProcedure:          {Roles: includes(Auditor), Audit: opens},
		api.AnswerServiceGetUsageProcedure:         {Roles: []string{Operator, Auditor, Admin}},

		api.AuditServiceListAuditEntriesProcedure: {Roles: includes(Auditor)},

		api.NodeAdminServiceCreateJoinTokenProcedure: {Roles: includes(Admin), Scoped: true, Audit: writes},
		api.NodeAdminServiceListNodesProcedure:       view,
		api.NodeAdminServiceDrainNodeProcedure:       operate,

		api.AuthorityServiceListKeysProcedure:    view,
		api.AuthorityServiceRotateKeyProcedure:   {Roles: includes(Admin), Audit: writes},
		api.AuthorityServiceRetireKeyProcedure:   {Roles: includes(Admin), Audit: writes},
		api.AccountServiceListAccountsProcedure:  {Roles: []string{Operator, Auditor, Admin}},
		api.AccountServiceRotateAccountProcedure: {Roles: includes(Admin), Audit: writes}, // as whoever writes Secrets

		api.LockServiceGetReceiptProcedure: view,
		api.LockServiceOffboardProcedure:   operate, // MayWrite looks at each object
		api.LockServiceGetBlastProcedure:   {Roles: []string{Operator, Auditor, Admin}, Audit: opens},
	}
}

// allows reports whether a caller who has signed in may call the method.
func (r Rule) allows(c *Caller) bool {
	if r.Public || r.Optional || r.Signed {
		return true
	}
	return slices.ContainsFunc(c.Roles, func(have policy.RoleGrant) bool {
		return slices.Contains(r.Roles, have.Role) && (r.Scoped || len(have.Scope) == 0)
	})
}

func (r Rule) who() string {
	who := strings.Join(r.Roles, " or ")
	if !r.Scoped {
		who += " over everything"
	}
	return who
}
