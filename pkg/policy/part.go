package policy

import (
	"slices"

	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

// A part is one object, and what it compiles to. Once compiled it is immutable, for
// snapshots that follow each other share it.
type part struct {
	object     *typesv1.Object
	kind, name string

	done     bool
	compiled any // as checker.compile says
	found    []fault.Violation
	needs    []reference                  // that must be met
	masks    map[string]*postern.MaskRule // that it was compiled with; nil for one that was not there
}

func newPart(o *typesv1.Object) *part {
	return &part{object: o, kind: object.Kind(o), name: object.Name(o)}
}

func (p *part) ref() string { return p.kind + "/" + p.name }

// order puts what others need first.
func (p *part) order() int {
	switch p.object.GetKind().(type) {
	case *typesv1.Object_Mask, *typesv1.Object_ApprovalRule:
		return 0
	default:
		return 1
	}
}

// holds reports whether the part would compile to the same among these masks.
func (p *part) holds(masks map[string]*postern.MaskRule) bool {
	for name, m := range p.masks {
		if masks[name] != m {
			return false
		}
	}
	return p.done
}

// compile makes a part anew.
func (b *builder) compile(p *part) *part {
	out := &part{object: p.object, kind: p.kind, name: p.name, done: true}
	c := &checker{conditions: &b.conditions, masks: func(name string) *postern.MaskRule {
		if out.masks == nil {
			out.masks = map[string]*postern.MaskRule{}
		}
		out.masks[name] = b.masks[name]
		return b.masks[name]
	}}
	out.compiled = c.compile(p.object)
	out.found = c.found
	out.needs = slices.DeleteFunc(references(p.object), func(r reference) bool { return r.kind != "mask" && r.kind != "approvalrule" })
	return out
}
