package fuzz

import (
	"bytes"
	"context"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/test/servers"
	"github.com/posterngate/postern/test/twoworlds/generate"
)

// random are clauses that give other rows each time.
var random = regexp.MustCompile(`tablesample (system|bernoulli) \([0-9.]+\)`)

// unsampled are statements without samples: of what is read through views none are taken.
func unsampled(list []generate.Statement) []generate.Statement {
	out := slices.Clone(list)
	for i := range out {
		out[i].Texts = slices.Clone(out[i].Texts)
		for k, text := range out[i].Texts {
			out[i].Texts[k] = sample.ReplaceAllString(text, "")
		}
	}
	return out
}

var sample = regexp.MustCompile(random.String() + ` repeatable \(1\)`)

// Sqlsmith is n statements of sqlsmith for a seed. It reads a catalogue of its own, which
// has the columns of the task alone, and as functions those that a task may always call:
// what it writes beside them would only be refused. Nothing is executed there.
func Sqlsmith(t testing.TB, pg *servers.PG, seed uint64, n int) []generate.Statement {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, servers.Sqlsmith(t), "--target="+pg.SuperDSN("smith"), "--seed="+strconv.FormatUint(seed, 10),
		"--dry-run", "--exclude-catalog", "--max-queries="+strconv.Itoa(n))
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("sqlsmith: %v: %.500s", err, said.String())
	}
	var list []generate.Statement
	for text := range strings.SplitSeq(out.String(), ";\n") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		s := generate.Statement{Masked: strings.Contains(text, "email"), Constructs: []string{"sqlsmith"}}
		text = random.ReplaceAllString(text, "$0 repeatable (1)")
		s.Texts = []string{text}
		switch verb, _, _ := strings.Cut(text, " "); strings.ToLower(verb) {
		case "select", "with":
		default:
			s.Writes, s.Texts = true, []string{"BEGIN", text, "ROLLBACK"}
		}
		list = append(list, s)
	}
	if len(list) < n/2 {
		t.Fatalf("sqlsmith gave %d statements of %d: %.500s", len(list), n, said.String())
	}
	return list
}

// Smithy starts the server whose catalogue sqlsmith reads.
func Smithy(t testing.TB) *servers.PG {
	t.Helper()
	pg := servers.Postgres(t, servers.PGOptions{})
	pg.SQL(t, "CREATE DATABASE smith")
	pg.SQLIn(t, "smith", string(must(testdata.ReadFile("testdata/smith.sql"))))
	return pg
}
