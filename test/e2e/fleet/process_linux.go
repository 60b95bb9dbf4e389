package fleet

import "syscall"

// dieWithParent has the kernel end a child whose test was killed.
func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
