package wall

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/pkg/mask"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// column is one column of a table as the target has it.
type column struct {
	name, typeText string
	typeSchema     string
}

// tables are the columns of tables, in the tables' own order.
type tables map[sql.Name][]column

// readTables reads the tables that a wall is about.
func readTables(ctx context.Context, tx pgx.Tx, w policy.Wall) (tables, error) {
	var schemas, names []string
	add := func(schema, name string) { schemas, names = append(schemas, schema), append(names, name) }
	for _, v := range w.Views {
		add(v.Rule.Schema, v.Rule.Table)
	}
	for _, t := range w.Tables {
		add(t.Schema, t.Name.Name)
	}
	rows, err := tx.Query(ctx, `
		SELECT n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), tn.nspname::text
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
			JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace tn ON tn.oid = t.typnamespace
		WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest($1::text[], $2::text[]))
			AND c.relkind IN ('r', 'v', 'm', 'f', 'p') AND a.attnum > 0 AND NOT a.attisdropped
		ORDER BY c.oid, a.attnum`, schemas, names)
	if err != nil {
		return nil, fmt.Errorf("read tables: %w", err)
	}
	out := tables{}
	var table sql.Name
	var c column
	_, err = pgx.ForEachRow(rows, []any{&table.Schema, &table.Name, &c.name, &c.typeText, &c.typeSchema}, func() error {
		out[table] = append(out[table], c)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tables: %w", err)
	}
	return out, nil
}

// has makes sure that a table has the columns.
func (t tables) has(table sql.Name, columns ...string) error {
	if t[table] == nil {
		return fmt.Errorf("there is no table %s that the admin credential can see", table)
	}
	for _, name := range columns {
		if !slices.ContainsFunc(t[table], func(c column) bool { return c.name == name }) {
			return fmt.Errorf("table %s has no column %s", table, name)
		}
	}
	return nil
}

// A view is one that a task reads a table through.
type view struct{ name, text string }

// hash names the text.
func (v view) hash() string {
	sum := sha256.Sum256([]byte(v.text))
	return hex.EncodeToString(sum[:12])
}

// viewOf writes the view of a rule: the permitted columns in the table's order, masked,
// and the permitted rows.
func viewOf(rule *postern.TableRule, t tables) (view, error) {
	table := sql.Name{Schema: rule.Schema, Name: rule.Table}
	var names []string
	masks := map[string]*postern.MaskRule{}
	for _, c := range rule.Columns {
		names = append(names, c.Name)
		masks[c.Name] = c.Mask
	}
	if err := t.has(table, names...); err != nil {
		return view{}, err
	}
	var list []string
	for _, c := range t[table] {
		m, permitted := masks[c.name]
		if !permitted {
			continue
		}
		quoted := sql.Quote(c.name)
		if m == nil {
			list = append(list, quoted)
			continue
		}
		expression, err := mask.Expression(m, quoted, c.typeText)
		if err != nil {
			return view{}, fmt.Errorf("column %s of %s: %w", c.name, table, err)
		}
		list = append(list, expression+" AS "+quoted)
	}
	var b strings.Builder
	b.WriteString("CREATE VIEW " + sql.Quote(rule.View.Schema) + "." + sql.Quote(rule.View.Name))
	if rule.Filter != "" {
		b.WriteString(" WITH (security_barrier = true)")
	}
	b.WriteString(" AS SELECT " + strings.Join(list, ", ") + " FROM " + sql.Quote(rule.Schema) + "." + sql.Quote(rule.Table))
	if rule.Filter != "" {
		b.WriteString(" WHERE (" + rule.Filter + ")")
	}
	return view{name: rule.View.Name, text: b.String()}, nil
}

// ownerGrants are what the views' owner needs: to read just what they show, and what
// their filters read. Columns that do not exist are an error.
func ownerGrants(w policy.Wall, t tables) (grants, error) {
	out := grants{}
	for _, v := range w.Views {
		table := sql.Name{Schema: v.Rule.Schema, Name: v.Rule.Table}
		columns := slices.Clone(v.Reads)
		for _, c := range v.Rule.Columns {
			columns = append(columns, c.Name)
		}
		if err := t.has(table, columns...); err != nil {
			return nil, err
		}
		out.add(grant{kind: "schema", name: table.Schema, privilege: "USAGE"})
		for _, c := range columns {
			out.add(grant{kind: "table", schema: table.Schema, name: table.Name, column: c, privilege: "SELECT"})
			out.types(t, table, c)
		}
	}
	return out, nil
}

// types lets the types of a column be named.
func (g grants) types(t tables, table sql.Name, name string) {
	for _, c := range t[table] {
		if c.name == name && c.typeSchema != "pg_catalog" && c.typeSchema != "information_schema" {
			g.add(grant{kind: "schema", name: c.typeSchema, privilege: "USAGE"})
		}
	}
}

// taskGrants are what sessions of the task may do: read the views, and change tables as
// the task permits. Columns that do not exist are an error.
func taskGrants(ctx context.Context, tx pgx.Tx, w policy.Wall, t tables) (grants, error) {
	out := grants{}
	var database string
	var open bool
	if err := tx.QueryRow(ctx, "SELECT current_database()::text, has_database_privilege('public', current_database(), 'CONNECT')").Scan(&database, &open); err != nil {
		return nil, fmt.Errorf("read who may connect to the database: %w", err)
	}
	if !open { // where everybody may, an admin who does not own the database need not give it
		out.add(grant{kind: "database", name: database, privilege: "CONNECT"})
	}
	if len(w.Views) > 0 {
		out.add(grant{kind: "schema", name: w.Schema, privilege: "USAGE"})
	}
	for _, v := range w.Views {
		if !v.Filtered { // that is given to logins one by one
			out.add(grant{kind: "table", schema: w.Schema, name: v.Rule.View.Name, privilege: "SELECT"})
		}
		for _, c := range v.Rule.Columns {
			out.types(t, sql.Name{Schema: v.Rule.Schema, Name: v.Rule.Table}, c.Name)
		}
	}
	for _, wt := range w.Tables {
		if err := t.has(wt.Name, slices.Concat(wt.Select, wt.Insert, wt.Update)...); err != nil {
			return nil, err
		}
		out.add(grant{kind: "schema", name: wt.Schema, privilege: "USAGE"})
		for privilege, columns := range map[string][]string{"SELECT": wt.Select, "INSERT": wt.Insert, "UPDATE": wt.Update} {
			for _, c := range columns {
				out.add(grant{kind: "table", schema: wt.Schema, name: wt.Name.Name, column: c, privilege: privilege})
				out.types(t, wt.Name, c)
			}
		}
		for privilege, may := range map[string]bool{"DELETE": wt.Delete, "TRUNCATE": wt.Truncate} {
			if may {
				out.add(grant{kind: "table", schema: wt.Schema, name: wt.Name.Name, privilege: privilege})
			}
		}
		if err := out.sequences(ctx, tx, wt); err != nil {
			return nil, err
		}
	}
	return out, out.functions(ctx, tx, w)
}

// sequences lets the defaults of a table that takes inserts count.
func (g grants) sequences(ctx context.Context, tx pgx.Tx, wt policy.WallTable) error {
	if len(wt.Insert) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		SELECT DISTINCT sn.nspname::text, s.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attrdef d ON d.adrelid = c.oid
			JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass
			JOIN pg_class s ON s.oid = p.refobjid AND s.relkind = 'S' JOIN pg_namespace sn ON sn.oid = s.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2`, wt.Schema, wt.Name.Name)
	if err != nil {
		return fmt.Errorf("read sequences: %w", err)
	}
	var s sql.Name
	_, err = pgx.ForEachRow(rows, []any{&s.Schema, &s.Name}, func() error {
		g.add(grant{kind: "schema", name: s.Schema, privilege: "USAGE"})
		g.add(grant{kind: "sequence", schema: s.Schema, name: s.Name, privilege: "USAGE"})
		return nil
	})
	return err
}

// functions lets those be called that the task names, in every overload. No statement that a task
// allows calls a procedure.
func (g grants) functions(ctx context.Context, tx pgx.Tx, w policy.Wall) error {
	for _, f := range w.Functions {
		rows, err := tx.Query(ctx, `SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1 AND p.proname = $2 AND p.prokind <> 'p'`, f.Schema, f.Name)
		if err != nil {
			return fmt.Errorf("read functions: %w", err)
		}
		var signature string
		_, err = pgx.ForEachRow(rows, []any{&signature}, func() error {
			g.add(grant{kind: "schema", name: f.Schema, privilege: "USAGE"})
			g.add(grant{kind: "routine", schema: f.Schema, name: signature, privilege: "EXECUTE"})
			return nil
		})
		if err != nil {
			return fmt.Errorf("read functions: %w", err)
		}
	}
	return nil
}
