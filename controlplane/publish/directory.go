package publish

import (
	"context"
	"errors"
	"fmt"

	"github.com/posterngate/postern/controlplane/store"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// A Directory finds enrolled nodes, from the replica where that will do. It is safe for
// concurrent use.
type Directory struct {
	Cache interface {
		Get(k store.Key) (store.Entry, bool)
	}
	Store store.Store
}

// Node is the Node object of a name. Where the replica does not know the node with this
// serial, the store is asked: the node may have registered or renewed just now. It is
// nil where no such node is enrolled.
func (d Directory) Node(ctx context.Context, name postern.NodeName, serial string) (*typesv1.Node, error) {
	key := store.Key{Kind: kindNode, Name: string(name)}
	if e, ok := d.Cache.Get(key); ok {
		if n, err := decodeNode(e); err == nil && n.GetSpec().GetSerial() == serial {
			return n, nil
		}
	}
	e, err := d.Store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read node %s: %w", name, err)
	}
	return decodeNode(e)
}

func decodeNode(e store.Entry) (*typesv1.Node, error) {
	o, err := store.DecodeObject(e)
	if err != nil {
		return nil, err
	}
	return o.GetNode(), nil
}
