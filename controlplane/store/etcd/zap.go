package etcd

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// core hands etcd's own log to ours: warnings and worse, under one message, since their
// texts are not constant.
type core struct {
	log  *slog.Logger
	mute *atomic.Bool // set on the way out, when etcd reports every socket that it closes as an error
}

// expected are warnings of a server of our own that are none: it has one client, and that is this
// process.
var expected = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"simple token is not cryptographically signed":                                         true,
}

func newCore(l *slog.Logger) core { return core{l, new(atomic.Bool)} }

func level(l zapcore.Level) slog.Level {
	if l >= zapcore.ErrorLevel {
		return slog.LevelError
	}
	return slog.LevelWarn
}

func (c core) Enabled(l zapcore.Level) bool {
	return l >= zapcore.WarnLevel && !c.mute.Load() && c.log.Enabled(context.Background(), level(l))
}

func attrs(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	out := make([]any, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		out = append(out, slog.Any(k, v))
	}
	return out
}

func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{c.log.With(attrs(fields)...), c.mute}
}

func (c core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !expected[e.Message] {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.Log(context.Background(), level(e.Level), "etcd says", append(attrs(fields), slog.String("text", e.Message))...)
	return nil
}

func (core) Sync() error { return nil }
