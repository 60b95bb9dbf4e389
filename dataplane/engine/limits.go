package engine

import (
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// NoMoreBytes is the refusal where an execution would pass on more than the task allows.
func (t *Terms) NoMoreBytes() *postern.Refusal {
	return &postern.Refusal{Code: postern.CodeLimit, Reason: "the task allows no more bytes", Rule: t.limits(), Hint: "ask for less, or take the task again later"}
}

// RanTooLong is why an execution is cancelled that lasts longer than StatementTimeout.
func (t *Terms) RanTooLong() *postern.Refusal {
	return &postern.Refusal{Code: postern.CodeCancelled, Reason: "it ran for longer than the task allows", Rule: t.limits()}
}

// IdleTooLong is why a session ends that was idle for longer than Idle.
func (t *Terms) IdleTooLong() *postern.Refusal {
	return &postern.Refusal{Code: postern.CodeLimit, Reason: "the session was idle for too long", Rule: t.limits(), Hint: "connect again"}
}

// limits is the Rule of a refusal because of a limit of the task.
func (t *Terms) limits() string { return string(t.Task) + policy.LimitsSuffix }
