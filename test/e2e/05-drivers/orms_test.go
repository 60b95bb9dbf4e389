package drivers

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// orm is what every ORM must see: it lists with relations, groups, finds one with what
// belongs to it, and creates, changes, restores and deletes.
var orm = facts{
	"order.0":                 "1 paid ***",
	"order.1":                 "2 paid ***",
	"order.2":                 "3 paid ***",
	"countries":               "6",
	"masked":                  "*** ************2222",
	"orders":                  "1",
	"found by a masked value": "0",
	"refused":                 "42501 " + common["refused.message"],
	"created":                 "10",
	"updated":                 "3",
	"upserted":                "again",
	"undone":                  "true",
	"deleted":                 "10",
}

// orms have object mappers do their ordinary work.
func (s *shop) orms(t *testing.T) {
	for _, o := range []struct {
		name  string
		parts []part
		run   func(t *testing.T) facts
	}{
		{"gorm", nil, func(t *testing.T) facts { return s.run(t, goDrivers(t), "gorm") }},
		{"sqlalchemy", []part{psycopg2, sqlalchemy}, func(t *testing.T) facts { return s.run(t, debianPython, "orm_sqlalchemy.py") }},
		{"drizzle", []part{node}, func(t *testing.T) facts {
			t.Setenv("NODE_PATH", nodeModules(t))
			return s.run(t, "node", "orm_drizzle.cjs")
		}},
		{"django", []part{psycopg2, djangoORM}, func(t *testing.T) facts { return s.run(t, debianPython, "orm_django.py") }},
		{"activerecord", []part{activeRecord}, func(t *testing.T) facts { return s.run(t, debianRuby, "orm_activerecord.rb") }},
	} {
		t.Run(o.name, func(t *testing.T) {
			need(t, o.parts...)
			alike(t, o.run(t), orm)
		})
	}
}

// goDrivers is the program of test/tools/go-drivers, built anew.
func goDrivers(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "go-drivers")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-mod=readonly", "-o", program, ".")
	cmd.Dir = filepath.Join("..", "..", "tools", "go-drivers")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build of test/tools/go-drivers: %v\n%s", err, out)
	}
	return program
}
