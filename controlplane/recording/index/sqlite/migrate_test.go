package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/record"
)

// TestMigrate brings a file of the first version up to date, with all that it has.
func TestMigrate(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "index.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	const first = "00001_sessions.sql"
	text, err := os.ReadFile(filepath.Join("migrations", first))
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, fstest.MapFS{first: {Data: text}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Up(ctx); err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	for i, id := range []string{"s-1", "s-2"} {
		for _, q := range []string{
			fmt.Sprintf(`INSERT INTO session VALUES ('%s','alice','g','t','warehouse','postgres','n1','eu','10.0.0.7:4711','psql','e',3,%d,0,'',3,1,2,30,'open',
				1, zeroblob(32), 1, 4, 0, 0, 0, 'n1', 4, 3, x'')`, id, began.Add(time.Duration(i)*time.Hour).UnixMicro()),
			`INSERT INTO chunk VALUES ('` + id + `', 0, zeroblob(32), 100)`,
			fmt.Sprintf(`INSERT INTO statement VALUES ('%s',1,2,%d,'SELECT email FROM sales.customers',3,'r','','[{"Column":"sales.customers.email","Role":1,"Mask":"email"},{"Column":"sales.customers.id","Role":4,"Mask":""}]',3,5,-1,'','SELECT 5',1000)`,
				id, began.Add(time.Duration(i)*time.Hour).UnixMicro()),
			fmt.Sprintf(`INSERT INTO statement VALUES ('%s',2,3,%d,'DROP TABLE x',1,'r','no','null',NULL,NULL,NULL,NULL,NULL,NULL)`, id, began.Add(time.Duration(i)*time.Hour).UnixMicro()),
			fmt.Sprintf(`INSERT INTO statement VALUES ('%s',3,4,%d,'',1,'r','','null',1,0,0,'','',0)`, id, began.Add(time.Duration(i)*time.Hour).UnixMicro()),
		} {
			if _, err := db.ExecContext(ctx, q); err != nil {
				t.Fatalf("%s: %v", q, err)
			}
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	x := open(t, path)
	s, err := x.Session(ctx, "s-2")
	if err != nil || s.GetSubject() != "alice" || s.GetStatements() != 3 || s.GetChunks() != 1 || s.GetEndTime() != nil || !s.GetStartTime().AsTime().Equal(began.Add(time.Hour)) {
		t.Errorf("%v, %v", s, err)
	}
	if h, err := x.Head(ctx, "s-2"); err != nil || h.Next != 1 || h.Node != "n1" {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := x.Chunk(ctx, "s-1", 0); err != nil {
		t.Error(err)
	}
	rows, err := x.Statements(ctx, "s-1", 0, 10)
	if err != nil || len(rows) != 3 || rows[0].Outcome.Tag != "SELECT 5" || rows[0].Touched[1].Role != record.RolePredicate || rows[1].Reason != "no" || rows[1].Outcome != nil || rows[2].Text != "" {
		t.Errorf("%+v, %v", rows, err)
	}
	if found, err := x.Search(ctx, index.Query{Text: "customers", Limit: 10}); err != nil || len(found) != 2 || found[0].Session.GetId() != "s-2" {
		t.Errorf("%v, %v", found, err)
	}
	for name, role := range map[string]record.Role{"sales.customers.email": 1, "sales.customers": 5} {
		uses, err := x.Who(ctx, index.Who{Name: name, Until: began.Add(time.Minute), Limit: 10})
		if err != nil || len(uses) != 1 || uses[0].Session.GetId() != "s-1" || uses[0].Roles != role || uses[0].Statements != 1 {
			t.Errorf("%s: %+v, %v", name, uses, err)
		}
		if uses, err := x.Who(ctx, index.Who{Name: name, Limit: 10}); err != nil || len(uses) != 2 || uses[0].Roles != role {
			t.Errorf("%s: %+v, %v", name, uses, err)
		}
	}
	if used, err := x.Usage(ctx, index.Usage{Subject: "alice"}); err != nil || len(used) != 1 || used[0].ClientHost != "10.0.0.7" || used[0].Sessions != 2 {
		t.Errorf("%+v, %v", used, err)
	}
}
