package policy

import (
	"maps"
	"slices"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

// compile checks any object and returns what it compiles to: *resource, *task,
// *binding, *roleBinding, *postern.MaskRule, or nil for the kinds that are used as
// they are written. What it returns is of no use once the checker has found anything.
func (c *checker) compile(o *typesv1.Object) any {
	c.metadata(o)
	switch k := o.GetKind().(type) {
	case *typesv1.Object_Resource:
		return c.resource(k.Resource)
	case *typesv1.Object_Task:
		return c.task(k.Task)
	case *typesv1.Object_Binding:
		return c.binding(k.Binding)
	case *typesv1.Object_RoleBinding:
		return c.roleBinding(k.RoleBinding)
	case *typesv1.Object_Mask:
		return c.mask(k.Mask)
	case *typesv1.Object_ApprovalRule:
		c.rule(k.ApprovalRule.GetSpec())
	case *typesv1.Object_Workload:
		c.workload(k.Workload.GetSpec())
	case *typesv1.Object_Lock:
		c.lock(k.Lock.GetSpec())
	case *typesv1.Object_Secret:
		c.secret(k.Secret.GetSpec())
	case *typesv1.Object_Node:
		c.node(k.Node.GetSpec())
	default:
		c.fail("kind", "is not known to this version")
	}
	return nil
}

// maxMaskKeep is how many characters partial may keep at one end.
const maxMaskKeep = 64

func (c *checker) mask(m *typesv1.Mask) *postern.MaskRule {
	s := m.GetSpec()
	method := postern.MaskMethod(c.oneOf("spec.method", s.GetMethod(), "", string(postern.MaskRedact), string(postern.MaskPartial), string(postern.MaskToken), string(postern.MaskNull)))
	only := func(field string, set bool, of postern.MaskMethod) {
		if set && method != of {
			c.fail("spec."+field, "belongs to method %s", of)
		}
	}
	only("value", s.GetValue() != "", postern.MaskRedact)
	only("keepFirst", s.GetKeepFirst() != 0, postern.MaskPartial)
	only("keepLast", s.GetKeepLast() != 0, postern.MaskPartial)
	only("domain", s.GetDomain() != "", postern.MaskToken)
	only("key", s.GetKey() != nil, postern.MaskToken)
	c.text("spec.value", s.GetValue())
	switch method {
	case postern.MaskPartial:
		if s.GetKeepFirst() < 0 || s.GetKeepFirst() > maxMaskKeep {
			c.fail("spec.keepFirst", "must be 0 to %d", maxMaskKeep)
		}
		if s.GetKeepLast() < 0 || s.GetKeepLast() > maxMaskKeep {
			c.fail("spec.keepLast", "must be 0 to %d", maxMaskKeep)
		}
		if s.GetKeepFirst() == 0 && s.GetKeepLast() == 0 {
			c.fail("spec", "partial keeps nothing: set keepFirst or keepLast, or use method redact")
		}
	case postern.MaskToken:
		if s.GetDomain() == "" {
			c.fail("spec.domain", "is required: equal values of one domain give equal tokens")
		}
		if s.GetKey().GetSecret() == "" {
			c.fail("spec.key.secret", "is required: the Secret that holds the key")
		}
		if s.GetKey().GetPem() != "" {
			c.fail("spec.key.pem", "a key is never written in line: name a Secret")
		}
	case postern.MaskRedact, postern.MaskNull:
	}
	return &postern.MaskRule{
		Name: m.GetMetadata().GetName(), Method: method, Value: s.GetValue(),
		KeepFirst: int(s.GetKeepFirst()), KeepLast: int(s.GetKeepLast()), Domain: s.GetDomain(), Key: s.GetKey().GetSecret(),
	}
}

func (c *checker) workload(s *typesv1.WorkloadSpec) {
	if s.GetOwner() == "" {
		c.fail("spec.owner", "is required: a workload is always somebody's")
	}
	if s.GetExpires() == nil {
		c.fail("spec.expires", "is required: a workload does not live for ever")
	} else if err := s.GetExpires().CheckValid(); err != nil {
		c.fail("spec.expires", "is not a time: %s", err)
	}
	c.selectors("spec.actsFor", s.GetActsFor())
	if s.GetTrust().GetIssuer() == "" {
		c.fail("spec.trust.issuer", "is required")
	}
	if s.GetTrust().GetAudience() == "" {
		c.fail("spec.trust.audience", "is required")
	}
	const field = "spec.trust.when"
	if s.GetTrust().GetWhen() == "" {
		c.fail(field, "is required: without a condition every token of the issuer would be this workload's")
		return
	}
	if when := c.condition(field, s.GetTrust().GetWhen(), onWorkload); when != nil && !when.reads["claims"] {
		c.fail(field, "must read claims, or every token of the issuer would be this workload's")
	}
}

// secretForms are the sets of keys that a secret may have, sorted.
var secretForms = [][]string{
	{"password", "username"}, {"password", "sessionToken", "username"}, {"privateKey", "username"}, {"certificate", "privateKey", "username"}, {"value"}, {"signingSecret", "token"},
}

func (c *checker) secret(s *typesv1.SecretSpec) {
	data := s.GetData()
	if len(data) == 0 {
		if len(s.GetSealed()) == 0 {
			c.fail("spec.data", "is required: username and password for a login, or value")
		}
		return
	}
	keys := slices.Sorted(maps.Keys(data))
	for _, form := range secretForms {
		if slices.Equal(keys, form) {
			return
		}
	}
	c.fail("spec.data", "has just the keys username and password, with a sessionToken or without, or username and privateKey, with a certificate or without, or just the key value, or token and signingSecret")
}

func (c *checker) node(s *typesv1.NodeSpec) {
	if s.GetRegion() != "" {
		if err := object.CheckName(s.GetRegion()); err != nil {
			c.fail("spec.region", "%s", err)
		}
	}
	for protocol, endpoint := range s.GetEndpoints() {
		if !slices.Contains(protocols, protocol) {
			c.fail("spec.endpoints", "protocol %q is not known", protocol)
		}
		if err := checkText(endpoint, 255); err != nil || endpoint == "" {
			c.fail("spec.endpoints."+protocol, "must be host:port")
		}
	}
}
