package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

// A checker collects what is wrong with one object while it is compiled, so that what
// is refused on write and what is rejected at Compile are one list of rules.
type checker struct {
	found      []fault.Violation
	conditions *conditions
	masks      func(name string) *postern.MaskRule // nil result: absent or broken
}

func (c *checker) fail(field, format string, args ...any) {
	c.found = append(c.found, fault.Violation{Field: field, Reason: fmt.Sprintf(format, args...)})
}

// duration reads a field; an empty one is def.
func (c *checker) duration(field, value string, def time.Duration) time.Duration {
	if value == "" {
		return def
	}
	d, err := ParseDuration(value)
	if err != nil {
		c.fail(field, "%s", err)
	}
	return d
}

// count reads a limit: unset means no bound, which is -1.
func (c *checker) count(field string, n int64) int64 {
	if n < 0 {
		c.fail(field, "must be positive; leave it out for no bound")
	}
	if n == 0 {
		return -1
	}
	return n
}

// oneOf checks a word; an empty one is def, and required where def is empty.
func (c *checker) oneOf(field, value, def string, words ...string) string {
	if value == "" {
		value = def
	}
	switch {
	case value == "":
		c.fail(field, "is required: %s", orList(words))
	case !slices.Contains(words, value):
		c.fail(field, "%q is not known; it may be %s", value, orList(words))
	}
	return value
}

func orList(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " or " + words[n-1]
	}
	return strings.Join(words, "")
}

// unique checks a list of words: none empty, none twice.
func (c *checker) unique(field string, words []string) {
	seen := make(map[string]bool, len(words))
	for i, w := range words {
		switch {
		case w == "":
			c.fail(fmt.Sprintf("%s[%d]", field, i), "is empty")
		case seen[w]:
			c.fail(fmt.Sprintf("%s[%d]", field, i), "%q stands twice", w)
		}
		seen[w] = true
	}
}

// MaxText is the longest text for people, in bytes.
const MaxText = 500

// text checks a text that people are shown: one line without control characters.
func (c *checker) text(field, value string) {
	if err := checkText(value, MaxText); err != nil {
		c.fail(field, "%s", err)
	}
}

func checkText(value string, limit int) error {
	switch {
	case len(value) > limit:
		return fmt.Errorf("is longer than %d characters", limit)
	case !utf8.ValidString(value):
		return fmt.Errorf("is not UTF-8")
	case strings.ContainsFunc(value, func(r rune) bool {
		return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
	}):
		return fmt.Errorf("has a control character or a line break")
	}
	return nil
}

var labelKey = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_./]{0,61}[A-Za-z0-9])?$`)

// labels checks a map of labels, in the order of their keys.
func (c *checker) labels(field string, labels map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if !labelKey.MatchString(k) {
			c.fail(field, "key %q must be 1 to 63 letters, digits, dashes, dots, slashes and underscores", k)
		}
		if err := checkText(labels[k], 63); err != nil {
			c.fail(field+"."+k, "%s", err)
		}
	}
}

// metadata checks name and labels.
func (c *checker) metadata(o *typesv1.Object) {
	if err := object.CheckName(object.Name(o)); err != nil {
		c.fail("metadata.name", "%s", err)
	}
	c.labels("metadata.labels", object.Labels(o))
}

// condition compiles a CEL condition; an empty one is nil, which always holds.
func (c *checker) condition(field, source string, s surface) *condition {
	if source == "" {
		return nil
	}
	cond, err := c.conditions.compile(source, s)
	if err != nil {
		c.fail(field, "%s", err)
	}
	return cond
}

// approval compiles a requirement; scopes are the ones that make sense here.
func (c *checker) approval(field string, a *typesv1.ApprovalRequirement, scopes ...string) *postern.Approval {
	if a == nil {
		return nil
	}
	scope := c.oneOf(field+".scope", a.GetScope(), "", scopes...)
	if a.GetRule() == "" {
		c.fail(field+".rule", "is required: the name of an ApprovalRule")
	}
	for i, v := range a.GetVerbs() {
		c.oneOf(fmt.Sprintf("%s.verbs[%d]", field, i), v, "", approvalVerbs...)
	}
	c.unique(field+".verbs", a.GetVerbs())
	if len(a.GetVerbs()) > 0 && scope != string(postern.ScopeStatement) {
		c.fail(field+".verbs", "only scope statement has verbs")
	}
	return &postern.Approval{Scope: postern.Scope(scope), Rule: a.GetRule(), Verbs: slices.Clone(a.GetVerbs())}
}
