package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

// TestNextIsCompile changes a policy in random ways, one after the other. Whatever a
// snapshot takes over from the one before, it must say what one that was compiled from
// nothing says.
func TestNextIsCompile(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	all := worldObjects(t)
	now := slices.Clone(all)
	chain := &Snapshot{}
	shared, rejections := 0, 0
	for round := range 400 {
		now = changed(r, all, now)
		v := postern.Version{Epoch: "e1", Revision: int64(round + 1)}
		var got, want []Rejection
		before := chain
		chain, got = chain.Next(v, now)
		fresh, want := Compile(v, now)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("round %d rejects\n%v\nwant\n%v", round, got, want)
		}
		if a, b := said(chain), said(fresh); !reflect.DeepEqual(a, b) {
			t.Fatalf("round %d says\n%v\nwant\n%v", round, a, b)
		}
		if chain.SameRules(before) {
			t.Fatalf("round %d: a snapshot after a change is the same as before it", round)
		}
		for o, p := range chain.parts {
			if before.parts[o] == p {
				shared++
			}
		}
		rejections += len(got)
	}
	if shared == 0 || rejections == 0 {
		t.Errorf("%d parts were taken over and %d rejected: the test shows nothing", shared, rejections)
	}
}

// changed is now with one object put, replaced or removed.
func changed(r *rand.Rand, all, now []*typesv1.Object) []*typesv1.Object {
	o := all[r.IntN(len(all))]
	out := slices.DeleteFunc(slices.Clone(now), func(have *typesv1.Object) bool { return object.Ref(have) == object.Ref(o) })
	if r.IntN(3) == 0 && len(out) < len(now) {
		return out
	}
	c := proto.CloneOf(o)
	switch k := c.GetKind().(type) {
	case *typesv1.Object_Mask:
		k.Mask.Spec.Method = []string{"null", "redact", "nonsense", k.Mask.GetSpec().GetMethod()}[r.IntN(4)]
	case *typesv1.Object_Resource:
		k.Resource.Spec.Level = []*typesv1.Level{{Want: "result"}, {Want: "native", Admin: &typesv1.CredentialRef{Sealed: "admin"}}, nil}[r.IntN(3)]
	case *typesv1.Object_Task:
		k.Task.Spec.Purpose = fmt.Sprint(r.IntN(100))
	case *typesv1.Object_ApprovalRule:
		if r.IntN(2) == 0 {
			k.ApprovalRule.Spec = &typesv1.ApprovalRuleSpec{}
		}
	default:
	}
	return append(out, c)
}

// said is all of a snapshot that can be told apart without asking it.
func said(s *Snapshot) map[string]any {
	out := map[string]any{
		"resources": slices.Sorted(maps.Keys(s.resources)), "rules": s.rules, "bindings": len(s.bindings), "roles": len(s.roles),
		"workloads": s.workloads, "locks": s.locks,
	}
	for name, t := range s.tasks {
		at := "task/" + string(name) + " "
		out[at+"terms"] = t.terms
		for n, r := range t.reach {
			out[at+"reaches "+string(n)] = []any{r.object, r.level, s.resources[n] == r}
		}
		for n, w := range t.walls {
			out[at+"wall of "+string(n)] = w.Wall
		}
		for table, permits := range t.tables {
			for _, p := range permits.all() {
				out[fmt.Sprint(at, table, p.index)] = []any{p.masks, p.view}
			}
		}
	}
	return out
}

// BenchmarkNext is one changed task among many, with what a whole compilation costs.
func BenchmarkNext(b *testing.B) {
	objects := worldObjects(b)
	var task *typesv1.Object
	for _, o := range objects {
		if object.Ref(o) == "task/sales-report" {
			task = o
		}
	}
	for i := range 1000 {
		c := proto.CloneOf(task)
		c.GetTask().GetMetadata().Name = fmt.Sprintf("task-%d", i)
		objects = append(objects, c)
	}
	b.Run("whole", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Compile(version, objects)
		}
	})
	b.Run("next", func(b *testing.B) {
		b.ReportAllocs()
		s, _ := Compile(version, objects)
		for b.Loop() {
			objects[len(objects)-1] = proto.CloneOf(objects[len(objects)-1])
			s, _ = s.Next(version, objects)
		}
	})
}
