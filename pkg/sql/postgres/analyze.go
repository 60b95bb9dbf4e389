// Package postgres understands PostgreSQL text: what it does to which relations and
// columns, resolved against a catalogue, and how it reads once masks and filters stand in
// it. What is not understood is said so, never guessed: the facts are then incomplete.
// Whether a statement may run is policy's business, running the parser package worker's.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"
	"weak"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// Parser turns text into serialised pg_query trees and back. A text that is not in the
// grammar gives a *sql.SyntaxError. It is safe for concurrent use.
type Parser interface {
	Parse(ctx context.Context, text string) (tree []byte, err error)
	// Deparse fails unless the text reads as that very tree.
	Deparse(ctx context.Context, tree []byte) (text string, err error)
}

// Settings are those of the connection that decide what names mean.
type Settings struct {
	SearchPath []string // "$user" stands for User
	User       string   // the account on the target
}

// The bounds on one text, beside those on its length and nesting.
const (
	maxDepth      = 100       // queries in one another
	maxReferences = 1000      // names of relations
	maxWork       = 5_000_000 // steps of the analyser, some 10 ns each
)

// rewriteTimeout bounds what is asked of the parser where no context is at hand.
const rewriteTimeout = 5 * time.Second

// Analysis is one understood text. But for Shed it is immutable and safe for concurrent use.
type Analysis struct {
	parser Parser
	cat    weak.Pointer[sql.Catalog] // what is kept of a text does not keep its catalogue
	set    Settings

	tree  []byte // what the text means, as it may be sent; some 30 times as long
	facts *sql.Facts
	plain bool

	once      sync.Once
	canonical string
	err       error // why there is no canonical text
}

// Analyze finds out what a text does. An error is a *sql.SyntaxError, or a fault of the
// parser; a text that is well formed and not understood has incomplete facts.
func Analyze(ctx context.Context, p Parser, cat *sql.Catalog, set Settings, text string) (*Analysis, error) {
	if cat == nil {
		return nil, errors.New("analyse: there is no catalogue")
	}
	tree, err := p.Parse(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	an := &Analysis{parser: p, cat: weak.Make(cat), set: set, tree: tree, facts: &sql.Facts{}}
	parsed := &pg.ParseResult{}
	if err := proto.Unmarshal(tree, parsed); err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	a := newAnalyzer(cat, set)
	a.run(parsed, tree)
	an.plain = Plain(text) && !a.altered
	if a.problem != "" {
		an.facts.Incomplete = a.problem
		if an.facts.Undefined = a.undefined; a.undefined != nil && a.undefinedAt > 0 {
			a.undefined.Position = utf8.RuneCountInString(text[:min(a.undefinedAt, len(text))]) + 1
		}
		return an, nil
	}
	if a.altered {
		if an.tree, err = proto.Marshal(parsed); err != nil {
			return nil, fmt.Errorf("write tree: %w", err)
		}
	}
	an.facts.Complete, an.facts.Statements = true, a.statements
	if !an.plain && !a.other {
		if an.once.Do(func() { an.canonical, an.err = p.Deparse(ctx, an.tree) }); an.err != nil {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("re-emit: %w", an.err)
			}
			an.facts = &sql.Facts{Incomplete: "it cannot be written back with certainty; say it in a simpler way"}
		}
	}
	return an, nil
}

// Facts is SQLFacts, as engines hand it on.
func (an *Analysis) Facts() any { return an.facts }

// SQLFacts is what the text does.
func (an *Analysis) SQLFacts() *sql.Facts { return an.facts }

// Plain reports whether the client's own bytes cannot mean anything else.
func (an *Analysis) Plain() bool { return an.plain }

// Canonical is the text as it was understood, written anew; several statements are
// joined by "; ". It is empty where the text cannot be written back with certainty.
func (an *Analysis) Canonical() string {
	an.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), rewriteTimeout)
		defer cancel()
		an.canonical, an.err = an.parser.Deparse(ctx, an.tree)
	})
	return an.canonical
}

