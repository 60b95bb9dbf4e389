package policy

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// Effects of a Change.
const (
	Allowed = "allowed" // what nobody of these could do before
	Denied  = "denied"  // what they can do no longer
	Changed = "changed" // on other terms: Before and After say which
)

// A Change is one difference between what two policies let people do. Who is empty for
// what concerns whoever holds the task, or whoever uses the resource.
type Change struct {
	Effect   string
	Who      string // such as "group analysts"
	Task     postern.TaskName
	Resource postern.ResourceName
	Verb, On string   // as of a Right; empty for what concerns the whole task or resource
	Columns  []string // of On
	Before   []string // the terms; each is one way to it, and any will do
	After    []string
}

// Compare evaluates two policies and lists what a step from one to the other newly allows,
// denies or puts on other terms: for each subject that bindings pick, each task and
// resource, each object. Beside that what concerns a whole task (limits, duration), a
// whole resource (where it is, its credential, its level), who may do what to Postern
// itself, and locks.
func Compare(before, after *Snapshot, now time.Time) []Change {
	var out []Change
	out = append(out, compareMaps(before.reachable(now), after.reachable(now), func(k reached) Change {
		return Change{Who: k.who, Task: k.task, Resource: k.resource, Verb: k.verb, On: k.on, Columns: columnsOf(k.column)}
	})...)
	out = append(out, compareMaps(before.taskTerms(), after.taskTerms(), func(t postern.TaskName) Change { return Change{Task: t} })...)
	out = append(out, compareMaps(before.resourceTerms(), after.resourceTerms(), func(r postern.ResourceName) Change { return Change{Resource: r} })...)
	out = append(out, compareMaps(before.ruleTerms(), after.ruleTerms(), func(name string) Change { return Change{Who: "approval rule " + name, Verb: "asks"} })...)
	out = append(out, compareMaps(before.workloadTerms(), after.workloadTerms(), func(name string) Change { return Change{Who: "workload " + name, Verb: "is trusted"} })...)
	out = append(out, compareMaps(before.roleTerms(), after.roleTerms(), func(r roleKey) Change { return Change{Who: r.who, Verb: "role " + r.role} })...)
	for _, c := range compareMaps(before.lockTerms(now), after.lockTerms(now), func(who string) Change { return Change{Who: who, Verb: "locked"} }) {
		switch c.Effect { // a lock that comes takes away
		case Allowed:
			c.Effect = Denied
		case Denied:
			c.Effect = Allowed
		}
		out = append(out, c)
	}
	return joinColumns(out)
}

// reached names one thing that some subject may reach.
type reached struct {
	who      string
	task     postern.TaskName
	resource postern.ResourceName
	verb, on string
	column   string
}

func columnsOf(c string) []string {
	if c == "" {
		return nil
	}
	return []string{c}
}

// reachable lists everything that anybody may reach, with the terms of each way to it.
func (s *Snapshot) reachable(now time.Time) map[reached][]string {
	out := map[reached][]string{}
	rights := map[postern.TaskName][]Right{}
	for name, t := range s.tasks {
		rights[name] = s.rights(t)
	}
	for _, b := range s.bindings {
		if !b.expires.IsZero() && !now.Before(b.expires) {
			continue
		}
		var until []string
		if !b.expires.IsZero() {
			until = []string{"until " + b.expires.UTC().Format(time.RFC3339)}
		}
		for _, sel := range b.subjects {
			who := SelectorText(sel)
			for _, name := range b.tasks {
				t := s.tasks[name]
				if t == nil {
					continue
				}
				for resource := range t.reach {
					for _, r := range rights[name] {
						k := reached{who, name, resource, r.Verb, r.On, r.Column}
						out[k] = append(out[k], r.text(append(s.bindingTerms(b, &r), until...)))
					}
				}
			}
		}
	}
	return out
}

// text is a way to a right: its terms after those of the binding.
func (r *Right) text(binding []string) string {
	all := slices.Concat(binding, r.Terms)
	if r.Mask != "" {
		all = append(all, "masked by "+r.Mask)
	}
	if len(all) == 0 {
		return "at once"
	}
	return strings.Join(all, "; ")
}

