-- What DBeaver asks a PostgreSQL database when it is opened and its tree is unfolded. Written
-- after its published sources (plugins/org.jkiss.dbeaver.ext.postgresql, 6.x to 25.x), in their
-- shape: it is no capture. $1 is what the line above names.
SELECT current_database(), current_schema(), session_user;
SHOW search_path;
SHOW server_version;
SELECT version();
SELECT db.oid, db.* FROM pg_catalog.pg_database db WHERE NOT datistemplate AND datallowconn ORDER BY db.datname;
SELECT db.oid, db.* FROM pg_catalog.pg_database db WHERE db.datname = current_database();
SELECT n.oid, n.*, d.description FROM pg_catalog.pg_namespace n
  LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = n.oid AND d.objsubid = 0 AND d.classoid = 'pg_namespace'::regclass ORDER BY nspname;
SELECT a.oid, a.*, pd.description FROM pg_catalog.pg_roles a
  LEFT JOIN pg_catalog.pg_shdescription pd ON a.oid = pd.objoid ORDER BY a.rolname;
SELECT am.oid, am.* FROM pg_catalog.pg_am am ORDER BY am.oid;
SELECT c.contoencoding AS encid, pg_catalog.pg_encoding_to_char(c.contoencoding) AS encname FROM pg_catalog.pg_conversion c
  GROUP BY c.contoencoding ORDER BY 2;
SELECT l.oid, l.* FROM pg_catalog.pg_language l ORDER BY l.oid;
SELECT l.oid, l.*, p.pronamespace AS handler_schema_id FROM pg_catalog.pg_foreign_data_wrapper l
  LEFT OUTER JOIN pg_catalog.pg_proc p ON p.oid = l.fdwhandler ORDER BY l.fdwname;
SELECT l.oid, l.* FROM pg_catalog.pg_foreign_server l ORDER BY l.srvname;
SELECT t.oid, t.* FROM pg_catalog.pg_tablespace t ORDER BY t.oid;
SELECT e.oid, e.extname, e.extowner, e.extrelocatable, e.extversion, e.extconfig, e.extcondition, n.nspname AS schema_name FROM pg_catalog.pg_extension e
  JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace ORDER BY e.oid;
SELECT e.oid, e.*, d.description FROM pg_catalog.pg_event_trigger e
  LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = e.oid;
SELECT t.oid, t.*, c.relkind, format_type(nullif(t.typbasetype, 0), t.typtypmod) AS base_type_name, d.description FROM pg_catalog.pg_type t
  LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid = t.typelem
  LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
  LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid = d.objoid
  WHERE t.typname IS NOT NULL AND (c.relkind IS NULL OR c.relkind = 'c') AND (et.typcategory IS NULL OR et.typcategory <> 'C');
SELECT e.enumlabel FROM pg_catalog.pg_enum e WHERE e.enumtypid = 16 ORDER BY e.enumsortorder;
-- schema
SELECT c.oid, c.*, d.description, pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS partition_expr, pg_catalog.pg_get_partkeydef(c.oid) AS partition_key
  FROM pg_catalog.pg_class c LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = c.oid AND d.objsubid = 0 AND d.classoid = 'pg_class'::regclass
  WHERE c.relnamespace = $1 AND c.relkind NOT IN ('i', 'I', 'c');
-- schema
SELECT c.relname, a.*, pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) AS def_value, dsc.description, dep.objid
  FROM pg_catalog.pg_attribute a
  INNER JOIN pg_catalog.pg_class c ON a.attrelid = c.oid
  LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON a.attrelid = ad.adrelid AND a.attnum = ad.adnum
  LEFT OUTER JOIN pg_catalog.pg_description dsc ON c.oid = dsc.objoid AND a.attnum = dsc.objsubid
  LEFT OUTER JOIN pg_depend dep ON dep.refobjid = a.attrelid AND dep.deptype = 'i' AND dep.refobjsubid = a.attnum AND dep.classid = dep.refclassid
  WHERE NOT a.attisdropped AND c.relkind NOT IN ('i', 'I', 'c') AND c.relnamespace = $1 ORDER BY a.attnum;
