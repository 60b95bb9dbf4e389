package task

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/posterngate/postern/controlplane/audit"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
)

// EndOf ends every grant of the subject or workload on whom a lock stands, active or asked
// for, and those in which they act for somebody else; tokens and certificates die with
// their grant. A person who has a workload's name is not meant by its lock. It returns all
// that this lock has ended, by this call or before, newest first, and the revision in which
// they are. Who may do so was decided with the lock.
func (s *Service) EndOf(ctx context.Context, by Caller, lock *typesv1.Lock, why string) ([]*typesv1.Grant, int64, error) {
	all, err := s.legible(ctx)
	if err != nil {
		return nil, 0, err
	}
	mark := fmt.Sprintf("(lock %s)", lock.GetMetadata().GetName())
	spec := lock.GetSpec()
	meant := cmp.Or(spec.GetSubject(), spec.GetWorkload())
	entry := audit.Entry{Actor: by.Subject.Name, Address: by.Address}
	var ended []*typesv1.Grant
	var last int64
	var errs []error
	for _, g := range all {
		own := g.GetSubject().GetName() // a workload's is its own name
		if spec.GetSubject() == "" {
			own = g.GetSubject().GetWorkload()
		}
		if !slices.ContainsFunc(append(noun.SubjectOf(g.GetSubject()).Actors(), own), func(name string) bool { return strings.EqualFold(name, meant) }) {
			continue
		}
		if err := s.end(ctx, g.GetId(), entry, why+" "+mark); err != nil {
			errs = append(errs, err)
			continue
		}
		g, revision, err := s.load(ctx, g.GetId())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !strings.HasSuffix(g.GetEndReason(), mark) {
			continue // it was over before
		}
		s.dropHolds(ctx, g, by.Subject.Name) // again, where this lock had ended it before
		ended, last = append(ended, show(g)), max(last, revision)
	}
	newestFirst(ended)
	return ended, last, errors.Join(errs...)
}
