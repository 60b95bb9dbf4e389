package wall

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
)

const (
	// maxLog is how much of the end of the server's log is read, in bytes.
	maxLog = 1 << 20
	// maxRefused bounds the refused logins of one report.
	maxRefused = 1000
)

// refusedLogins reads from the server's own log who was refused a login since then. That
// takes a log that the server collects, as JSON or CSV, and an admin that may read it.
func refusedLogins(ctx context.Context, conn *pgx.Conn, since time.Time) ([]*nodev1.RefusedLogin, error) {
	for _, format := range []struct {
		name string
		read func([]byte, time.Time) []*nodev1.RefusedLogin
	}{{"jsonlog", refusedJSON}, {"csvlog", refusedCSV}} {
		var file *string
		if err := conn.QueryRow(ctx, "SELECT pg_current_logfile($1)", format.name).Scan(&file); err != nil {
			return nil, errors.New("the admin credential may not ask for the server's log: grant pg_monitor or, before PostgreSQL 16, execution of pg_current_logfile(text)")
		}
		if file == nil {
			continue
		}
		var tail []byte
		err := conn.QueryRow(ctx, "SELECT pg_read_binary_file($1, greatest(0, s.size - $2), $2) FROM pg_stat_file($1) s", *file, maxLog).Scan(&tail)
		if err != nil {
			return nil, errors.New("the admin credential may not read the server's log: grant pg_read_server_files, and execution of pg_stat_file")
		}
		if len(tail) == maxLog { // it begins within a line
			_, tail, _ = bytes.Cut(tail, []byte("\n"))
		}
		return format.read(tail, since), nil
	}
	return nil, errors.New("the server's log cannot be read here: set logging_collector = on, and jsonlog or csvlog in log_destination")
}

// refusedText is what the server says of a login with a wrong password.
var refusedText = regexp.MustCompile(`^password authentication failed for user "(.+)"$`)

// refusedJSON reads lines of jsonlog; what is none is passed over.
func refusedJSON(log []byte, since time.Time) (out []*nodev1.RefusedLogin) {
	for line := range bytes.Lines(log) {
		var l struct {
			Timestamp, Message string
			RemoteHost         string `json:"remote_host"`
		}
		if json.Unmarshal(line, &l) == nil {
			out = refused(out, l.Timestamp, l.RemoteHost, l.Message, since)
		}
	}
	return out
}

// refusedCSV reads csvlog: the time, the address with its port, and the message are fields
// of fixed places since version 9.
func refusedCSV(log []byte, since time.Time) (out []*nodev1.RefusedLogin) {
	r := csv.NewReader(bytes.NewReader(log))
	r.FieldsPerRecord, r.LazyQuotes, r.ReuseRecord = -1, true, true
	for {
		f, err := r.Read()
		if errors.Is(err, io.EOF) || err != nil && f == nil {
			return out
		}
		if len(f) < 14 {
			continue
		}
		host, _, err := net.SplitHostPort(f[4])
		if err != nil {
			host = f[4]
		}
		out = refused(out, f[0], host, f[13], since)
	}
}

// refused adds a line that tells of a refused login.
func refused(out []*nodev1.RefusedLogin, at, host, message string, since time.Time) []*nodev1.RefusedLogin {
	m := refusedText.FindStringSubmatch(message)
	if m == nil || len(out) >= maxRefused {
		return out
	}
	when, err := time.Parse("2006-01-02 15:04:05.999 MST", at)
	if err != nil || when.Before(since) {
		return out
	}
	if host == "[local]" {
		host = ""
	}
	return append(out, &nodev1.RefusedLogin{Account: clip(m[1]), Host: clip(host), Time: timestamppb.New(when)})
}

// clip bounds a text of the log.
func clip(s string) string { return fmt.Sprintf("%.128s", s) }
