package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

func TestWarnings(t *testing.T) {
	now := time.Now()
	workload := func(name, owner string, ends time.Duration) *typesv1.Object {
		o := object.Bare("workload", name)
		o.GetWorkload().Spec = &typesv1.WorkloadSpec{Owner: owner, Expires: timestamppb.New(now.Add(ends))}
		return o
	}
	lock := func(subject string, ends time.Duration) *typesv1.Object {
		o := object.Bare("lock", "lock-"+subject)
		o.GetLock().Spec = &typesv1.LockSpec{Subject: subject}
		if ends != 0 {
			o.GetLock().Spec.Expires = timestamppb.New(now.Add(ends))
		}
		return o
	}
	got := warnings([]*typesv1.Object{
		workload("well", "bob", 8*24*time.Hour), workload("ends", "bob", 6*24*time.Hour), workload("over", "bob", -time.Second),
		workload("orphan", "carol", time.Hour*24*365), workload("once", "dave", time.Hour*24*365),
	}, []*typesv1.Object{lock("carol", 0), lock("dave", -time.Second)}, now)
	want := []string{"workload ends: it ends at ", "workload over: it is over since ", "workload orphan: its owner carol is locked by lock-carol"}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("got %q", got)
	}
}
