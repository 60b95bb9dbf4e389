// Package telemetry sets up what operators see: structured logs, traces and metrics.
// Logs and spans carry names, ids and counts, and never a statement, a row or a secret;
// what people did is the business of recordings and the audit log.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/protobuf/proto"
)

// Config says where telemetry goes. The zero Config logs text at level info, keeps
// metrics for /metrics, and traces nowhere.
type Config struct {
	// LogLevel: debug, info (default), warn or error.
	LogLevel string `json:"logLevel"`
	// LogFormat: text (default) or json.
	LogFormat string `json:"logFormat"`
	// OTLP is the endpoint that takes traces over gRPC, such as
	// https://collector:4317; empty sends none.
	OTLP string `json:"otlp"`
	// SampleRatio is the share of new traces that are kept, from 0 to 1; 0 means all.
	SampleRatio float64 `json:"sampleRatio"`
	// Profiling serves Go's profiles beside /metrics, at /debug/pprof/. Off where empty:
	// a profile shows names of functions, and taking one costs time.
	Profiling bool `json:"profiling"`
}

// Check says what is wrong.
func (c Config) Check() error {
	if c.SampleRatio < 0 || c.SampleRatio > 1 {
		return fmt.Errorf("telemetry.sampleRatio: %v is not from 0 to 1", c.SampleRatio)
	}
	if u, err := url.Parse(c.OTLP); c.OTLP != "" && (err != nil || u.Host == "") {
		return fmt.Errorf("telemetry.otlp: %q is not a URL", c.OTLP)
	}
	_, err := NewLogger(c, io.Discard)
	return err
}

// T is telemetry as it was set up. Metrics is the Prometheus endpoint.
type T struct {
	Logger    *slog.Logger
	Metrics   http.Handler
	profiling bool
	shutdown  []func(context.Context) error
}

// Setup makes the process's telemetry: service is postern-node or the like, instance
// its name. It sets the global OpenTelemetry providers, so it is called once, by mains
// and what stands in for them. The caller must Shutdown.
func Setup(ctx context.Context, cfg Config, service, instance string, w io.Writer) (*T, error) {
	logger, err := NewLogger(cfg, w)
	if err != nil {
		return nil, err
	}
	res := resource.NewSchemaless(attribute.String("service.name", service), attribute.String("service.instance.id", instance))
	t := &T{Logger: logger.With("service", service), profiling: cfg.Profiling}

	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exp, err := otelprom.New(otelprom.WithRegisterer(reg), otelprom.WithoutScopeInfo(), otelprom.WithProducer(producer{}))
	if err != nil {
		return nil, fmt.Errorf("telemetry: prometheus: %w", err)
	}
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exp), sdkmetric.WithResource(res))
	t.shutdown = append(t.shutdown, mp.Shutdown)
	t.Metrics = promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	otel.SetMeterProvider(mp)

	otel.SetTextMapPropagator(propagation.TraceContext{})
	if cfg.OTLP != "" {
		exp, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(cfg.OTLP))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("telemetry: otlp: %w", err), t.Shutdown(ctx))
		}
		ratio := cfg.SampleRatio
		if ratio == 0 {
			ratio = 1
		}
		tp := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exp), sdktrace.WithResource(res),
			sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio))))
		t.shutdown = append(t.shutdown, tp.Shutdown)
		otel.SetTracerProvider(tp)
	}
	return t, nil
}

// Shutdown sends what is still held back.
func (t *T) Shutdown(ctx context.Context) error {
	var errs []error
	for _, f := range t.shutdown {
		errs = append(errs, f(ctx))
	}
	return errors.Join(errs...)
}

// NewLogger makes a logger that writes to w; nil means standard error.
func NewLogger(cfg Config, w io.Writer) (*slog.Logger, error) {
	if w == nil {
		w = os.Stderr
	}
	var level slog.Level
	if cfg.LogLevel != "" {
		if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
			return nil, fmt.Errorf("telemetry.logLevel: %q is not debug, info, warn or error", cfg.LogLevel)
		}
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: plain}
	switch cfg.LogFormat {
	case "", "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("telemetry.logFormat: %q is not text or json", cfg.LogFormat)
}

// plain lets through what is known to be harmless when printed: basic kinds, errors,
// named strings and numbers, and values that know how to print themselves. A struct,
// map or message that somebody hands to a logger by mistake shows its type alone.
func plain(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() != slog.KindAny {
		return a
	}
	switch v := a.Value.Any().(type) {
	case nil, error, []string, *slog.Source:
		return a
	case proto.Message:
		return slog.String(a.Key, fmt.Sprintf("(%T)", v)) // its String would print every field
	case fmt.Stringer:
		return slog.String(a.Key, v.String())
	default:
		if s, ok := basic(v); ok {
			return slog.Attr{Key: a.Key, Value: s}
		}
		return slog.String(a.Key, fmt.Sprintf("(%T)", v))
	}
}
