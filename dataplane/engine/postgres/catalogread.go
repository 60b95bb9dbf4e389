package postgres

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/sql"
	pgsql "github.com/posterngate/postern/pkg/sql/postgres"
	"github.com/posterngate/postern/pkg/wire"
)

// What the catalogue consists of. Every query is ordered, since the version is a hash
// of what came. Temporary objects are left out: what is not known is denied.
const (
	ownSchemas = `n.nspname !~ '^pg_(toast|temp_)'`
	relations  = `c.relkind IN ('r','v','m','f','p','S') AND ` + ownSchemas

	fromSchemas   = ` FROM pg_namespace n WHERE ` + ownSchemas
	fromRelations = ` FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ` + relations
	fromColumns   = ` FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace tn ON tn.oid = t.typnamespace
		WHERE a.attnum > 0 AND NOT a.attisdropped AND ` + relations
	fromKeys = ` FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
		WHERE k.contype = 'p' AND NOT k.condeferrable`
	fromChildren  = ` FROM pg_inherits i`
	fromViews     = fromRelations + ` AND c.relkind IN ('v','m') AND n.nspname NOT IN ('pg_catalog', 'information_schema')`
	fromTriggers  = ` FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT t.tgisinternal AND ` + relations
	fromRules     = ` FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ` + relations
	fromFunctions = ` FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE ` + ownSchemas
	fromTypes     = ` FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE ` + ownSchemas
	fromOperators = ` FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
		JOIN pg_proc p ON p.oid = o.oprcode JOIN pg_namespace fn ON fn.oid = p.pronamespace WHERE ` + ownSchemas

	askServer   = `SELECT current_database(), current_setting('server_version_num')`
	askSchemas  = `SELECT n.nspname` + fromSchemas + ` ORDER BY 1`
	askRelation = `SELECT c.oid, n.nspname, c.relname, c.relkind,
		EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
		EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN')` + fromRelations + ` ORDER BY c.oid`
	askColumns = `SELECT a.attrelid, a.attname, a.attnum, tn.nspname, t.typname, format_type(a.atttypid, a.atttypmod), a.atttypid, a.attgenerated <> ''` +
		fromColumns + ` ORDER BY a.attrelid, a.attnum`
	askKeys     = `SELECT k.conrelid, a.attname` + fromKeys + ` ORDER BY k.conrelid, a.attnum`
	askChildren = `SELECT i.inhparent, i.inhrelid` + fromChildren + ` ORDER BY 1, 2`
	askViews    = `SELECT c.oid, pg_get_viewdef(c.oid)` + fromViews + ` ORDER BY 1`
	askDepends  = `SELECT DISTINCT r.ev_class, d.refobjid, a.attname FROM pg_rewrite r
		JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
		JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
		WHERE d.refobjsubid > 0 AND r.ev_class IN (SELECT c.oid` + fromViews + `) ORDER BY 1, 2, 3`
	askFunctions = `SELECT p.oid, n.nspname, p.proname, p.pronargs, p.provariadic <> 0, p.pronargdefaults, p.provolatile, p.prosecdef` +
		fromFunctions + ` ORDER BY p.oid`
)

