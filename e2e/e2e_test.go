// Package e2e holds scenarios over the real binary: real processes, real databases, real kills. What a
// scenario asserts is what a user of the command line or of the REST API would see.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"qgjob/internal/api"
)

var (
	binary string // qgjob, built with the race detector
	root   string // of the checkout
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "qgjob-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "qgjob")
		if root, err = filepath.Abs(".."); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		build := exec.Command("go", "build", "-race", "-o", binary, "qgjob/cmd/qgjob")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: build qgjob:", err)
			return 1
		}
		return m.Run()
	}())
}

// output collects what a process prints; it may be read while the process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// process is a started qgjob in a process group of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    *output // standard output
	errOut *output // standard error
	done   chan struct{}
}

// environment is what scenarios give to every process: no CI, no user's settings, an empty home.
func environment(t *testing.T, extra ...string) []string {
	t.Helper()
	env := []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8", "GORACE=halt_on_error=1 exitcode=66"}
	return append(env, extra...)
}

func start(t *testing.T, dir string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(binary, args...), out: &output{}, errOut: &output{}, done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.errOut
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start qgjob %s: %v", strings.Join(args, " "), err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the exit code is read from ProcessState
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("qgjob %s\n--- stdout\n%s--- stderr\n%s", strings.Join(args, " "), tail(p.out.String()), tail(p.errOut.String()))
		}
	})
	return p
}

func tail(s string) string {
	const most = 6000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

// kill ends the process as a power cut would: SIGKILL, at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // an error means that it has ended
	<-p.done
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %s: %v", s, err)
	}
}

// exit waits for the end of the process and returns its exit code.
func (p *process) exit(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		p.t.Fatalf("%s did not end within %s\n%s\n%s", p.cmd.Args, within, tail(p.out.String()), tail(p.errOut.String()))
	}
	return p.cmd.ProcessState.ExitCode()
}

// run starts qgjob, waits for its end and returns what it printed and its exit code.
func run(t *testing.T, dir string, env []string, within time.Duration, args ...string) (stdout string, code int) {
	t.Helper()
	p := start(t, dir, env, args...)
	code = p.exit(within)
	return p.out.String(), code
}

// eventually polls until ok holds.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(within)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// server is one address at which servers are started and killed, over one database.
type server struct {
	t    *testing.T
	addr string
	args []string
	*process
}

func newServer(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, addr: freeAddr(t)}
	s.args = append([]string{"server", "--listen", s.addr}, args...)
	return s
}

func (s *server) url() string { return "http://" + s.addr }

// up starts the server and waits until it serves.
func (s *server) up() {
	s.t.Helper()
	s.process = start(s.t, s.t.TempDir(), environment(s.t), s.args...)
	eventually(s.t, 30*time.Second, "server answers", func() bool {
		select {
		case <-s.done:
			s.t.Fatalf("server ended: %s", s.errOut.String())
		default:
		}
		resp, err := http.Get(s.url() + "/health")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// call sends one JSON request. An error answer is returned as *api.Problem.
func call(ctx context.Context, method, url string, in, out any) (status int, err error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err
	}
	if resp.StatusCode >= 400 {
		p := &problem{}
		if err := json.Unmarshal(b, &p.Problem); err != nil {
			return resp.StatusCode, fmt.Errorf("%s %s: %d with a body that is no problem: %.200s", method, url, resp.StatusCode, b)
		}
		return resp.StatusCode, p
	}
	if out == nil {
		return resp.StatusCode, nil
	}
	return resp.StatusCode, json.Unmarshal(b, out)
}

type problem struct{ api.Problem }

func (p *problem) Error() string { return fmt.Sprintf("%d %s: %s", p.Status, p.Code, p.Detail) }

// transient says that a request may be sent again: the server is away or says so.
func transient(err error) bool {
	p, ok := errors.AsType[*problem](err)
	return !ok || p.Status == http.StatusServiceUnavailable
}

// childrenOf lists live processes whose environment holds the text, on Linux; it finds what a killed worker left.
func childrenOf(t *testing.T, text string) []string {
	t.Helper()
	var found []string
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		env, err := os.ReadFile(filepath.Join(d, "environ"))
		if err != nil || !slices.Contains(strings.Split(string(env), "\x00"), text) {
			continue
		}
		if cmd, err := os.ReadFile(filepath.Join(d, "cmdline")); err == nil && len(cmd) > 0 {
			found = append(found, filepath.Base(d)+" "+strings.ReplaceAll(string(cmd), "\x00", " "))
		}
	}
	return found
}
