package appwright

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

const (
	// termGrace is how long a process group has between SIGTERM and SIGKILL.
	termGrace = 10 * time.Second
	// drainGrace is how long output is read on after the process has ended while something holds its pipe.
	drainGrace = 2 * time.Second
	// killGrace is how long it is tried to end what SIGKILL did not end.
	killGrace = 5 * time.Second
	// groupPoll is how often it is looked whether the rest of a group has gone.
	groupPoll = 50 * time.Millisecond
	// familyPoll is how often it is looked what a process has started: what leaves its group and its
	// environment behind within less is not found when its parent has ended.
	familyPoll = 500 * time.Millisecond
)

// markVariable is in the environment of every process of a run, with a value of that run's own: it finds
// descendants that left the process group.
const markVariable = "QGJOB_RUN_MARK"

type command struct {
	path           string
	args           []string
	dir            string
	env            []string
	stdin          io.Reader // nil: nothing to read
	stdout, stderr io.Writer
}

// process is a child in a process group of its own. When wait returns, nothing of it is left: neither the
// group nor, on Linux, a descendant that left the group.
type process struct {
	cmd    *exec.Cmd
	mark   string // in its environment, as the value of markVariable
	family *family
	grace  time.Duration // between SIGTERM and SIGKILL
	done   chan struct{} // closed when the child has ended
	err    error         // valid then
}

func startProcess(c command) (*process, error) {
	mark := make([]byte, 16)
	rand.Read(mark)
	p := &process{cmd: exec.Command(c.path, c.args...), mark: hex.EncodeToString(mark), grace: termGrace, done: make(chan struct{})}
	p.cmd.Dir = c.dir
	p.cmd.Env = append(c.env, markVariable+"="+p.mark)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = c.stdin, c.stdout, c.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = drainGrace
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.family = newFamily(p.cmd.Process.Pid, p.mark)
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// wait returns when the child has ended, by itself or because ctx was done: then its group gets SIGTERM,
// and SIGKILL when its grace is over.
func (p *process) wait(ctx context.Context) exit {
	if !p.watch(ctx) {
		p.signal(syscall.SIGTERM)
		if !p.until(p.ended, p.grace) {
			p.kill()
			<-p.done
		}
	}
	p.sweep()
	return exitOf(p.cmd.ProcessState, p.err)
}

// watch looks at what the child starts until it has ended or ctx is done.
func (p *process) watch(ctx context.Context) (ended bool) {
	look := time.NewTicker(familyPoll)
	defer look.Stop()
	for {
		select {
		case <-p.done:
			return true
		case <-ctx.Done():
			return false
		case <-look.C:
			p.family.look()
		}
	}
}

// sweep ends what the child left behind.
func (p *process) sweep() {
	if p.gone() {
		return
	}
	p.signal(syscall.SIGTERM)
	if !p.until(p.gone, p.grace) {
		p.kill()
	}
}

// kill ends the family, and what one of it starts between two looks. What no signal ends, as one in an
// uninterruptible call of the kernel, is left after killGrace.
func (p *process) kill() {
	p.until(func() bool {
		p.signal(syscall.SIGKILL)
		return p.gone()
	}, killGrace)
}

func (p *process) gone() bool { return len(p.family.living()) == 0 }

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// until looks whether something is so until it is, or the time is over.
func (p *process) until(so func() bool, within time.Duration) bool {
	deadline := time.Now().Add(within)
	for !so() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(groupPoll)
	}
	return true
}

// signal signals the family, the child first: it may have its own way to end its children, and take the
// death of one that it waits for as its own end.
func (p *process) signal(sig syscall.Signal) {
	living := p.family.living()
	if at := slices.Index(living, p.cmd.Process.Pid); at > 0 {
		living[0], living[at] = living[at], living[0]
	}
	for _, pid := range living {
		syscall.Kill(pid, sig)
	}
}

// exit is how a process ended.
type exit struct {
	code   int    // -1 when a signal ended it
	signal string // empty when none did
}

func (e exit) ok() bool { return e.code == 0 && e.signal == "" }

func (e exit) String() string {
	if e.signal != "" {
		return "ended by signal " + e.signal
	}
	return fmt.Sprintf("exit code %d", e.code)
}

func exitOf(state *os.ProcessState, err error) exit {
	if state == nil {
		return exit{code: -1, signal: fmt.Sprintf("unknown (%v)", err)}
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exit{code: -1, signal: status.Signal().String()}
	}
	return exit{code: state.ExitCode()}
}