var (
	askTypes = `SELECT t.oid, n.nspname, t.typname, t.typtype, coalesce((SELECT t.typelem WHERE t.typsubscript = 'array_subscript_handler'::regproc), 0), n.nspname IN ('pg_catalog', 'information_schema')
		OR t.typtype = 'b' AND ` + ofExtension(`pg_type`, `t`) + ` AND EXISTS (SELECT FROM pg_proc p WHERE p.oid = t.typinput AND ` + compiled + `)` + fromTypes + ` ORDER BY t.oid`
	askOperators = `SELECT n.nspname, o.oprname, fn.nspname, p.proname, n.nspname = 'pg_catalog' OR p.provolatile = 'i' AND ` + ofExtension(`pg_operator`, `o`) + ` AND ` + compiled + fromOperators + ` ORDER BY o.oid`

	// touched are the types of users with casts that users have defined, what is made of such
	// types, and the functions behind the casts. A cast between two of the system's types is a
	// superuser's to make, and as good as built in.
	touched = `WITH RECURSIVE touched (oid, schema, name) AS (
		SELECT u.oid, fn.nspname, p.proname FROM pg_cast o JOIN pg_proc p ON p.oid = o.castfunc JOIN pg_namespace fn ON fn.oid = p.pronamespace
			CROSS JOIN LATERAL (VALUES (o.castsource), (o.casttarget)) u (oid)
			WHERE u.oid >= 16384 AND o.oid >= 16384 AND NOT (p.provolatile = 'i' AND ` + ofExtension(`pg_cast`, `o`) + ` AND ` + compiled + `)
		UNION SELECT t.oid, x.schema, x.name FROM touched x JOIN pg_type t ON t.typbasetype = x.oid OR t.typcategory = 'A' AND t.typelem = x.oid) `
	askCasts   = touched + `SELECT n.nspname, t.typname, x.schema, x.name FROM touched x JOIN pg_type t ON t.oid = x.oid JOIN pg_namespace n ON n.oid = t.typnamespace ORDER BY 1, 2, 3, 4`
	askCallers = touched + `SELECT DISTINCT p.oid, x.schema, x.name FROM touched x JOIN pg_proc p ON x.oid = p.prorettype OR x.oid = ANY (p.proargtypes) OR x.oid = ANY (p.proallargtypes) ORDER BY 1, 2, 3`
)

// compiled is a function in internal or C, which only a superuser may write, and of an
// extension: what users define, and what they may add to an extension of theirs, is not.
var compiled = `p.prolang IN (12, 13) AND NOT p.prosecdef AND ` + ofExtension(`pg_proc`, `p`)

// ofExtension is true for objects that an extension has brought.
func ofExtension(catalog, alias string) string {
	return `EXISTS (SELECT FROM pg_depend d WHERE d.classid = '` + catalog + `'::regclass AND d.objid = ` + alias + `.oid AND d.deptype = 'e')`
}

// askState sums up which versions of which rows the catalogue is made of: whatever
// changes one of them writes it anew, with another xmin. The target does that in a
// fraction of the time that reading everything takes.
var askState = func() string {
	row := func(table, key, from string) string {
		return `SELECT coalesce(sum(hashint8extended(` + table + `.xmin::text::int8, ` + key + `)), 0)` + from
	}
	return strings.Join([]string{
		row(`n`, `n.oid::int8`, fromSchemas), row(`c`, `c.oid::int8`, fromRelations), row(`a`, `a.attrelid::int8 * 2048 + a.attnum`, fromColumns),
		row(`k`, `k.oid::int8`, ` FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.contype = 'p' AND `+relations),
		row(`i`, `i.inhrelid::int8 << 31 # i.inhparent::int8`, fromChildren), row(`p`, `p.oid::int8`, fromFunctions), row(`t`, `t.oid::int8`, fromTypes),
		row(`o`, `o.oid::int8`, fromOperators), row(`o`, `o.oid::int8`, ` FROM pg_cast o`), row(`t`, `t.oid::int8`, fromTriggers), row(`r`, `r.oid::int8`, fromRules),
	}, ` UNION ALL `)
}()

