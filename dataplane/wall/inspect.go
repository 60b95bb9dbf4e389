package wall

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
)

// How bad a finding is.
const (
	weakens = "weakens" // what a session can do is not bounded by its task alone
	unknown = "unknown" // this could not be found out
	note    = "note"    // good to know
)

// maxFound bounds the objects that one check names.
const maxFound = 100

// A check looks for one thing. Its query returns an object, and whether a session's login
// gets there: what lies in a schema that it may not use is out of its reach.
type check struct {
	name, severity string
	query          string
	text, fix      string
	since          int // server_version_num of the first release that has what is looked at; 0 for all
}

const ours = `n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp_)'`

// reached says whether everybody, or a role of a task ($1), may use a schema.
const reached = `(has_schema_privilege('public', n.oid, 'USAGE') OR EXISTS (SELECT FROM unnest($1::text[]) r WHERE has_schema_privilege(r::name, n.oid, 'USAGE')))`

// fired says whether a function is that of a trigger of a table that a role of a task may change, or
// of a partition of it: whose trigger it is asks nobody for EXECUTE.
const fired = `EXISTS (SELECT FROM pg_trigger g, unnest($1::text[]) r, LATERAL (SELECT g.tgrelid AS oid UNION SELECT relid FROM pg_partition_ancestors(g.tgrelid)) c
	WHERE g.tgfoid = p.oid AND (has_any_column_privilege(r::name, c.oid, 'INSERT, UPDATE') OR has_table_privilege(r::name, c.oid, 'DELETE, TRUNCATE')))`

