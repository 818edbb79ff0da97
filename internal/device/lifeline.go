package device

import (
	"os/exec"
	"syscall"
	"time"
)

// lifelineScript turns itself into the command in its arguments and leaves a watcher in the command's
// process group. The watcher holds the read end of a pipe (descriptor 3) whose only write end is in the
// process that started it: when that dies, even by SIGKILL, the pipe ends and the watcher kills the whole
// group, the command's children included. It works on every Unix; Linux's parent-death signal would
// reach the command alone, and is tied to a thread.
const lifelineScript = `(read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 & exec "$@" 3<&-`

// LifelineCommand is a command, in a process group of its own, that does not outlive this process. Its
// descriptor 3 (the first of ExtraFiles) must be the read end of a pipe whose write end stays open here.
func LifelineCommand(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", append([]string{"-c", lifelineScript, "sh", name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 2 * time.Second
	return cmd
}
