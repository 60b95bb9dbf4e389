package telemetry

import (
	"log/slog"
	"reflect"
)

// basic turns named strings, numbers and booleans into what they are underneath.
func basic(v any) (slog.Value, bool) {
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.String:
		return slog.StringValue(r.String()), true
	case reflect.Bool:
		return slog.BoolValue(r.Bool()), true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return slog.Int64Value(r.Int()), true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return slog.Uint64Value(r.Uint()), true
	case reflect.Float32, reflect.Float64:
		return slog.Float64Value(r.Float()), true
	}
	return slog.Value{}, false
}
