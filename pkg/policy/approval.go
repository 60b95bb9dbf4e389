package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

const defaultApprovalTimeout = 15 * time.Minute

// weekdays are the days of approval hours, in the order of time.Weekday.
var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func (c *checker) rule(s *typesv1.ApprovalRuleSpec) {
	if len(s.GetAll()) == 0 {
		c.fail("spec.all", "is required: a rule without a quorum would be met by nobody")
	}
	groups := map[string]bool{}
	for i, q := range s.GetAll() {
		at := fmt.Sprintf("spec.all[%d]", i)
		switch {
		case q.GetGroup() == "":
			c.fail(at+".group", "is required")
		case groups[q.GetGroup()]:
			c.fail(at+".group", "%q stands twice; raise atLeast instead", q.GetGroup())
		}
		groups[q.GetGroup()] = true
		if q.GetAtLeast() < 1 || q.GetAtLeast() > 100 {
			c.fail(at+".atLeast", "must be 1 to 100")
		}
	}
	if s != nil && s.NotRequester != nil && !s.GetNotRequester() {
		c.fail("spec.notRequester", "cannot be false: nobody answers what they asked for themselves")
	}
	timeout := c.duration("spec.timeout", s.GetTimeout(), defaultApprovalTimeout)
	for i, w := range s.GetRequire() {
		c.oneOf(fmt.Sprintf("spec.require[%d]", i), w, "", "reason", "ticket")
	}
	c.unique("spec.require", s.GetRequire())
	if e := s.GetEscalate(); e != nil {
		switch after := c.duration("spec.escalate.after", e.GetAfter(), 0); {
		case e.GetAfter() == "":
			c.fail("spec.escalate.after", "is required: how long the rule's own groups are asked alone")
		case after >= timeout:
			c.fail("spec.escalate.after", "is not shorter than spec.timeout: nobody else would ever be asked")
		}
		switch {
		case e.GetGroup() == "":
			c.fail("spec.escalate.group", "is required")
		case groups[e.GetGroup()]:
			c.fail("spec.escalate.group", "%q is asked from the beginning", e.GetGroup())
		}
	}
	if h := s.GetHours(); h != nil {
		c.hours("spec.hours", h)
	}
}

func (c *checker) hours(at string, h *typesv1.ApprovalHours) {
	if _, err := zone(h.GetZone()); err != nil {
		c.fail(at+".zone", "%s", err)
	}
	for i, d := range h.GetDays() {
		c.oneOf(fmt.Sprintf("%s.days[%d]", at, i), d, "", weekdays...)
	}
	c.unique(at+".days", h.GetDays())
	from, err := minuteOf(h.GetFrom())
	if err != nil {
		c.fail(at+".from", "%s", err)
	}
	to, terr := minuteOf(h.GetTo())
	switch {
	case terr != nil:
		c.fail(at+".to", "%s", terr)
	case err == nil && to <= from:
		c.fail(at+".to", "is not after from")
	}
}

// zone is a time zone by name; "Local" is none, for it differs by machine.
func zone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("is required: a time zone such as Europe/Berlin")
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%.60q is not a time zone such as Europe/Berlin", name)
	}
	return z, nil
}

// minuteOf reads a minute of the day such as 08:30; 24:00 is its end.
func minuteOf(s string) (int, error) {
	if s == "24:00" {
		return 24 * 60, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, fmt.Errorf("%.20q is not a minute of the day such as 08:00", s)
	}
	return t.Hour()*60 + t.Minute(), nil
}

// ApprovalOpen reports whether people can say yes by a rule at an instant, and when they
// can, as text. Hours that cannot be read are never.
func ApprovalOpen(s *typesv1.ApprovalRuleSpec, at time.Time) (open bool, when string) {
	h := s.GetHours()
	if h == nil {
		return true, "always"
	}
	z, err := zone(h.GetZone())
	from, ferr := minuteOf(h.GetFrom())
	to, terr := minuteOf(h.GetTo())
	if err != nil || ferr != nil || terr != nil {
		return false, "never: its hours cannot be read"
	}
	days := h.GetDays()
	if len(days) == 0 {
		days = weekdays[time.Monday:time.Saturday]
	}
	local := at.In(z)
	minute := local.Hour()*60 + local.Minute()
	return slices.Contains(days, weekdays[local.Weekday()]) && from <= minute && minute < to,
		fmt.Sprintf("%s, %s to %s, %s", strings.Join(days, " "), h.GetFrom(), h.GetTo(), h.GetZone())
}

// Escalation is whom a rule asks after how long; empty where it asks nobody else.
func Escalation(s *typesv1.ApprovalRuleSpec) (group string, after time.Duration) {
	e := s.GetEscalate()
	after, err := ParseDuration(e.GetAfter())
	if err != nil || e.GetGroup() == "" {
		return "", 0
	}
	return e.GetGroup(), after
}
