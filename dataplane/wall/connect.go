package wall

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/dataplane/engine"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

const connectTimeout = 10 * time.Second

// settings of the wall's own sessions. Names mean the built-in ones or say their schema.
var settings = map[string]string{
	"application_name": "postern-wall", "search_path": "pg_catalog", "client_encoding": "UTF8", "standard_conforming_strings": "on",
	"lock_timeout": "2s", "statement_timeout": "30s", "idle_in_transaction_session_timeout": "60s",
}

// connect logs in to a resource with its admin credential.
func connect(ctx context.Context, r *typesv1.Resource, cred *engine.Credential) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	ep := r.GetSpec().GetEndpoint()
	// Everything that could come from the environment is overwritten below.
	cfg, err := pgx.ParseConfig("host=" + net.IPv4zero.String() + " sslmode=disable connect_timeout=10")
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	cfg.Host, cfg.Port, cfg.Database = ep.GetHost(), uint16(ep.GetPort()), ep.GetDatabase() //nolint:gosec // checked by policy
	cfg.User, cfg.Password = cred.Account, string(cred.Password.Reveal())
	cfg.Fallbacks, cfg.RuntimeParams = nil, settings
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.StatementCacheCapacity, cfg.DescriptionCacheCapacity = 0, 0
	if cfg.TLSConfig, err = tlsConfig(ep, cred); err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("log in to %s: %w", net.JoinHostPort(ep.GetHost(), strconv.Itoa(int(ep.GetPort()))), err)
	}
	return conn, nil
}

// tlsConfig is nil for mode disable, which policy allows for loopback alone.
func tlsConfig(ep *typesv1.Endpoint, cred *engine.Credential) (*tls.Config, error) {
	t := ep.GetTls()
	if t.GetMode() == "disable" {
		return nil, nil
	}
	c, err := engine.TLSTerms{
		Mode: cmp.Or(t.GetMode(), "verify-full"), CA: []byte(t.GetCa().GetPem()), ServerName: cmp.Or(t.GetServerName(), ep.GetHost()),
	}.Client()
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if len(cred.Certificate) > 0 {
		pair, err := tls.X509KeyPair(cred.Certificate, cred.PrivateKey.Reveal())
		if err != nil {
			return nil, errors.New("connect: the admin credential's certificate and key do not fit") // the cause may quote them
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
