// Package noun turns the nouns of pkg/postern into the messages that cross between the
// planes, and back. It is the one place that knows both forms.
package noun

import (
	"fmt"

	"google.golang.org/protobuf/types/known/structpb"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// Subject is the message of a subject. An error is of claims that are no JSON.
func Subject(s postern.Subject) (*typesv1.Subject, error) {
	out := &typesv1.Subject{Name: s.Name, Email: s.Email, Groups: s.Groups, Mfa: s.MFA, Workload: s.Workload, Actor: s.Actor, Via: s.Via}
	if len(s.Claims) > 0 {
		claims, err := structpb.NewStruct(s.Claims)
		if err != nil {
			return nil, fmt.Errorf("claims of %s: %w", s.Name, err)
		}
		out.Claims = claims
	}
	return out, nil
}

// SubjectOf is the subject of a message; of none the zero Subject, who may do nothing.
func SubjectOf(s *typesv1.Subject) postern.Subject {
	return postern.Subject{
		Name: s.GetName(), Email: s.GetEmail(), Groups: s.GetGroups(), Claims: s.GetClaims().AsMap(),
		MFA: s.GetMfa(), Workload: s.GetWorkload(), Actor: s.GetActor(), Via: s.GetVia(),
	}
}

// Approval is the message of a requirement; nil of none.
func Approval(a *postern.Approval) *typesv1.ApprovalRequirement {
	if a == nil {
		return nil
	}
	return &typesv1.ApprovalRequirement{Scope: string(a.Scope), Rule: a.Rule, Verbs: a.Verbs}
}

// ApprovalOf is the requirement of a message; nil of none.
func ApprovalOf(a *typesv1.ApprovalRequirement) *postern.Approval {
	if a == nil {
		return nil
	}
	return &postern.Approval{Scope: postern.Scope(a.GetScope()), Rule: a.GetRule(), Verbs: a.GetVerbs()}
}

// Alternatives are the messages of other tasks that a subject may have.
func Alternatives(all []postern.Alternative) (out []*nodev1.Alternative) {
	for _, a := range all {
		out = append(out, &nodev1.Alternative{Task: string(a.Task), Asks: a.Asks})
	}
	return out
}

// AlternativesOf are the other tasks of messages.
func AlternativesOf(all []*nodev1.Alternative) (out []postern.Alternative) {
	for _, a := range all {
		out = append(out, postern.Alternative{Task: postern.TaskName(a.GetTask()), Asks: a.GetAsks()})
	}
	return out
}
