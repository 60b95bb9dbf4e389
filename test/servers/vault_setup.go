package servers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// VaultTokenRole is the token role that SetUpLeases makes.
const VaultTokenRole = "postern"

// VaultPolicy is the policy of the control plane's own login that SetUpLeases writes.
const VaultPolicy = "postern"

// SetUpLeases prepares Vault for Postern: the token role through which each lease gets
// a child token that may read the paths, and the policy of the control plane's own
// login. It returns a token of that policy, renewable for ever every 30 minutes.
func (v *VaultServer) SetUpLeases(ctx context.Context, paths ...string) (token string, err error) {
	var lease strings.Builder
	for _, p := range paths {
		may := "read"
		if strings.Contains(p, "/sign/") {
			may = "update"
		}
		fmt.Fprintf(&lease, "path %q { capabilities = [%q] }\n", p, may)
	}
	var own strings.Builder
	for _, p := range [][2]string{
		{"auth/token/create/" + VaultTokenRole, `"create", "update"`},
		{"auth/token/revoke-accessor", `"update"`},
		{"auth/token/lookup-self", `"read"`},
		{"auth/token/renew-self", `"update"`},
		{"sys/leases/renew", `"update"`},
		{"sys/leases/revoke", `"update"`},
	} {
		fmt.Fprintf(&own, "path %q { capabilities = [%s] }\n", p[0], p[1])
	}
	err = v.all(ctx,
		call{"sys/policies/acl/postern-lease", map[string]any{"policy": lease.String()}},
		call{"sys/policies/acl/" + VaultPolicy, map[string]any{"policy": own.String()}},
		call{"auth/token/roles/" + VaultTokenRole, map[string]any{
			"allowed_policies": "postern-lease", "orphan": true, "token_type": "service",
			"token_no_default_policy": true, "renewable": false,
		}})
	if err != nil {
		return "", err
	}
	out, err := v.Do(ctx, http.MethodPost, "auth/token/create-orphan", map[string]any{
		"policies": []string{VaultPolicy}, "no_default_policy": true, "period": "30m", "display_name": "postern-control",
	})
	if err != nil {
		return "", err
	}
	auth, _ := out["auth"].(map[string]any)
	token, _ = auth["client_token"].(string)
	if token == "" {
		return "", errors.New("vault gave no token")
	}
	return token, nil
}

// VaultRole is a role of the database engine.
type VaultRole struct {
	Name       string
	Statements string        // SQL that makes the user "{{name}}" with '{{password}}' until '{{expiration}}'
	TTL        time.Duration // of a user; one hour where 0
}

// ServePostgres has a database engine at the mount make users of one database of pg.
// Running it again changes the connection and the roles.
func (v *VaultServer) ServePostgres(ctx context.Context, mount string, pg *PG, database string, roles ...VaultRole) error {
	if _, err := v.Do(ctx, http.MethodGet, "sys/mounts/"+mount, nil); err != nil {
		if err := v.all(ctx, call{"sys/mounts/" + mount, map[string]any{"type": "database"}}); err != nil {
			return err
		}
	}
	query := url.Values{"sslmode": {"verify-full"}, "sslrootcert": {pg.CAFile}}
	calls := []call{{mount + "/config/" + database, map[string]any{
		"plugin_name": postgresPlugin, "allowed_roles": "*", "password_authentication": "scram-sha-256",
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/%s?%s", pg.Addr(), database, query.Encode()),
		"username":       pg.Superuser, "password": pg.Password,
	}}}
	for _, r := range roles {
		if r.TTL == 0 {
			r.TTL = time.Hour
		}
		calls = append(calls, call{mount + "/roles/" + r.Name, map[string]any{
			"db_name": database, "creation_statements": r.Statements,
			"default_ttl": r.TTL.String(), "max_ttl": "24h",
		}})
	}
	return v.all(ctx, calls...)
}

type call struct {
	path string
	body map[string]any
}

func (v *VaultServer) all(ctx context.Context, calls ...call) error {
	for _, c := range calls {
		if _, err := v.Do(ctx, http.MethodPost, c.path, c.body); err != nil {
			return err
		}
	}
	return nil
}
