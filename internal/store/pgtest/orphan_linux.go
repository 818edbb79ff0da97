package pgtest

import "syscall"

// dieWithParent ends the cluster, fast and clean, when the test binary is killed before it could stop it.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGINT }
