package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/postern"
)

// Exit codes, as they are documented in the help.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDenied      = 3
	exitApproval    = 4
	exitUnreachable = 5
	exitWeak        = 6
	exitInterrupted = 130 // as shells have it
)

// failure is an error of which it is known with which code the command ends.
type failure struct {
	error
	code int
	hint string // what to do next; empty where the error says it
}

func (f failure) Unwrap() error { return f.error }

func fail(code int, hint, format string, args ...any) error {
	return failure{fmt.Errorf(format, args...), code, hint}
}

// usage is a mistake in how the command was typed.
func usage(format string, args ...any) error { return fail(exitUsage, "", format, args...) }

// signedOut says that there is no login that is good.
func signedOut(format string, args ...any) error {
	return fail(exitDenied, "postern login", format, args...)
}

// childError carries the exit code of a client that connect ran.
type childError struct{ code int }

func (e childError) Error() string { return fmt.Sprintf("the client ended with code %d", e.code) }

// A report is what is told of an error: lines for people, or one line of JSON.
type report struct {
	Error      string      `json:"error"`
	Exit       int         `json:"exit"`
	Kind       string      `json:"kind,omitempty"` // stable, as the API has it
	Rule       string      `json:"rule,omitempty"` // which one spoke
	Detail     string      `json:"detail,omitempty"`
	Hint       string      `json:"hint,omitempty"`
	Violations []violation `json:"violations,omitempty"`
}

// violation is what is wrong with one field of what was sent.
type violation struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

// exit tells what went wrong with cmd, and picks the exit code. A client's own failure
// has been told by the client.
func (a *app) exit(cmd *cobra.Command, err error) int {
	var child childError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &child):
		return child.code
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	r := a.reportOf(cmd, err)
	a.tell(r)
	return r.Exit
}

func (a *app) reportOf(cmd *cobra.Command, err error) report {
	r := report{Error: err.Error(), Exit: exitFailed}
	var f failure
	var remote *connect.Error
	switch {
	case errors.As(err, &f):
		r.Exit, r.Hint = f.code, f.hint
		if r.Exit == exitUsage && r.Hint == "" {
			r.Hint = cmd.UseLine() + "; see " + cmd.CommandPath() + " --help"
		}
	case errors.As(err, &remote):
		r.Error = strings.Replace(r.Error, remote.Error(), remote.Message(), 1)
		r.read(remote)
		a.conclude(&r, remote)
	}
	return r
}

// read takes what the API said beside the text.
func (r *report) read(e *connect.Error) {
	for _, d := range e.Details() {
		m, err := d.Value()
		if err != nil {
			continue // of another release: the text says it too
		}
		switch m := m.(type) {
		case *errdetails.ErrorInfo:
			r.Kind = m.GetReason()
		case *errdetails.BadRequest:
			for _, v := range m.GetFieldViolations() {
				switch v.GetField() {
				case fault.FieldRule:
					r.Rule = v.GetDescription()
				case fault.FieldDetail:
					r.Detail = v.GetDescription()
				case fault.FieldHint:
					r.Hint = v.GetDescription()
				default:
					r.Violations = append(r.Violations, violation{v.GetField(), v.GetDescription()})
				}
			}
		}
	}
}

// conclude picks the exit code of a failed call, and what to do next where the other side
// has not said it.
func (a *app) conclude(r *report, e *connect.Error) {
	hint := ""
	switch {
	case e.Code() == connect.CodeUnavailable || e.Code() == connect.CodeDeadlineExceeded:
		r.Exit = exitUnreachable
		if !connect.IsWireError(e) {
			r.Error = "the control plane does not answer: " + r.Error
			hint = fmt.Sprintf("is %s right, and running? (POSTERN_ADDR, POSTERN_CA)", a.addr)
		}
	case e.Code() == connect.CodeUnauthenticated:
		r.Exit, hint = exitDenied, "postern login"
		if a.env.Getenv("POSTERN_TOKEN") != "" {
			hint = "POSTERN_TOKEN is used: set a new one, or unset it and use: postern login"
		}
	case e.Code() == connect.CodePermissionDenied:
		r.Exit = exitDenied
	case e.Code() == connect.CodeFailedPrecondition && r.Kind == postern.CodeNoGrant.String(): // a yes is missing
		r.Exit = exitApproval
	}
	if r.Hint == "" {
		r.Hint = hint
	}
}

// tell writes a report to standard error. For programs it is one line, for it may follow
// others there; JSON is YAML, too.
func (a *app) tell(r report) {
	if a.format == "json" || a.format == "yaml" {
		var line bytes.Buffer
		enc := json.NewEncoder(&line)
		enc.SetEscapeHTML(false)
		if enc.Encode(r) == nil {
			_, _ = line.WriteTo(plainJSON{a.env.Stderr})
			return
		}
	}
	a.say("postern: %s", setIn(r.Error))
	for _, line := range [][2]string{{fault.FieldRule, r.Rule}, {fault.FieldDetail, r.Detail}, {fault.FieldHint, r.Hint}} {
		if line[1] != "" {
			a.say("  %s: %s", line[0], setIn(line[1]))
		}
	}
}

// setIn sets the further lines of a text further in than lines of ours.
func setIn(s string) string { return strings.ReplaceAll(s, "\n", "\n    ") }

// typed has commands tell a mistake in their arguments or flags as one.
func typed(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usage("%w", err)
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		typed(sub)
	}
}
