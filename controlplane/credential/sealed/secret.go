package sealed

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/secret"
)

// Bounds of one Secret object.
const (
	MaxKeys      = 64
	MaxDataBytes = 32 << 10 // of keys and values together
)

func secretAAD(name string) []byte { return []byte("secret/" + name) }

// SealSecret moves the object's data into its sealed form, before it is stored. The
// object's name must be set, for the value opens under no other. Without data it does
// nothing; too much of it is a fault.Error.
func SealSecret(ctx context.Context, k Keeper, s *typesv1.Secret) error {
	data := s.GetSpec().GetData()
	if len(data) == 0 {
		return nil
	}
	size := 0
	for key, value := range data {
		size += len(key) + len(value)
	}
	if len(data) > MaxKeys || size > MaxDataBytes {
		return fault.Invalid(fault.Violation{Field: "spec.data", Reason: fmt.Sprintf("more than %d keys or %d bytes", MaxKeys, MaxDataBytes)})
	}
	plain, err := proto.MarshalOptions{Deterministic: true}.Marshal(&typesv1.SecretSpec{Data: data})
	if err != nil {
		return fmt.Errorf("seal secret %q: not text", s.GetMetadata().GetName())
	}
	defer clear(plain)
	sealed, err := k.Seal(ctx, plain, secretAAD(s.GetMetadata().GetName()))
	if err != nil {
		return fmt.Errorf("seal secret %q: %w", s.GetMetadata().GetName(), err)
	}
	s.Spec.Data, s.Spec.Sealed = nil, sealed
	return nil
}

// OpenSecret returns the values of a sealed object. The caller wipes them.
func OpenSecret(ctx context.Context, k Keeper, s *typesv1.Secret) (map[string]secret.Bytes, error) {
	name := s.GetMetadata().GetName()
	plain, err := k.Open(ctx, s.GetSpec().GetSealed(), secretAAD(name))
	if err != nil {
		return nil, fmt.Errorf("open secret %q: %w", name, err)
	}
	defer clear(plain)
	var spec typesv1.SecretSpec
	if err := proto.Unmarshal(plain, &spec); err != nil {
		return nil, fmt.Errorf("open secret %q: it is damaged", name)
	}
	values := make(map[string]secret.Bytes, len(spec.GetData()))
	for key, value := range spec.GetData() {
		values[key] = secret.FromString(value)
	}
	return values, nil
}
