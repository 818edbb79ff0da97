package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopPatience is how long a process may take to end in order before it is killed.
const stopPatience = 20 * time.Second

// Command says what to start.
type Command struct {
	Path string
	Args []string
	Dir  string   // empty: the benchmark's own
	Env  []string // "NAME=value", on top of the benchmark's own environment

	credential *syscall.Credential
	stop       syscall.Signal // zero: SIGTERM
}

// Process is a child. It is in a process group of its own, so that Ctrl-C reaches the benchmark alone, which
// then ends its children in order; and it dies with the benchmark.
type Process struct {
	cmd    *exec.Cmd
	stop   syscall.Signal
	ended  chan struct{}
	err    error // valid once ended is closed
	output tail
}

// Start starts a process that Close ends at the latest.
func (r *Rig) Start(ctx context.Context, c Command) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &Process{stop: c.stop, ended: make(chan struct{})}
	if p.stop == 0 {
		p.stop = syscall.SIGTERM
	}
	p.cmd = exec.Command(c.Path, c.Args...)
	p.cmd.Dir = c.Dir
	p.cmd.Env = append(os.Environ(), c.Env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: c.credential}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	r.mu.Lock()
	r.processes = append(r.processes, p)
	r.mu.Unlock()
	go func() {
		err := p.cmd.Wait()
		if err != nil {
			err = fmt.Errorf("%s: %w; it said: %s", filepath.Base(c.Path), err, p.output.String())
		}
		r.forget(p)
		p.err = err
		close(p.ended)
	}()
	return p, nil
}

func (r *Rig) forget(p *Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.processes = slices.DeleteFunc(slices.Clone(r.processes), func(q *Process) bool { return q == p })
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err is how the process ended, with the end of what it printed. It is nil while it runs.
func (p *Process) Err() error {
	select {
	case <-p.ended:
		return p.err
	default:
		return nil
	}
}

// Stop asks the process to end and waits for it. A process that must be killed is an error, as is one that
// had ended by itself.
func (p *Process) Stop() error {
	select {
	case <-p.ended:
		return p.err
	default:
	}
	_ = p.cmd.Process.Signal(p.stop)
	patience := time.NewTimer(stopPatience)
	defer patience.Stop()
	select {
	case <-p.ended:
		return nil // servers differ in how they exit when asked to; that it ended is what counts
	case <-patience.C:
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("%s did not end within %s of being asked: killed", p.cmd.Path, stopPatience)
	}
}

// Await returns when the address accepts connections, or the error of a process that ended before.
func (p *Process) Await(ctx context.Context, network, address string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.DialTimeout(network, address, time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return errors.Join(fmt.Errorf("%s ended before it served", p.cmd.Path), p.err)
		case <-ctx.Done():
			return fmt.Errorf("%s does not serve on %s: %w; it said: %s", p.cmd.Path, address, ctx.Err(), p.output.String())
		}
	}
}

// RSS is the memory that the process has resident now, in bytes.
func (p *Process) RSS() (int64, error) { return p.status("VmRSS") }

// PeakRSS is the most memory that the process ever had resident, in bytes.
func (p *Process) PeakRSS() (int64, error) { return p.status("VmHWM") }

func (p *Process) status(field string) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", p.cmd.Path, err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("read the memory of %s: no %s", p.cmd.Path, field)
}

// FreeAddress returns a loopback address that was free just now.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// tail keeps the last bytes of what a process printed.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(data []byte) (int, error) {
	const keep = 4 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, data...)
	if len(t.data) > keep {
		t.data = slices.Clone(t.data[len(t.data)-keep:])
	}
	return len(data), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.data))
}
