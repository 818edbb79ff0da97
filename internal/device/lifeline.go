package device

import (
	"os"
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

// LifelineCommand is a command, in a process group of its own, that does not outlive this process. StartProcess
// starts it: its descriptor 3 is the read end of a pipe whose write end stays open here.
func LifelineCommand(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", append([]string{"-c", lifelineScript, "sh", name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// Process is a command of LifelineCommand that runs.
type Process struct {
	PID int // of the command, and of its process group

	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid when done is closed
}

// StartProcess starts a command of LifelineCommand.
func StartProcess(cmd *exec.Cmd) (*Process, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd.ExtraFiles = []*os.File{read}
	if err := cmd.Start(); err != nil {
		write.Close()
		return nil, err
	}
	p := &Process{PID: cmd.Process.Pid, cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
		syscall.Kill(-p.PID, syscall.SIGKILL) // what it started, and the watcher, which has kept the group's id from being used again
		write.Close()
	}()
	return p, nil
}

// Done is closed when the command and its whole process group have ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the command ended, as of exec.Cmd.Wait. It is valid when Done is closed.
func (p *Process) Err() error { return p.err }

// Gone says whether nothing is left.
func (p *Process) Gone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Signal tells the command. One that has ended is told nothing, whoever has its id by now.
func (p *Process) Signal(sig os.Signal) { p.cmd.Process.Signal(sig) }

// Stop asks the command to end, and kills it when it has not after so long. It returns when nothing is left.
func (p *Process) Stop(patience time.Duration) {
	p.Signal(syscall.SIGTERM)
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-p.done:
	case <-late.C:
		p.Kill()
	}
}

// Kill ends the command with its process group, and returns when nothing is left.
func (p *Process) Kill() {
	if !p.Gone() {
		syscall.Kill(-p.PID, syscall.SIGKILL)
		<-p.done
	}
}