-- schema
SELECT c.oid, c.*, t.relname AS tabrelname, rt.relnamespace AS refnamespace, d.description,
  CASE WHEN c.contype = 'c' THEN "substring"(pg_get_constraintdef(c.oid), 7) ELSE NULL END AS consrc_copy
  FROM pg_catalog.pg_constraint c
  INNER JOIN pg_catalog.pg_class t ON t.oid = c.conrelid
  LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid = c.confrelid
  LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = c.oid AND d.objsubid = 0 AND d.classoid = 'pg_constraint'::regclass
  WHERE t.relnamespace = $1 ORDER BY c.oid;
-- schema
SELECT i.*, i.indkey AS keys, c.relname, c.relnamespace, c.relam, c.reltablespace, tc.relname AS tabrelname, dsc.description,
  pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS pred_expr, pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true) AS expr, pg_catalog.pg_relation_is_publishable(i.indexrelid) AS pub
  FROM pg_catalog.pg_index i
  INNER JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  INNER JOIN pg_catalog.pg_class tc ON tc.oid = i.indrelid
  LEFT OUTER JOIN pg_catalog.pg_description dsc ON i.indexrelid = dsc.objoid
  WHERE c.relnamespace = $1 ORDER BY tabrelname, c.relname;
-- schema
SELECT p.oid AS poid, p.*, pg_catalog.pg_get_expr(p.proargdefaults, 0) AS arg_defaults, d.description FROM pg_catalog.pg_proc p
  LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = p.oid AND d.objsubid = 0 WHERE p.pronamespace = $1 ORDER BY p.proname;
-- schema
SELECT c.oid, c.* FROM pg_catalog.pg_collation c WHERE c.collnamespace = $1 ORDER BY c.oid;
-- schema
SELECT c.relname, seq.* FROM pg_catalog.pg_sequence seq INNER JOIN pg_catalog.pg_class c ON c.oid = seq.seqrelid WHERE c.relnamespace = $1;
-- table
SELECT DISTINCT i.inhrelid, i.inhparent, c.relnamespace, i.inhseqno FROM pg_catalog.pg_inherits i, pg_catalog.pg_class c
  WHERE i.inhparent = c.oid AND i.inhrelid = $1 ORDER BY i.inhseqno;
-- table
SELECT x.oid, x.*, p.pronamespace AS func_schema_id, d.description, pg_catalog.pg_get_triggerdef(x.oid) AS definition FROM pg_catalog.pg_trigger x
  LEFT OUTER JOIN pg_catalog.pg_proc p ON p.oid = x.tgfoid
  LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = x.oid AND d.objsubid = 0 WHERE x.tgrelid = $1 AND NOT x.tgisinternal;
-- table
SELECT r.oid, r.*, d.description FROM pg_catalog.pg_rewrite r
  LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = r.oid WHERE r.ev_class = $1;
-- table
SELECT pol.oid, pol.* FROM pg_catalog.pg_policy pol WHERE pol.polrelid = $1;
-- table
SELECT * FROM information_schema.table_privileges WHERE table_catalog = current_database() AND table_schema = 'sales' AND table_name = 'orders';
-- table
SELECT DISTINCT dep.deptype, dep.classid, dep.objid, cl.relkind, attr.attname, pg_get_expr(ad.adbin, ad.adrelid) AS adefval, cl.relname AS name, nsp.nspname
  FROM pg_depend dep
  LEFT JOIN pg_class cl ON dep.objid = cl.oid
  LEFT JOIN pg_attribute attr ON dep.objid = attr.attrelid AND dep.objsubid = attr.attnum
  LEFT JOIN pg_namespace nsp ON cl.relnamespace = nsp.oid
  LEFT JOIN pg_attrdef ad ON ad.oid = dep.objid
  WHERE dep.refobjid = $1 ORDER BY cl.relkind;
SELECT x.oid, x.relname, x.relnamespace, x.relkind FROM pg_catalog.pg_class x, pg_catalog.pg_namespace n
  WHERE n.oid = x.relnamespace AND x.relname ILIKE '%o%' AND x.relkind IN ('r', 'v', 'm', 'f', 'p') ORDER BY x.relname LIMIT 100;
SELECT x.attname, x.attrelid, x.atttypid, c.relnamespace FROM pg_catalog.pg_attribute x, pg_catalog.pg_class c
  WHERE c.oid = x.attrelid AND x.attname LIKE '%a%' AND x.attnum > 0 ORDER BY x.attname LIMIT 100;
