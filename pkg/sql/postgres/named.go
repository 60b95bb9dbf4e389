package postgres

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// filterOf is the filter of a rule, in which :relations and :columns are arrays of the
// numbers of what the rule names, as the catalogue has it now. What it does not have is
// not seen.
func filterOf(cat *sql.Catalog, r *postern.TableRule) string {
	if len(r.Names) == 0 {
		return r.Filter
	}
	relations, columns := map[uint32]bool{}, map[int64]bool{}
	for _, n := range r.Names {
		if n.Table == "" {
			for name, rel := range cat.Relations {
				if name.Schema == n.Schema {
					relations[rel.OID] = true
					for i := range rel.Columns {
						columns[columnNumber(rel, &rel.Columns[i])] = true
					}
				}
			}
			continue
		}
		rel := cat.Relations[sql.Name{Schema: n.Schema, Name: n.Table}]
		if rel == nil {
			continue
		}
		relations[rel.OID] = true
		for _, name := range n.Columns {
			if c := rel.Column(name); c != nil {
				columns[columnNumber(rel, c)] = true
			}
		}
	}
	return strings.NewReplacer(
		":relations", "CAST('{"+numbers(relations)+"}' AS pg_catalog.oid[])",
		":columns", "CAST('{"+numbers(columns)+"}' AS pg_catalog.int8[])",
	).Replace(r.Filter)
}

// columnNumber is one number for a relation and a column of it.
func columnNumber(rel *sql.Relation, c *sql.Column) int64 {
	return int64(rel.OID)<<16 + int64(c.Attnum)
}

func numbers[N uint32 | int64](set map[N]bool) string {
	var b []byte
	for i, n := range slices.Sorted(maps.Keys(set)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return string(b)
}