var checks = []check{
	{
		name: "definer-function", severity: weakens,
		query: `SELECT p.oid::regprocedure::text || ' of ' || pg_get_userbyid(p.proowner), ` + reached + ` FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
			WHERE p.prosecdef AND ` + ours + ` AND has_function_privilege('public', p.oid, 'EXECUTE')`,
		text: "runs with its owner's rights, and everybody may execute it: it can read and change what no task permits",
		fix:  "REVOKE EXECUTE ON FUNCTION ... FROM PUBLIC, and name it in the tasks that need it",
	},
	{
		name: "definer-path", severity: weakens,
		query: `SELECT p.oid::regprocedure::text || ' of ' || pg_get_userbyid(p.proowner), true FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
			WHERE p.prosecdef AND ` + ours + ` AND (` + fired + ` OR NOT has_function_privilege('public', p.oid, 'EXECUTE')
			AND EXISTS (SELECT FROM unnest($1::text[]) r WHERE has_function_privilege(r::name, p.oid, 'EXECUTE')))
			AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search\_path=%pg\_temp' OR c = 'search_path=""')`,
		text: "runs with its owner's rights for a task, and takes names that it does not spell out from its caller's temporary objects first",
		fix:  "ALTER FUNCTION ... SET search_path = its schemas, pg_temp",
	},
	{
		name: "public-table", severity: weakens,
		query: `SELECT c.oid::regclass::text || ' (' || string_agg(DISTINCT a.privilege_type, ', ') || ')', ` + reached + ` FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
			LATERAL (SELECT * FROM aclexplode(c.relacl) UNION ALL SELECT x.* FROM pg_attribute t, aclexplode(t.attacl) x WHERE t.attrelid = c.oid) a
			WHERE a.grantee = 0 AND ` + ours + ` AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
			GROUP BY c.oid, n.oid, n.nspname`,
		text: "is open to everybody who can log in, whatever a task permits",
		fix:  "REVOKE ALL ON TABLE ... FROM PUBLIC",
	},
	{
		name: "create-schema-object", severity: weakens,
		query: `SELECT n.nspname::text, true FROM pg_namespace n WHERE ` + ours + ` AND has_schema_privilege('public', n.oid, 'CREATE')`,
		text:  "is a schema in which everybody may make objects, which others may then mistake for their own",
		fix:   "REVOKE CREATE ON SCHEMA ... FROM PUBLIC",
	},
	{
		name: "superuser-session", severity: weakens,
		query: `SELECT DISTINCT r.rolname::text, true FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid WHERE a.application_name LIKE 'postern/%' AND (r.rolsuper OR r.rolbypassrls)`,
		text:  "is a superuser, or is not held by row security, and a session is logged in with it now",
		fix:   "lend an account that may do no more than the tasks need",
	},
	{
		name: "large-objects", severity: weakens,
		query: `SELECT 'lo_compat_privileges', true WHERE current_setting('lo_compat_privileges')::bool`,
		text:  "is on: everybody may read every large object",
		fix:   "set lo_compat_privileges = off",
	},
	{
		name: "public-large-object", severity: weakens,
		query: `SELECT DISTINCT 'large object ' || m.oid || ' (' || a.privilege_type || ')', true FROM pg_largeobject_metadata m, aclexplode(m.lomacl) a WHERE a.grantee = 0`,
		text:  "is open to everybody who can log in, whatever a task permits",
		fix:   "REVOKE ALL ON LARGE OBJECT ... FROM PUBLIC",
	},
	{
		name: "foreign-server", severity: weakens,
		query: `SELECT m.srvname::text, true FROM pg_user_mappings m WHERE m.umuser = 0 AND has_server_privilege('public', m.srvid, 'USAGE')`,
		text:  "may be used by everybody, with credentials of its own: a session that may make temporary tables reads there what no task permits",
		fix:   "REVOKE USAGE ON FOREIGN SERVER ... FROM PUBLIC, or drop its user mapping for PUBLIC",
	},
	{
		name: "public-parameter", severity: weakens, since: 150000,
		query: `SELECT p.parname || ' (' || a.privilege_type || ')', true FROM pg_parameter_acl p, aclexplode(p.paracl) a WHERE a.grantee = 0`,
		text:  "may be set by everybody, though it is not for everybody to set",
		fix:   "REVOKE ALL ON PARAMETER ... FROM PUBLIC",
	},
	{
		name: "login-group", severity: weakens,
		query: `SELECT pg_describe_object(d.classid, d.objid, d.objsubid), true FROM pg_shdepend d
			WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = to_regrole('` + loginGroup + `') AND d.deptype = 'a' AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
			AND d.classid <> 'pg_database'::regclass
			UNION SELECT 'membership of ' || l.rolname || ' in ' || g.rolname, true FROM pg_auth_members m JOIN pg_roles l ON l.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
			WHERE l.rolname ~ '^postern_[0-9a-f]{8}_l_' AND g.rolname !~ '^postern_(login$|[0-9a-f]{8}_t_)'`,
		text: "was given to the logins of sessions, or to one of them, beside what their tasks permit",
		fix:  "REVOKE it from " + loginGroup + ", or from that login",
	},
	{
		name: "row-security", severity: note,
		query: `SELECT c.oid::regclass::text, true FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relrowsecurity AND ` + ours,
		text:  "has row level security: a task's view shows what its policies show the view's owner",
		fix:   "give the task's owner role a policy, or use rows in the task",
	},
	{
		name: "temporary-tables", severity: note,
		query: `SELECT current_database()::text, true WHERE has_database_privilege('public', current_database(), 'TEMP')`,
		text:  "lets everybody make temporary tables, which hold only what a session may read",
		fix:   "REVOKE TEMPORARY ON DATABASE ... FROM PUBLIC",
	},
	{
		name: "other-database", severity: note,
		query: `SELECT datname::text, true FROM pg_database WHERE datallowconn AND datname <> current_database() AND has_database_privilege('public', oid, 'CONNECT')`,
		text:  "is another database of this server that everybody may connect to; a node connects to none but the resource's",
		fix:   "REVOKE CONNECT ON DATABASE ... FROM PUBLIC",
	},
	{
		name: "admin-superuser", severity: note,
		query: `SELECT rolname::text, true FROM pg_roles WHERE rolname = current_user AND rolsuper`,
		text:  "is the wall's admin credential and a superuser; a role with CREATEROLE that owns the tables and may create schemas is enough",
		fix:   "lend a narrower admin credential",
	},
}

