// Package load is where clients of the benchmark go.
package load

import (
	"os"
	"strconv"
)

// Where is what a client connects to.
type Where struct {
	Host     string
	Port     int
	User     string
	Password string
	Database string
	CA       string // PEM file; empty speaks without TLS
}

// Env is what libpq's programs take.
func (w Where) Env() []string {
	mode := "disable"
	if w.CA != "" {
		mode = "verify-full"
	}
	return []string{
		"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "PGHOST=" + w.Host, "PGPORT=" + strconv.Itoa(w.Port), "PGUSER=" + w.User, "PGPASSWORD=" + w.Password,
		"PGDATABASE=" + w.Database, "PGSSLMODE=" + mode, "PGSSLROOTCERT=" + w.CA, "PGCONNECT_TIMEOUT=30", "PGGSSENCMODE=disable",
	}
}
