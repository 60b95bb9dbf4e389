//go:build !holes

// Package hole holds the names of faults that are planted on purpose, to show that the
// tests find them. Without the build tag holes there are none: Is is false, which the
// compiler knows, and nothing of a hole is in a binary.
package hole

// Is reports whether a hole is open.
func Is(string) bool { return false }
