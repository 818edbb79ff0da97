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

// lifelineScript turns itself into the command in its arguments and leaves a watcher in the command's
// process group. The watcher holds the read end of a pipe (descriptor 3) whose only write end is in the
// process that started it: when that dies, even by SIGKILL, the pipe ends and the watcher kills the whole
// group, the command's children included. It works on every Unix; Linux's parent-death signal would
// reach the command alone, and is tied to a thread.
const lifelineScript = `(read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 & exec "$@" 3<&-`

// lifelineCommand is a command that does not outlive this process. Its descriptor 3 must be the pipe.
func lifelineCommand(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", append([]string{"-c", lifelineScript, "sh", name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 2 * time.Second
	return cmd
}