// examine runs the checks.
func examine(ctx context.Context, conn *pgx.Conn, res *typesv1.Resource, walls []policy.Wall) (*nodev1.Inspection, error) {
	out := &nodev1.Inspection{Time: timestamppb.Now()}
	var version int
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version'), current_setting('server_version_num')::int").Scan(&out.Server, &version); err != nil {
		return nil, fmt.Errorf("ask for the server's version: %w", err)
	}
	if version < oldest {
		out.Findings = append(out.Findings, &nodev1.Finding{Severity: unknown, Check: "server-version", Object: out.Server, Text: "is older than the releases that are tested (15 to 18)", Fix: "upgrade the server"})
	}
	roles, err := existing(ctx, conn, walls)
	if err != nil {
		return nil, err
	}
	for _, c := range checks {
		if version < c.since {
			continue
		}
		found, err := c.run(ctx, conn, roles)
		if err != nil {
			return nil, err
		}
		out.Findings = append(out.Findings, found...)
	}
	if res.GetSpec().GetLevel().GetWant() == "native" {
		out.Findings = append(out.Findings, addresses(ctx, conn))
	}
	return out, nil
}

// oldest is the server_version_num of the oldest release that is tested.
const oldest = 150000

// existing are the roles of tasks that the target has.
func existing(ctx context.Context, conn *pgx.Conn, walls []policy.Wall) ([]string, error) {
	names := []string{}
	for _, w := range walls {
		names = append(names, w.Role)
	}
	rows, err := conn.Query(ctx, "SELECT rolname::text FROM pg_roles WHERE rolname::text = ANY($1::text[])", names)
	if err != nil {
		return nil, fmt.Errorf("look for roles: %w", err)
	}
	roles, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for roles: %w", err)
	}
	return append([]string{}, roles...), nil
}

func (c check) run(ctx context.Context, conn *pgx.Conn, roles []string) (out []*nodev1.Finding, err error) {
	args := []any{}
	if strings.Contains(c.query, "$1") {
		args = append(args, roles)
	}
	rows, err := conn.Query(ctx, c.query+fmt.Sprintf(" ORDER BY 1 LIMIT %d", maxFound), args...)
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", c.name, err)
	}
	var object string
	var within bool
	_, err = pgx.ForEachRow(rows, []any{&object, &within}, func() error {
		f := &nodev1.Finding{Severity: c.severity, Check: c.name, Object: object, Text: c.text, Fix: c.fix}
		if !within {
			f.Severity, f.Text = note, f.Text+"; no session may use its schema"
		}
		out = append(out, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", c.name, err)
	}
	return out, nil
}

// addresses says whether logins work from everywhere. That is for pg_hba.conf, which SQL
// can read, where it is allowed to, and not change.
func addresses(ctx context.Context, conn *pgx.Conn) *nodev1.Finding {
	f := &nodev1.Finding{
		Check: "login-address", Object: "pg_hba.conf",
		Fix: "before the lines for all: hostssl DATABASE +" + loginGroup + " NODES scram-sha-256, and then: host all +" + loginGroup + " all reject",
	}
	var rules, rejects int
	err := conn.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE auth_method = 'reject') FROM pg_hba_file_rules WHERE '+'||$1 = ANY (user_name)`, loginGroup).Scan(&rules, &rejects)
	switch {
	case err != nil:
		f.Severity, f.Text = unknown, "the admin credential may not read it, so that it is not known from where a session's login works"
	case rules == 0 || rejects == 0:
		f.Severity, f.Text = note, "a session's login, whose password only its node has, works from every address from which others do"
	default:
		f.Severity, f.Text, f.Fix = note, fmt.Sprintf("names the logins of sessions in %d lines, %d of which reject", rules, rejects), ""
	}
	return f
}
