package export

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"sync/atomic"
	"time"

	logsv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/pkg/conf"
)

// Scope names the logs that come from recordings; its version is that of the schema.
const Scope = "postern.recordings"

const (
	otlpTimeout = 20 * time.Second // for one update
	otlpBatch   = 500              // records in one request
	// otlpBytes bounds a request, but for a record that is longer: servers of gRPC take 4 MiB
	// where nobody has told them otherwise.
	otlpBytes = 1 << 20
	maxWhy    = 200 // bytes of a collector's words that are logged
)

// OTLP sends lines as OpenTelemetry logs over gRPC. Each is a log record: its event name
// is the kind, its body the text of a statement or why a session ended, and the fields of
// [Record] are attributes of the same names with "postern." before them. What is denied
// has the severity WARN, the rest INFO. It is safe for concurrent use.
type OTLP struct {
	conn    *grpc.ClientConn
	client  logsv1.LogsServiceClient
	logger  *slog.Logger
	refused atomic.Int64
}

// DialOTLP prepares to send to an endpoint such as https://collector:4317; caFile has the
// CAs that vouch for it, the system's where it is empty. In clear (http) it must be this
// machine. Whether somebody answers shows with the first update.
func DialOTLP(endpoint, caFile string, logger *slog.Logger) (*OTLP, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Path != "" {
		return nil, fmt.Errorf("export: %q is not an endpoint such as https://collector:4317", endpoint)
	}
	var creds credentials.TransportCredentials
	switch {
	case u.Scheme == "https":
		cfg := &tls.Config{MinVersion: tls.VersionTLS12}
		if caFile != "" {
			pem, err := os.ReadFile(caFile)
			if err != nil {
				return nil, fmt.Errorf("export: %w", err)
			}
			if cfg.RootCAs = x509.NewCertPool(); !cfg.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("export: %s has no certificate", caFile)
			}
		}
		creds = credentials.NewTLS(cfg)
	case u.Scheme == "http" && conf.Loopback(u.Hostname()):
		creds = insecure.NewCredentials()
	default:
		return nil, fmt.Errorf("export: %q: what was recorded goes over TLS (https), or to this machine", endpoint)
	}
	conn, err := grpc.NewClient("dns:///"+u.Host, grpc.WithTransportCredentials(creds))
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return &OTLP{conn: conn, client: logsv1.NewLogsServiceClient(conn), logger: logger}, nil
}

// Write sends records, and returns once they were taken. What the collector refuses of a
// request that it has taken it would refuse again: the protocol forbids to send that anew
// (opentelemetry.io/docs/specs/otlp, partial success). It is logged and counted.
func (o *OTLP) Write(records []Record) error {
	ctx, cancel := context.WithTimeout(context.Background(), otlpTimeout)
	defer cancel()
	logs, err := logRecords(records, time.Now())
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	for len(logs) > 0 {
		n := batch(logs)
		resp, err := o.client.Export(ctx, request(logs[:n]))
		if err != nil {
			return fmt.Errorf("export to the collector: %w", err)
		}
		if p := resp.GetPartialSuccess(); p.GetRejectedLogRecords() > 0 {
			o.refused.Add(p.GetRejectedLogRecords())
			o.logger.ErrorContext(ctx, "the collector refused records; they are in the recordings and the audit log alone",
				"refused", p.GetRejectedLogRecords(), "of", n, "why", fmt.Sprintf("%.*s", maxWhy, p.GetErrorMessage()))
		}
		logs = logs[n:]
	}
	return nil
}

// Refused is how many records the collector has refused since the start.
func (o *OTLP) Refused() int64 { return o.refused.Load() }

// batch is how many of the first logs go in one request: one at the least.
func batch(logs []*logv1.LogRecord) int {
	n, size := 0, 0
	for n < min(len(logs), otlpBatch) {
		if size += proto.Size(logs[n]); size > otlpBytes && n > 0 {
			break
		}
		n++
	}
	return n
}

// Close ends the connection.
func (o *OTLP) Close() error { return o.conn.Close() }

func logRecords(records []Record, now time.Time) ([]*logv1.LogRecord, error) {
	logs := make([]*logv1.LogRecord, 0, len(records))
	for i := range records {
		r := &records[i]
		attributes, err := attributes(r)
		if err != nil {
			return nil, err
		}
		l := &logv1.LogRecord{
			TimeUnixNano: nanos(r.Time), ObservedTimeUnixNano: nanos(now), EventName: "postern." + r.Kind, Attributes: attributes,
			SeverityNumber: logv1.SeverityNumber_SEVERITY_NUMBER_INFO, SeverityText: "INFO",
		}
		if r.Verdict == "deny" || r.Kind == KindAlert {
			l.SeverityNumber, l.SeverityText = logv1.SeverityNumber_SEVERITY_NUMBER_WARN, "WARN"
		}
		body := r.Text
		switch r.Kind {
		case KindEnded:
			body = r.Reason
		case KindAudit:
			body = r.Action
		}
		if body != "" {
			l.Body = textValue(body)
		}
		logs = append(logs, l)
	}
	return logs, nil
}

func request(logs []*logv1.LogRecord) *logsv1.ExportLogsServiceRequest {
	return &logsv1.ExportLogsServiceRequest{ResourceLogs: []*logv1.ResourceLogs{{
		Resource:  &resourcev1.Resource{Attributes: []*commonv1.KeyValue{{Key: "service.name", Value: textValue("postern-control")}}},
		ScopeLogs: []*logv1.ScopeLogs{{Scope: &commonv1.InstrumentationScope{Name: Scope, Version: "1"}, LogRecords: logs}},
	}}}
}

func nanos(t time.Time) uint64 { return uint64(max(t.UnixNano(), 0)) } //nolint:gosec // not negative

// attributes are the fields of the line: one schema for both ways.
func attributes(r *Record) ([]*commonv1.KeyValue, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(line, &fields); err != nil {
		return nil, err
	}
	delete(fields, "time")
	delete(fields, "schema")
	return pairs("postern.", fields), nil
}

// pairs are the fields in order of their names.
func pairs(prefix string, fields map[string]any) []*commonv1.KeyValue {
	var out []*commonv1.KeyValue
	for name, v := range fields {
		out = append(out, &commonv1.KeyValue{Key: prefix + name, Value: value(v)})
	}
	slices.SortFunc(out, func(a, b *commonv1.KeyValue) int {
		if a.GetKey() < b.GetKey() {
			return -1
		}
		return 1
	})
	return out
}

func value(v any) *commonv1.AnyValue {
	switch v := v.(type) {
	case string:
		return textValue(v)
	case float64: // every number of a Record is whole
		return &commonv1.AnyValue{Value: &commonv1.AnyValue_IntValue{IntValue: int64(v)}}
	case []any:
		list := &commonv1.ArrayValue{}
		for _, e := range v {
			list.Values = append(list.Values, value(e))
		}
		return &commonv1.AnyValue{Value: &commonv1.AnyValue_ArrayValue{ArrayValue: list}}
	case map[string]any:
		return &commonv1.AnyValue{Value: &commonv1.AnyValue_KvlistValue{KvlistValue: &commonv1.KeyValueList{Values: pairs("", v)}}}
	}
	return nil
}

func textValue(s string) *commonv1.AnyValue {
	return &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: s}}
}
