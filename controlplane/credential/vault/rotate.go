package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"

	"github.com/hashicorp/vault/api"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// Read reads a KV secret with this process's own token, and its version, for Write.
func (s *Source) Read(ctx context.Context, ref *typesv1.VaultRef) (values map[string]string, version int, err error) {
	path, err := place(ref, kv)
	if err != nil {
		return nil, 0, err
	}
	var got *api.KVSecret
	err = s.do(ctx, func(own *api.Client) error {
		got, err = own.KVv2(ref.GetMount()).Get(ctx, ref.GetPath())
		return err
	})
	if err != nil || got == nil || got.VersionMetadata == nil {
		return nil, 0, forbidden(fmt.Errorf("read %s: %w", path, orMissing(err)), path, `"read", "create", "update"`)
	}
	values = make(map[string]string, len(got.Data))
	for k, v := range got.Data {
		text, ok := v.(string)
		if !ok {
			return nil, 0, fmt.Errorf("read %s: %q is no text", path, k)
		}
		values[k] = text
	}
	return values, got.VersionMetadata.Version, nil
}

// Write writes a KV secret, where it is still the version that was read, and returns the
// version that it is now. The error's code is Aborted where somebody else was first.
func (s *Source) Write(ctx context.Context, ref *typesv1.VaultRef, values map[string]string, version int) (int, error) {
	path, err := place(ref, kv)
	if err != nil {
		return 0, err
	}
	data := make(map[string]any, len(values))
	for k, v := range maps.All(values) {
		data[k] = v
	}
	var made *api.KVSecret
	err = s.do(ctx, func(own *api.Client) error {
		made, err = own.KVv2(ref.GetMount()).Put(ctx, ref.GetPath(), data, api.WithCheckAndSet(version))
		return err
	})
	var r *api.ResponseError
	switch {
	case errors.As(err, &r) && r.StatusCode == http.StatusBadRequest:
		return 0, fault.Wrap(err, codes.Aborted, "somebody changed %s in this moment; try again", path)
	case err != nil || made == nil || made.VersionMetadata == nil:
		return 0, forbidden(fmt.Errorf("write %s: %w", path, orMissing(err)), path, `"read", "create", "update"`)
	}
	return made.VersionMetadata.Version, nil
}

// Static is the account of a static role.
func (s *Source) Static(ctx context.Context, ref *typesv1.VaultRef) (account string, err error) {
	if _, err := place(ref, static); err != nil {
		return "", err
	}
	path := ref.GetMount() + "/static-roles/" + ref.GetStaticRole()
	var got *api.Secret
	err = s.do(ctx, func(own *api.Client) error {
		got, err = own.Logical().ReadWithContext(ctx, path)
		return err
	})
	if err == nil && got != nil {
		account, _ = got.Data["username"].(string)
	}
	if account == "" {
		return "", forbidden(fmt.Errorf("read %s: %w", path, orMissing(err)), path, `"read"`)
	}
	return account, nil
}

// Rotate has Vault give the user of a static role a new password, at once.
func (s *Source) Rotate(ctx context.Context, ref *typesv1.VaultRef) error {
	if _, err := place(ref, static); err != nil {
		return err
	}
	path := ref.GetMount() + "/rotate-role/" + ref.GetStaticRole()
	err := s.do(ctx, func(own *api.Client) error {
		_, err := own.Logical().WriteWithContext(ctx, path, map[string]any{})
		return err
	})
	if err != nil {
		return forbidden(fmt.Errorf("rotate %s: %w", path, err), path, `"create", "update"`)
	}
	return nil
}

// place is where a reference of an engine points to.
func place(ref *typesv1.VaultRef, want engine) (string, error) {
	path, is, err := locate(ref)
	if err == nil && is != want {
		err = fmt.Errorf("%s is of another kind", path)
	}
	return path, err
}

func orMissing(err error) error {
	if err == nil {
		return errors.New("there is nothing")
	}
	return err
}

// forbidden says which right the control plane's own login lacks, where that is it.
func forbidden(err error, path, rights string) error {
	if !refused(err) {
		return err
	}
	return fault.Wrap(err, codes.FailedPrecondition, "Vault does not let the control plane's own login do that").
		WithHint(fmt.Sprintf("give its policy: path %q { capabilities = [%s] }", path, rights))
}
