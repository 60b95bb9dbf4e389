package account

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/credential/sealed"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

const secretKind = "secret"

// Vault keeps passwords that stand: in KV, where they are read and written with the
// version that was read, and as static roles, whose passwords it makes itself.
type Vault interface {
	Read(ctx context.Context, ref *typesv1.VaultRef) (values map[string]string, version int, err error)
	Write(ctx context.Context, ref *typesv1.VaultRef, values map[string]string, version int) (int, error)
	Static(ctx context.Context, ref *typesv1.VaultRef) (account string, err error)
	Rotate(ctx context.Context, ref *typesv1.VaultRef) error
}

// static is an account whose password stands, and where that is kept.
type static struct {
	name      string // where it is kept, as people name it
	ref       *typesv1.CredentialRef
	account   string
	resources []postern.ResourceName
	values    map[string]string // of a Secret or of KV

	entry   store.Entry     // of a Secret
	stored  *typesv1.Object // the Secret
	version int             // of KV
}

// object is what the audit log says was changed.
func (one *static) object() string {
	if one.ref.GetVault() != nil {
		return "vault/" + one.name
	}
	return secretKind + "/" + one.name
}

// placeOf names where the password of a reference is kept; empty where none stands.
func placeOf(ref *typesv1.CredentialRef) string {
	v := ref.GetVault()
	switch {
	case ref.GetSealed() != "":
		return ref.GetSealed()
	case v.GetPath() != "":
		return v.GetMount() + "/" + v.GetPath()
	case v.GetStaticRole() != "":
		return v.GetMount() + "/" + v.GetStaticRole()
	}
	return ""
}

// find is the login that a name means: by its place, its account, or the one resource that
// logs in with it.
func (s *Service) find(ctx context.Context, name string) (*static, error) {
	all := s.statics()
	one := all[name]
	if one == nil {
		meant, err := s.search(ctx, all, name)
		if err != nil {
			return nil, err
		}
		one = meant
	}
	if err := s.read(ctx, one); err != nil {
		return nil, err
	}
	if one.account == "" || one.ref.GetVault().GetStaticRole() == "" && one.values["password"] == "" {
		return nil, fault.New(codes.FailedPrecondition, "%q is no username with a password", one.name)
	}
	return one, nil
}

// statics are the logins of resources whose passwords stand, by their place; they are not
// read yet.
func (s *Service) statics() map[string]*static {
	all := map[string]*static{}
	snap := s.cfg.Snapshot()
	for _, r := range snap.Resources() {
		res, _ := snap.Resource(r)
		for _, ref := range refs(res) {
			place := placeOf(ref)
			if place == "" {
				continue
			}
			if all[place] == nil {
				all[place] = &static{name: place, ref: ref}
			}
			if one := all[place]; !slices.Contains(one.resources, r) {
				one.resources = append(one.resources, r) // in order, as Resources is
			}
		}
	}
	return all
}

// search looks for a name among accounts and resources. A place that cannot be read is no
// reason not to find another.
func (s *Service) search(ctx context.Context, all map[string]*static, name string) (*static, error) {
	var meant []string
	var unread error
	res, _ := s.cfg.Snapshot().Resource(postern.ResourceName(name))
	for place, one := range all {
		if placeOf(res.GetSpec().GetCredential()) == place {
			meant = append(meant, place)
			continue
		}
		account, err := s.accountOf(ctx, one.ref)
		if err != nil {
			unread = errors.Join(unread, err)
		} else if account == name {
			meant = append(meant, place)
		}
	}
	slices.Sort(meant)
	switch {
	case len(meant) == 1:
		return all[meant[0]], nil
	case len(meant) > 1:
		return nil, fault.New(codes.FailedPrecondition, "%.60q may be one of %v: name the one that is meant", name, meant)
	case unread != nil:
		return nil, fault.Wrap(unread, fault.CodeOf(unread), "no login of a resource could be found that is %.60q: %s", name, fault.From(unread).Reason)
	}
	return nil, fault.New(codes.NotFound, "no secret %.60q is the login of a resource; an account that a source makes for each session needs no rotation", name)
}

// accountOf is the account of a reference; empty where it is none, or not there.
func (s *Service) accountOf(ctx context.Context, ref *typesv1.CredentialRef) (string, error) {
	one := &static{name: placeOf(ref), ref: ref}
	err := s.read(ctx, one)
	if fault.CodeOf(err) == codes.NotFound {
		return "", nil
	}
	return one.account, err
}

// read opens the place.
func (s *Service) read(ctx context.Context, one *static) (err error) {
	v := one.ref.GetVault()
	switch {
	case v == nil:
		return s.open(ctx, one)
	case s.cfg.Vault == nil:
		return fault.New(codes.FailedPrecondition, "this control plane has no Vault, where %s is", one.name)
	case v.GetStaticRole() != "":
		one.account, err = s.cfg.Vault.Static(ctx, v)
		return err
	}
	one.values, one.version, err = s.cfg.Vault.Read(ctx, v)
	one.account = one.values["username"]
	return err
}

// open reads a Secret.
func (s *Service) open(ctx context.Context, one *static) error {
	e, err := s.cfg.Store.Get(ctx, store.Key{Kind: secretKind, Name: one.name})
	if errors.Is(err, store.ErrNotFound) {
		return fault.New(codes.NotFound, "there is no secret %q", one.name)
	}
	if err != nil {
		return fmt.Errorf("read secret %q: %w", one.name, err)
	}
	o, err := store.DecodeObject(e)
	if err != nil {
		return err
	}
	opened, err := sealed.OpenSecret(ctx, s.cfg.Keeper, o.GetSecret())
	if err != nil {
		return err
	}
	one.entry, one.stored, one.values = e, o, map[string]string{}
	for k, v := range opened {
		one.values[k] = string(v.Reveal())
		v.Wipe()
	}
	one.account = one.values["username"]
	return nil
}

// save stores the values where they were, if nobody else has changed them since they were
// read, and with them the audit entry, where there is one.
func (s *Service) save(ctx context.Context, one *static, entry *audit.Entry) (err error) {
	if v := one.ref.GetVault(); v != nil {
		if one.version, err = s.cfg.Vault.Write(ctx, v, one.values, one.version); err == nil && entry != nil {
			err = s.cfg.Audit.Append(ctx, *entry)
		}
		return err
	}
	if entry != nil {
		object.Meta(one.stored).UpdateTime = timestamppb.New(s.cfg.Now())
	}
	sec := one.stored.GetSecret()
	sec.Spec = &typesv1.SecretSpec{Data: one.values}
	if err := sealed.SealSecret(ctx, s.cfg.Keeper, sec); err != nil {
		return err
	}
	k, value, err := store.EncodeObject(one.stored)
	if err != nil {
		return err
	}
	op := store.Op{Key: k, Value: value, If: one.entry.Revision}
	if entry != nil {
		one.entry.Revision, err = s.cfg.Audit.Commit(ctx, *entry, op)
	} else {
		one.entry.Revision, err = s.cfg.Store.Commit(ctx, op)
	}
	if store.IsConflict(err) {
		return fault.Wrap(err, codes.Aborted, "somebody changed the secret in this moment; rotate it again")
	}
	return err
}