// taskTerms is what concerns all that a task allows.
func (s *Snapshot) taskTerms() map[postern.TaskName][]string {
	out := map[postern.TaskName][]string{}
	for name, t := range s.tasks {
		x := t.terms
		words := []string{"for " + x.Duration.String()}
		limit := func(n int64, what string) {
			if n >= 0 {
				words = append(words, fmt.Sprintf("at most %d %s", n, what))
			}
		}
		per := " a session"
		if x.PerGrant {
			per = " a grant"
		}
		limit(x.Rows, "rows"+per)
		limit(x.Bytes, "bytes"+per)
		limit(x.Statements, "statements"+per)
		limit(x.Sessions, "sessions at once")
		if x.Rate.N > 0 {
			words = append(words, "at most "+x.Rate.String()+" a grant")
		}
		for what, d := range map[string]time.Duration{"statement timeout": x.StatementTimeout, "idle": x.Idle, "session": x.Session} {
			if d > 0 {
				words = append(words, what+" "+d.String())
			}
		}
		words = append(words, fmt.Sprintf("recorded %s for reads, %s for changes, %d rows kept", x.RecordRead, x.RecordWrite, x.ResultRows),
			fmt.Sprintf("alone for %s and %s more", x.MaxStaleness, x.SessionGrace))
		if x.StoreRaw {
			words = append(words, "what nodes mask is kept raw")
		}
		if x.Pool {
			words = append(words, "credentials are pooled")
		}
		if t.login != nil {
			words = append(words, "logs in by "+credentialText(t.login))
		}
		slices.Sort(words)
		out[name] = words
	}
	return out
}

func credentialText(r *typesv1.CredentialRef) string {
	v, o := r.GetVault(), r.GetOauth()
	switch {
	case o != nil:
		return fmt.Sprintf("secret %s, with tokens from %s, scopes %q, audience %q", o.GetSecret(), o.GetTokenUrl(), o.GetScopes(), o.GetAudience())
	case v.GetRole() != "":
		return "vault " + v.GetMount() + "/" + v.GetRole()
	case v.GetStaticRole() != "":
		return "vault " + v.GetMount() + "/" + v.GetStaticRole() + ", a static role"
	case v.GetSshRole() != "":
		return "vault " + v.GetMount() + "/" + v.GetSshRole() + " as " + v.GetUser()
	case v != nil:
		return "vault " + v.GetMount() + "/" + v.GetPath() + ", a path"
	}
	return "secret " + r.GetSealed()
}

// resourceTerms is what concerns all that is done at a resource.
func (s *Snapshot) resourceTerms() map[postern.ResourceName][]string {
	out := map[postern.ResourceName][]string{}
	for name, r := range s.resources {
		spec := r.object.GetSpec()
		words := []string{fmt.Sprintf("%s at %s:%d", spec.GetProtocol(), spec.GetEndpoint().GetHost(), spec.GetEndpoint().GetPort()), "level " + r.level.String()}
		if db := spec.GetEndpoint().GetDatabase(); db != "" {
			words = append(words, "database "+db)
		}
		for what, ref := range map[string]*typesv1.CredentialRef{"logs in": spec.GetCredential(), "read for its catalogue": spec.GetCatalog(), "kept by walls": spec.GetLevel().GetAdmin()} {
			if ref != nil {
				words = append(words, what+" by "+credentialText(ref))
			}
		}
		for _, k := range slices.Sorted(maps.Keys(spec.GetReachableFrom())) {
			words = append(words, fmt.Sprintf("reachable from %s=%s", k, spec.GetReachableFrom()[k]))
		}
		if spec.GetRotatedSessions() == "end" {
			words = append(words, "sessions end with a rotated password")
		}
		for _, k := range slices.Sorted(maps.Keys(r.pins)) {
			words = append(words, fmt.Sprintf("pinned %s = %s", k, r.pins[k]))
		}
		if e := spec.GetEndpoint(); e.GetTls() != nil || e.GetSsh() != nil || e.GetHttp() != nil {
			raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
			if err == nil {
				sum := sha256.Sum256(raw)
				words = append(words, fmt.Sprintf("known by %x", sum[:6]))
			}
		}
		out[name] = words
	}
	return out
}

