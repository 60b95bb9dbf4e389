//go:build holes

package hole

import "os"

// Is reports whether a hole is open: the one that POSTERN_HOLE names.
func Is(name string) bool { return os.Getenv("POSTERN_HOLE") == name }
