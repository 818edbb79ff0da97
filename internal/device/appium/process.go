package appium

import (
	"context"
	"os/exec"
	"syscall"
	"time"
)

// groupCommand is a command in a process group of its own, all of which ends with the context.
func groupCommand(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

func killGroup(pgid int) error { return syscall.Kill(-pgid, syscall.SIGKILL) }
