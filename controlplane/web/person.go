package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// personKind tells who has signed in lately, and with which groups: a
	// typesv1.WebSession by a hash of the name.
	personKind = "person"
	// personTime is for how long somebody is known by a sign-in where they answer without
	// one, in a chat: their groups are as old as that.
	personTime = 12 * time.Hour
)

func personKey(name string) store.Key {
	sum := sha256.Sum256([]byte(name))
	return store.Key{Kind: personKind, Name: hex.EncodeToString(sum[:])}
}

// Person is who has signed in on the pages lately: by name, or by e-mail address where
// that is one person's alone. Who is locked is refused, as at the pages.
func (p *Pages) Person(ctx context.Context, name, email string) (postern.Subject, error) {
	all, _, err := p.cfg.Store.List(ctx, personKind, "", 0)
	if err != nil {
		return postern.Subject{}, fault.Wrap(err, codes.Unavailable, "the control plane has lost its store; try again")
	}
	var found []postern.Subject
	for _, e := range all {
		w := &typesv1.WebSession{}
		if err := proto.Unmarshal(e.Value, w); err != nil {
			return postern.Subject{}, fmt.Errorf("read %s: %w", e.Key, err)
		}
		sub := subjectOf(w)
		if !p.cfg.Now().Before(w.GetExpireTime().AsTime()) || sub.Name == "" {
			continue
		}
		if name != "" && sub.Name == name || name == "" && email != "" && strings.EqualFold(sub.Email, email) {
			found = append(found, sub)
		}
	}
	switch len(found) {
	case 0:
		return postern.Subject{}, fault.New(codes.Unauthenticated, "you have not signed in within %s, and so your groups are not known: %s", personTime, p.cfg.URL+loginPath)
	case 1:
		return found[0], p.welcome(found[0])
	}
	return postern.Subject{}, fault.New(codes.PermissionDenied, "several people have your e-mail address")
}
