package main

import (
	"runtime"
	"strings"
	"testing"
)

// TestLineDiff: an object of many lines, of which one changes, is compared in little memory.
func TestLineDiff(t *testing.T) {
	for _, c := range [][3]string{
		{"", "", ""}, {"a\n", "", "- a\n"}, {"", "a\nb\n", "+ a\n+ b\n"}, {"a\nb\n", "a\nb\n", "  a\n  b\n"},
		{"a\nx\nb\n", "a\ny\nb\n", "  a\n- x\n+ y\n  b\n"}, {"a\na\n", "a\n", "  a\n- a\n"}, {"a\nb\nc\nd\n", "b\nx\nd\n", "- a\n  b\n- c\n+ x\n  d\n"},
	} {
		if got := lineDiff(c[0], c[1]); got != c[2] {
			t.Errorf("%q to %q: %q, want %q", c[0], c[1], got, c[2])
		}
	}
	many := strings.Repeat("- {table: sales.orders, columns: [id]}\n", 4_000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	diff := lineDiff(many+"a\n"+many, many+"b\n"+many)
	runtime.ReadMemStats(&after)
	if !strings.Contains(diff, "\n- a\n+ b\n") || after.TotalAlloc-before.TotalAlloc > 64<<20 {
		t.Errorf("%d bytes for %d lines", after.TotalAlloc-before.TotalAlloc, strings.Count(diff, "\n"))
	}
}
