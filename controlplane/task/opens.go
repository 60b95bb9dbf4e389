package task

import (
	"context"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/postern"
)

// Opens is the grant that a grant token opens, and why that is of no use now; empty where
// it is of use. NotFound is the code of the error for a token that is not on file.
func (s *Service) Opens(ctx context.Context, token string) (g *typesv1.Grant, why string, err error) {
	id, err := parseToken(token)
	if err != nil {
		return nil, "", fault.Wrap(err, codes.NotFound, "this is no grant token that was ever made")
	}
	g, _, err = s.load(ctx, id)
	if fault.CodeOf(err) == codes.NotFound || err == nil && !fits(byToken.hash(g), []byte(token)) {
		return nil, "", fault.New(codes.NotFound, "this grant token is not on file: another has replaced it, or its grant ended more than a week ago")
	}
	if err != nil {
		return nil, "", err
	}
	why, err = s.standing(ctx, g, nil)
	return show(g), why, err
}

// Standing is a grant by its id, why it is of no use now, and what opens it: a token, a
// certificate, or nothing that it has on file.
func (s *Service) Standing(ctx context.Context, id string) (g *typesv1.Grant, why, opener string, err error) {
	if g, _, err = s.load(ctx, id); err != nil {
		return nil, "", "", err
	}
	switch {
	case len(g.GetTokenHash()) > 0:
		opener = byToken.name
	case len(g.GetCertificateHash()) > 0:
		opener = byCertificate.name
	}
	why, err = s.standing(ctx, g, nil)
	return show(g), why, opener, err
}

// Held are the grants that a token of the subject uses at listeners as they are: it takes
// no new one for their tasks while they live.
func (s *Service) Held(ctx context.Context, sub postern.Subject) ([]*typesv1.Grant, error) {
	snapshot, err := s.policy()
	if err != nil {
		return nil, err
	}
	all, err := s.legible(ctx)
	if err != nil {
		return nil, err
	}
	var out []*typesv1.Grant
	for _, g := range all {
		if !Live(g, s.cfg.Now()) || !sameWho(noun.SubjectOf(g.GetSubject()), sub) {
			continue
		}
		taken, _, err := s.pointed(ctx, pointer(takenKind, snapshot, sub, postern.TaskName(g.GetTask())), sub, postern.TaskName(g.GetTask()))
		if err != nil {
			return nil, err
		}
		if taken.GetId() != g.GetId() {
			continue
		}
		why, err := s.standing(ctx, g, &sub)
		if err != nil {
			return nil, err
		}
		if why == "" {
			out = append(out, show(g))
		}
	}
	newestFirst(out)
	return out, nil
}
