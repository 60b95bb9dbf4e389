package house

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posterngate/postern/deploy/dev/orders"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/test/servers"
)

const ordersWorld = "60-orders.yaml"

// OrdersAPI is the sample company's HTTP service.
type OrdersAPI struct {
	Key  string // that it asks for
	Port int
	CA   []byte // PEM
}

// startOrders starts the sample service over the target, which must be there.
func (h *House) startOrders(t testing.TB) {
	t.Helper()
	cert, ca, err := servers.Certificate(filepath.Join(h.Dir, "orders"), "orders-api")
	if err != nil {
		t.Fatal(err)
	}
	o := &OrdersAPI{Key: "sk_orders_" + rand.Text(), CA: ca}
	api := Must(orders.New(context.Background(), h.PG.SuperDSN("warehouse"), o.Key))(t)
	ln := Must(net.Listen("tcp", "127.0.0.1:0"))(t)
	o.Port = ln.Addr().(*net.TCPAddr).Port
	h.part(t, "orders-api", func(ctx context.Context) error { return api.Serve(ctx, ln, cert) })
	h.Orders = o
}

// ordersObjects are the sample company's service, as ada applies it.
func (h *House) ordersObjects(t testing.TB, yaml string) []*typesv1.Object {
	key := object.Bare("secret", "orders-api")
	key.GetSecret().Spec = &typesv1.SecretSpec{Data: map[string]string{"value": h.Orders.Key}}
	return append([]*typesv1.Object{key}, h.Objects(t, yaml)...)
}

// expandOrders fills in what is only known now.
func (h *House) expandOrders(text string) string {
	if h.Orders == nil {
		return text
	}
	return strings.NewReplacer("${ORDERS_PORT}", fmt.Sprint(h.Orders.Port), "${ORDERS_CA}", strings.ReplaceAll(string(h.Orders.CA), "\n", `\n`)).Replace(text)
}
