package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/content"
	"github.com/posterngate/postern/pkg/detect"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// content compiles what a permit masks in what comes back where that is not rows; nil
// where it masks nothing. A mask that does not exist is reported with the other
// references of the object.
func (c *checker) content(at string, p *typesv1.Permit) *postern.ContentRule {
	out := &postern.ContentRule{}
	if forHTTP(p) {
		for _, where := range slices.Sorted(maps.Keys(p.GetMask())) {
			if err := content.CheckPath(where); err != nil {
				c.fail(at+".mask."+where, "%s", err)
			}
			if m := c.contentMask(at+".mask."+where, p.GetMask()[where]); m != nil {
				out.Fields = append(out.Fields, postern.FieldRule{Path: where, Mask: m})
			}
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(p.GetDetect())) {
		field := at + ".detect." + kind
		if err := detect.Check(kind); err != nil {
			c.fail(field, "%s", err)
		}
		if m := c.contentMask(field, p.GetDetect()[kind]); m != nil {
			out.Detect = append(out.Detect, postern.DetectRule{Kind: kind, Mask: m})
		}
	}
	if len(out.Fields)+len(out.Detect) == 0 {
		return nil
	}
	return out
}

// shells checks that a shell masks what the task's other permits mask: it shows all that
// they do, and more.
func (c *checker) shells(s *typesv1.TaskSpec) {
	masked := map[string]bool{}
	for _, p := range s.GetPermit() {
		for kind := range p.GetDetect() {
			masked[kind] = true
		}
	}
	for i, p := range s.GetPermit() {
		if p.GetChannel() != "shell" {
			continue
		}
		var missing []string
		for _, kind := range slices.Sorted(maps.Keys(masked)) {
			if _, ok := p.GetDetect()[kind]; !ok {
				missing = append(missing, kind)
			}
		}
		if len(missing) > 0 {
			c.fail(fmt.Sprintf("spec.permit[%d].detect", i), "a shell shows what other permits of this task mask: add %s, or permit the channel guard in its place", strings.Join(missing, ", "))
		}
	}
}

// contentMask resolves a mask of content.
func (c *checker) contentMask(field, name string) *postern.MaskRule {
	m := c.masks(name)
	if m != nil && m.Method == postern.MaskToken {
		c.fail(field, "mask %q is of method token, whose key no node has; use redact, partial or null", name)
	}
	return m
}

// contentMasks adds what a permit masks in what comes back to the one duty that says so. Where
// two permits mask the same, the first says how.
func (j *judge) contentMasks(rule *postern.ContentRule) {
	if rule == nil {
		return
	}
	if len(rule.Detect) > 0 {
		j.d.Level = postern.LevelNone // what looks otherwise is not found
	}
	for i := range j.d.Obligations {
		if o := &j.d.Obligations[i]; o.Content != nil {
			o.Content = joined(o.Content, rule)
			return
		}
	}
	j.d.Obligations = append(j.d.Obligations, postern.Obligation{Content: rule})
}

// joined is a new rule, for those of permits are shared.
func joined(a, b *postern.ContentRule) *postern.ContentRule {
	out := &postern.ContentRule{Fields: slices.Clone(a.Fields), Detect: slices.Clone(a.Detect)}
	for _, f := range b.Fields {
		if !slices.ContainsFunc(out.Fields, func(have postern.FieldRule) bool { return have.Path == f.Path }) {
			out.Fields = append(out.Fields, f)
		}
	}
	for _, d := range b.Detect {
		if !slices.ContainsFunc(out.Detect, func(have postern.DetectRule) bool { return have.Kind == d.Kind }) {
			out.Detect = append(out.Detect, d)
		}
	}
	return out
}