// readCatalog reads the catalogue over a connection of its own. state stands for the
// rows that it was made of; where that is known, they have not changed since, and the
// catalogue is nil.
func (e *Engine) readCatalog(ctx context.Context, s engine.Session, known string) (cat *sql.Catalog, state string, err error) {
	l, err := e.login(ctx, s, engine.PurposeCatalog, nil)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = l.conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = l.conn.Close() })()
	sum := sha256.New()
	r := &reader{
		conn: l.conn, in: bufio.NewReaderSize(l.conn, wire.Large), hash: sum, left: e.limits.Catalog,
		relations: map[uint32]*sql.Relation{},
		cat: &sql.Catalog{
			Relations: map[sql.Name]*sql.Relation{}, Functions: map[sql.Name][]sql.FunctionInfo{}, Types: map[sql.Name]sql.TypeInfo{},
			Operators: map[sql.Name][]sql.OperatorInfo{}, Schemas: map[string]bool{}, Casts: map[sql.Name][]sql.Name{},
		},
		casts: map[uint32][]sql.Name{},
	}
	steps := []step{
		{`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`, nil}, {askState, r.summary},
		{askServer, r.server}, {askSchemas, r.schema}, {askRelation, r.relation}, {askColumns, r.column},
		{askKeys, r.key}, {askChildren, r.child}, {askDepends, r.depends}, {askCallers, r.caller}, {askFunctions, r.function}, {askTypes, r.typ}, {askOperators, r.operator}, {askCasts, r.cast},
	}
	if err := r.run(steps[:2]); err != nil {
		return nil, "", err
	}
	if r.state == "" {
		return nil, "", errors.New("read catalogue: the resource does not say what it is made of")
	}
	if r.state != known {
		sum.Reset() // the version is of what the catalogue says, not of how it came about
		if err := r.run(steps[2:]); err != nil {
			return nil, "", err
		}
	}
	version := sum.Sum(nil)
	if r.state != known && r.run(askDefinitions(r)) == nil {
		version = sum.Sum(nil)
	}
	_, _ = l.conn.Write(appendEmpty(nil, 'X'))
	if r.state == known {
		return nil, known, nil
	}
	r.cat.Version = hex.EncodeToString(version[:16])
	r.triggers()
	pgsql.ResolveViews(ctx, e.cfg.Parser, r.cat)
	return r.cat, r.state, nil
}

// askDefinitions asks for the texts of views, with all names written out. The target
// locks what a view names for that, so that this waits for whoever changes a table, and
// not for long: without texts the catalogue is as good for all but the record.
func askDefinitions(r *reader) []step {
	return []step{{`COMMIT`, nil}, {`SET lock_timeout = '1s'`, nil}, {`SET search_path = ''`, nil}, {askViews, r.view}}
}

// reader fills a catalogue from rows.
type reader struct {
	conn      net.Conn
	in        *bufio.Reader
	hash      io.Writer // of all that came
	left      int       // bytes that may still come
	cat       *sql.Catalog
	relations map[uint32]*sql.Relation
	casts     map[uint32][]sql.Name // of functions
	state     string
}

// step is one statement and what is done with each row.
type step struct {
	text string
	row  func(*row)
}

func (r *reader) run(steps []step) error {
	for _, s := range steps {
		if err := r.query(s.text, s.row); err != nil {
			return fmt.Errorf("read catalogue: %w", err)
		}
	}
	return nil
}

// query runs one statement and calls fn with each row.
func (r *reader) query(text string, fn func(*row)) error {
	return r.ask(appendQuery(nil, text), text, fn)
}

// single is query for a text that others have a say in: the target takes no more than one
// statement in it.
func (r *reader) single(text string, fn func(*row)) error {
	return r.ask(appendEmpty(appendRun(nil, text), 'S'), text, fn)
}

func (r *reader) ask(message []byte, text string, fn func(*row)) error {
	if _, err := r.conn.Write(message); err != nil {
		return err
	}
	_, _ = io.WriteString(r.hash, text)
	for {
		typ, body, err := readMessage(r.in, maxHandshakeMessage)
		if err != nil {
			return err
		}
		switch typ {
		case 'D':
			if r.left -= len(body); r.left < 0 {
				return errors.New("the answer is larger than its limit")
			}
			_, _ = r.hash.Write(body)
			rw := row{c: wire.Read(body)}
			rw.c.Int16()
			fn(&rw)
			if rw.bad || rw.c.Done() != nil {
				return errors.New("a row of the answer cannot be read")
			}
		case 'E':
			return targetError(body)
		case 'Z':
			return nil
		case 'T', 'C', 'N', 'S', '1', '2', 'n':
		default:
			return fmt.Errorf("unexpected message %q", typ)
		}
	}
}

// A row gives its values in order, as text; no value of a catalogue is NULL.
type row struct {
	c   wire.Cursor
	bad bool
}

func (r *row) text() string { return string(r.c.Bytes(int(r.c.Int32()))) }
func (r *row) flag() bool   { return r.text() == "t" }

