package drivers

import (
	"context"
	"crypto/tls"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/test/e2e/house"
)

// directly: a token over a connection that begins with TLS, as PostgreSQL 17 has it: all
// that the driver does otherwise, cancelling too, and nothing without the protocol's name
// in the handshake.
func (s *shop) directly(t *testing.T) {
	d := &shop{House: s.House, direct: true}
	compare(t, d.pgx(t, pgx.QueryExecModeCacheStatement), facts{"pipeline": "210", "pipeline.refused": "42501", "changed.error": "0A000"})

	conn := d.connect(t, "sales-report.warehouse", pgx.QueryExecModeCacheStatement)
	secured, ok := conn.PgConn().Conn().(*tls.Conn)
	if !ok || secured.ConnectionState().NegotiatedProtocol != "postgresql" {
		t.Errorf("the connection is a %T", conn.PgConn().Conn())
	}

	wrong := d.config(t, "sales-report.warehouse", s.CAFile)
	wrong.Password += "x"
	if _, err := pgx.ConnectConfig(t.Context(), wrong); house.State(err) != "28P01" {
		t.Errorf("a token that is none: %v", err)
	}
	for _, names := range [][]string{nil, {"h2"}} {
		c := d.config(t, "sales-report.warehouse", s.CAFile)
		if !slices.Equal(c.TLSConfig.NextProtos, []string{"postgresql"}) {
			t.Fatalf("the driver names %v", c.TLSConfig.NextProtos)
		}
		c.TLSConfig.NextProtos = names
		if conn, err := pgx.ConnectConfig(t.Context(), c); err == nil {
			_ = conn.Close(context.Background())
			t.Errorf("TLS at once for %v was let in", names)
		}
	}
}