// Shed forgets the tree: what is judged is kept for much longer than it is rewritten. Of
// Canonical there is what was asked for before.
func (an *Analysis) Shed() {
	an.once.Do(func() { an.err = errShed })
	an.tree = nil
}

var errShed = errors.New("the tree is not kept any more")

// analyzer is one pass over one text. The first problem ends it: what follows is visited
// without a promise.
type analyzer struct {
	cat  *sql.Catalog
	path []string
	held []string // search_path as the session began with it

	statements []sql.Statement
	st         *sql.Statement // the current one
	uses       []*use         // of the current one
	locks      bool           // FOR UPDATE in the current one
	moved      bool           // a setting that decides what names mean was changed
	defined    bool           // an earlier statement may have changed what names mean
	defining   bool           // in a definition, where names may be new
	depth      int

	references []*reference
	qualified  []qualified
	returnings []returning
	changes    []changed
	selections []selection
	groupings  []grouping
	positional []*use
	sizes      []size
	sizesNoted int // calls that may ask for a size, however they are written

	visited int // messages
	work    int // steps
	altered bool
	other   bool // a statement has no model
	problem string

	undefined   *sql.Undefined // where the problem is a name that does not exist
	undefinedAt int            // its place in bytes; not positive where it is unknown
}

// qualified is a column that is named with its schema.
type qualified struct {
	ref  *pg.ColumnRef
	item *item
}

func newAnalyzer(cat *sql.Catalog, set Settings) *analyzer {
	return &analyzer{cat: cat, path: searchPath(cat, set), held: set.SearchPath}
}

// saw counts messages that a rule has visited.
func (a *analyzer) saw(n int) { a.visited += n }

// spend counts steps, so that a short text cannot keep the analyser busy for long.
func (a *analyzer) spend(steps int) {
	if a.work += steps; a.work > maxWork {
		a.giveUp("it takes too long to understand")
	}
}

// giveUp makes the facts incomplete. The reason is a clause for whoever wrote the text.
func (a *analyzer) giveUp(format string, args ...any) {
	if a.problem == "" {
		a.problem = fmt.Sprintf(format, args...)
	}
}

// noColumn gives up because of a name, at a place in the text, that no column has. The reason
// is as the server says it, which calls the column so. No more is
// noted of columns that every table has, and in a definition, where verbs do not say which
// relations may be named.
func (a *analyzer) noColumn(at int32, name, called string) {
	if a.defining || systemColumns[name] {
		a.giveUp("column %s does not exist", called)
		return
	}
	a.missing(postern.UndefinedColumn, at, name, "column %s does not exist", called)
}

// noEntry gives up because of a name, at a place in the text, that no entry of FROM has.
func (a *analyzer) noEntry(at int32, name string) {
	a.missing(postern.UndefinedRelation, at, "", "missing FROM-clause entry for table %s", sql.Quote(name))
}

// missing gives up because of a name, at a place in the text, that nothing of its kind has in
// the catalogue. After a definition in the same text the name may be what that has made.
func (a *analyzer) missing(kind postern.Undefined, at int32, name, format string, args ...any) {
	if a.defined {
		a.giveUp(definedBefore)
	}
	if a.problem == "" {
		a.undefined, a.undefinedAt = &sql.Undefined{Kind: kind, Name: name}, int(at)
		for _, u := range a.uses {
			a.undefined.Tables = append(a.undefined.Tables, u.table())
		}
	}
	a.giveUp(format, args...)
}

// run visits all statements and makes sure that nothing was left out: every message of
// the tree was visited by a rule, and no field is there that no rule knows.
func (a *analyzer) run(parsed *pg.ParseResult, tree []byte) {
	for _, raw := range parsed.Stmts {
		a.statement(raw.Stmt)
		if hole.Is("analyse-several") {
			return
		}
		if a.problem != "" {
			return
		}
	}
	if a.other {
		return
	}
	messages, unknown, err := known().Survey(tree)
	switch {
	case err != nil:
		a.giveUp("its tree cannot be read")
	case unknown != "":
		a.giveUp("it uses %s, which is not understood", describeName(unknown))
	case messages != a.visited:
		a.giveUp("a part of it is not understood")
	}
}
