package sqlite

import (
	"strings"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/query"
)

var dialect = query.Dialect{
	WordingOf:     "w.no = st.wording",
	ID:            func(id index.WordingID) any { return id[:] },
	Matching:      "SELECT rowid FROM word WHERE word MATCH ?",
	MatchingIDs:   "SELECT id FROM wording WHERE no IN (SELECT rowid FROM word WHERE word MATCH ?)",
	MatchingPacks: "SELECT * FROM pack WHERE no IN (SELECT rowid FROM pack_word WHERE pack_word MATCH ?)",
	Match:         match,
}

// match is a question of FTS5: all terms, each in quotes, which no term has in it.
func match(terms []string, prefix []bool) string {
	out := make([]string, len(terms))
	for i, t := range terms {
		out[i] = `"` + t + `"`
		if prefix[i] {
			out[i] += "*"
		}
	}
	return strings.Join(out, " AND ")
}
