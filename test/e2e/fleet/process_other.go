//go:build unix && !linux

package fleet

import "syscall"

// dieWithParent does nothing where the kernel offers nothing.
func dieWithParent(*syscall.SysProcAttr) {}