func (r *row) char() byte {
	if s := r.text(); len(s) == 1 {
		return s[0]
	}
	r.bad = true
	return 0
}

func (r *row) number() int {
	n, err := strconv.Atoi(r.text())
	r.bad = r.bad || err != nil
	return n
}

func (r *row) oid() uint32 {
	n, err := strconv.ParseUint(r.text(), 10, 32)
	r.bad = r.bad || err != nil
	return uint32(n)
}

func (r *row) name() sql.Name { return sql.Name{Schema: r.text(), Name: r.text()} }

func (r *reader) summary(v *row) { r.state += v.text() + " " }
func (r *reader) server(v *row)  { r.cat.Database, r.cat.Server = v.text(), v.number() }
func (r *reader) schema(v *row)  { r.cat.Schemas[v.text()] = true }

var relationKinds = map[byte]sql.RelationKind{
	'r': sql.KindTable, 'v': sql.KindView, 'm': sql.KindMaterializedView, 'f': sql.KindForeignTable, 'p': sql.KindPartitioned, 'S': sql.KindSequence,
}

func (r *reader) relation(v *row) {
	rel := &sql.Relation{OID: v.oid(), Name: v.name(), Kind: relationKinds[v.char()], HasTriggers: v.flag(), HasRules: v.flag()}
	r.cat.Relations[rel.Name] = rel
	r.relations[rel.OID] = rel
}

func (r *reader) column(v *row) {
	of := v.oid()
	c := sql.Column{Name: v.text(), Attnum: int16(v.number()), Type: v.name(), TypeText: v.text(), TypeOID: v.oid(), Generated: v.flag()} //nolint:gosec // at most 1,600
	if rel := r.relations[of]; rel != nil {
		rel.Columns = append(rel.Columns, c)
	}
}

func (r *reader) key(v *row) {
	of, column := v.oid(), v.text()
	if rel := r.relations[of]; rel != nil {
		rel.Key = append(rel.Key, column)
	}
}

func (r *reader) child(v *row) {
	parent, child := r.relations[v.oid()], r.relations[v.oid()]
	if parent != nil && child != nil {
		parent.Children = append(parent.Children, child.Name)
	}
}

// triggers lets what a partition or child fires be known of its parents, too: a change of a parent
// changes it.
func (r *reader) triggers() {
	for changed := true; changed; {
		changed = false
		for _, rel := range r.relations {
			if !rel.HasTriggers && slices.ContainsFunc(rel.Children, func(c sql.Name) bool { return r.cat.Relations[c].HasTriggers }) {
				rel.HasTriggers, changed = true, true
			}
		}
	}
}

func (r *reader) depends(v *row) {
	view, on, column := r.relations[v.oid()], r.relations[v.oid()], v.text()
	if view != nil && on != nil {
		view.Depends = append(view.Depends, sql.Origin{Relation: on.Name, Column: column})
	}
}

func (r *reader) view(v *row) {
	of, text := v.oid(), v.text()
	if rel := r.relations[of]; rel != nil {
		rel.Definition = text
	}
}

func (r *reader) function(v *row) {
	oid, name := v.oid(), v.name()
	r.cat.Functions[name] = append(r.cat.Functions[name], sql.FunctionInfo{
		Args: v.number(), Variadic: v.flag(), Defaults: v.number(), Volatility: v.char(), SecurityDefiner: v.flag(), Casts: r.casts[oid],
	})
}

func (r *reader) typ(v *row) {
	oid, name := v.oid(), v.name()
	r.cat.Types[name] = sql.TypeInfo{OID: oid, Kind: v.char(), Element: v.oid(), System: v.flag()}
}

func (r *reader) operator(v *row) {
	name, fn := v.name(), v.name()
	r.cat.Operators[name] = append(r.cat.Operators[name], sql.OperatorInfo{Function: fn, System: v.flag()})
}

func (r *reader) caller(v *row) {
	of := v.oid()
	r.casts[of] = append(r.casts[of], v.name())
}

func (r *reader) cast(v *row) {
	name := v.name()
	r.cat.Casts[name] = append(r.cat.Casts[name], v.name())
}
