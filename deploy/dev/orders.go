package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/posterngate/postern/deploy/dev/orders"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/test/servers"
)

// ordersAPI is the sample service, as the world's files speak of it.
type ordersAPI struct {
	key string
	ca  []byte
}

// startOrders starts the sample service over the warehouse. Its key is kept.
func (h *house) startOrders(ctx context.Context) error {
	dir := filepath.Join(h.dir, "orders")
	cert, ca, err := servers.Certificate(dir, "orders-api")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "key")
	key, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key = []byte(randomPassword())
		err = os.WriteFile(file, key, 0o600)
	}
	if err != nil {
		return err
	}
	h.orders = &ordersAPI{key: string(key), ca: ca}
	api, err := orders.New(ctx, h.warehouse.pg.SuperDSN("warehouse"), h.orders.key)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", h.ports.Orders))
	if err != nil {
		return err
	}
	h.group.Go("orders-api", func(ctx context.Context) error { return api.Serve(ctx, ln, cert) })
	return nil
}

// ordersSecret is the key that the service asks for.
func (h *house) ordersSecret() *typesv1.Object {
	o := object.Bare("secret", "orders-api")
	o.GetSecret().Spec = &typesv1.SecretSpec{Data: map[string]string{"value": h.orders.key}}
	return o
}

func (h *house) expandOrders(text string) string {
	return strings.NewReplacer("${ORDERS_PORT}", fmt.Sprint(h.ports.Orders), "${ORDERS_CA}", strings.ReplaceAll(string(h.orders.ca), "\n", `\n`)).Replace(text)
}