// ruleTerms is whom an approval rule asks, when, and what it wants to hear.
func (s *Snapshot) ruleTerms() map[string][]string {
	out := map[string][]string{}
	for name, r := range s.rules {
		_, when := ApprovalOpen(r.GetSpec(), time.Time{})
		words := []string{ruleText(r.GetSpec()) + " must approve", "asked " + when, "for " + cmp.Or(r.GetSpec().GetTimeout(), defaultApprovalTimeout.String())}
		for _, need := range r.GetSpec().GetRequire() {
			words = append(words, "a "+need+" is required")
		}
		out[name] = words
	}
	return out
}

// workloadTerms is whose tokens are a workload's own, and for whom it may act.
func (s *Snapshot) workloadTerms() map[string][]string {
	out := map[string][]string{}
	for _, w := range s.workloads {
		spec := w.GetSpec()
		words := []string{
			"owned by " + spec.GetOwner(), "until " + spec.GetExpires().AsTime().UTC().Format(time.RFC3339),
			fmt.Sprintf("by tokens of %s for %s when %s", spec.GetTrust().GetIssuer(), spec.GetTrust().GetAudience(), spec.GetTrust().GetWhen()),
		}
		for _, sel := range spec.GetActsFor() {
			words = append(words, "acts for "+SelectorText(sel))
		}
		out[w.GetMetadata().GetName()] = words
	}
	return out
}

type roleKey struct{ who, role string }

func (s *Snapshot) roleTerms() map[roleKey][]string {
	out := map[roleKey][]string{}
	for _, b := range s.roles {
		scope := "everything"
		if len(b.grant.Scope) > 0 {
			var labels []string
			for _, k := range slices.Sorted(maps.Keys(b.grant.Scope)) {
				labels = append(labels, k+"="+b.grant.Scope[k])
			}
			scope = "what has " + strings.Join(labels, ", ")
		}
		for _, sel := range b.subjects {
			k := roleKey{SelectorText(sel), b.grant.Role}
			out[k] = append(out[k], scope)
		}
	}
	return out
}

func (s *Snapshot) lockTerms(now time.Time) map[string][]string {
	out := map[string][]string{}
	for t, locks := range s.locks {
		for _, l := range locks {
			if !Stands(l, now) {
				continue
			}
			text := l.GetSpec().GetReason()
			if e := l.GetSpec().GetExpires(); e != nil {
				text += ", until " + e.AsTime().UTC().Format(time.RFC3339)
			}
			out[t.kind+" "+t.name] = append(out[t.kind+" "+t.name], text)
		}
	}
	return out
}

// compareMaps lists what is in one map alone, or differs.
func compareMaps[K comparable](before, after map[K][]string, as func(K) Change) []Change {
	var out []Change
	for k, b := range before {
		a, there := after[k]
		c := as(k)
		if c.Before, c.After = ways(b), ways(a); !there {
			c.Effect = Denied
		} else if c.Effect = Changed; slices.Equal(c.Before, c.After) {
			continue
		}
		out = append(out, c)
	}
	for k, a := range after {
		if _, there := before[k]; !there {
			c := as(k)
			c.Effect, c.After = Allowed, ways(a)
			out = append(out, c)
		}
	}
	return out
}

func ways(all []string) []string { return slices.Compact(slices.Sorted(slices.Values(all))) }

// joinColumns sorts, and makes one change of those that differ in the column alone.
func joinColumns(all []Change) []Change {
	order := func(a, b Change) int {
		return cmp.Or(
			cmp.Compare(a.Who, b.Who), cmp.Compare(a.Task, b.Task), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Verb, b.Verb), cmp.Compare(a.On, b.On),
			cmp.Compare(a.Effect, b.Effect), slices.Compare(a.Before, b.Before), slices.Compare(a.After, b.After),
		)
	}
	slices.SortFunc(all, func(a, b Change) int { return cmp.Or(order(a, b), slices.Compare(a.Columns, b.Columns)) })
	var out []Change
	for _, c := range all {
		if n := len(out); n > 0 && len(c.Columns) > 0 && len(out[n-1].Columns) > 0 && order(out[n-1], c) == 0 {
			out[n-1].Columns = append(out[n-1].Columns, c.Columns...)
			continue
		}
		out = append(out, c)
	}
	return out
}
