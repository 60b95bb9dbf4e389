package authority

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
)

// record is a key as the store has it.
type record struct {
	Created     time.Time
	Signs       time.Time // from when on it signs; it is trusted before that
	Certificate []byte    `json:",omitempty"` // DER, of the CA
	Sealed      []byte    // PKCS #8, sealed to the key's own name

	private crypto.PrivateKey
}

func aad(k store.Key) []byte { return []byte("postern/key/v1\x00" + k.Name) }

func (a *Authority) read(ctx context.Context, k store.Key) (record, error) {
	e, err := a.cfg.Store.Get(ctx, k)
	if err != nil {
		return record{}, err
	}
	return a.decode(ctx, e)
}

func (a *Authority) decode(ctx context.Context, e store.Entry) (record, error) {
	var rec record
	if err := json.Unmarshal(e.Value, &rec); err != nil {
		return record{}, fmt.Errorf("%s: %w", e.Key, err)
	}
	der, err := a.cfg.Keeper.Open(ctx, rec.Sealed, aad(e.Key))
	if err != nil {
		return record{}, fmt.Errorf("unseal %s: %w", e.Key, err)
	}
	defer clear(der)
	if rec.private, err = x509.ParsePKCS8PrivateKey(der); err != nil {
		return record{}, fmt.Errorf("%s: %w", e.Key, err)
	}
	return rec, nil
}

// write stores a key that must not exist yet; e says who made it, and how that is called.
func (a *Authority) write(ctx context.Context, k store.Key, rec record, e audit.Entry) error {
	der, err := x509.MarshalPKCS8PrivateKey(rec.private)
	if err != nil {
		return err
	}
	defer clear(der)
	if rec.Sealed, err = a.cfg.Keeper.Seal(ctx, der, aad(k)); err != nil {
		return fmt.Errorf("seal %s: %w", k, err)
	}
	value, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	e.Object, e.Outcome = k.String(), "ok"
	_, err = a.cfg.Audit.Commit(ctx, e, store.Op{Key: k, Value: value, If: 0})
	return err
}
