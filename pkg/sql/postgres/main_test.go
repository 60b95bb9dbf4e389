package postgres_test

import (
	"os"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/sql/worker"
)

// pool is the real parser, shared by all tests.
var pool *worker.Pool

func TestMain(m *testing.M) {
	worker.Main()
	pool = worker.New(worker.Config{Deadline: 10 * time.Second})
	os.Exit(m.Run())
}
