//go:build !linux

package pgtest

import "syscall"

// dieWithParent is Linux's: elsewhere a killed test binary leaves its cluster behind.
func dieWithParent(*syscall.SysProcAttr) {}
