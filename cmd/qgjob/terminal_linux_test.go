package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"qgjob/internal/api"
)

// terminal is a pseudo-terminal with a program on it.
type terminal struct {
	t             *testing.T
	master, slave *os.File
	cmd           *exec.Cmd

	mu   sync.Mutex
	grew *sync.Cond
	seen bytes.Buffer
	done bool
}

// openTerminal makes a pseudo-terminal (man 7 pty).
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}); err != nil {
		t.Fatal(err)
	}
	// Ctrl-C sends its signal and then discards what is not read yet (man 3 termios, NOFLSH),
	// which may be the program's answer to the signal.
	mode, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	mode.Lflag |= unix.NOFLSH
	if err := unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, mode); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// onTerminal starts qgjob on a terminal of its own, from which Ctrl-C reaches it.
func onTerminal(t *testing.T, env []string, args ...string) *terminal {
	t.Helper()
	master, slave := openTerminal(t)
	tt := &terminal{t: t, master: master, slave: slave, cmd: exec.Command("qgjob", args...)}
	tt.grew = sync.NewCond(&tt.mu)
	tt.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TERM=xterm-256color"}, env...)
	tt.cmd.Stdin, tt.cmd.Stdout, tt.cmd.Stderr = slave, slave, slave
	tt.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := tt.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(tt, master); tt.end() }) // ends with EIO when nobody has the slave open
	t.Cleanup(func() { _ = tt.cmd.Process.Kill(); slave.Close(); reading.Wait(); master.Close() })
	return tt
}

func (tt *terminal) Write(p []byte) (int, error) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	defer tt.grew.Broadcast()
	return tt.seen.Write(p)
}

func (tt *terminal) end() {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	tt.done = true
	tt.grew.Broadcast()
}

// await waits until the text has been on the screen.
func (tt *terminal) await(text string) { tt.t.Helper(); tt.awaitTimes(text, 1) }

func (tt *terminal) awaitTimes(text string, times int) {
	tt.t.Helper()
	tooLate := time.AfterFunc(20*time.Second, tt.end)
	defer tooLate.Stop()
	tt.mu.Lock()
	defer tt.mu.Unlock()
	for strings.Count(tt.seen.String(), text) < times {
		if tt.done {
			tt.t.Fatalf("%q was not shown %d times. The screen:\n%q", text, times, tt.seen.String())
		}
		tt.grew.Wait()
	}
}

// press types keys.
func (tt *terminal) press(keys string) {
	tt.t.Helper()
	if _, err := tt.master.WriteString(keys); err != nil {
		tt.t.Fatal(err)
	}
}

// exit waits for the program's end and returns its exit code and all that was shown. The end of what
// was shown is a mark of the test's own: a read that fails because the program has ended may come
// before the program's last words.
func (tt *terminal) exit() (int, string) {
	tt.t.Helper()
	tooLate := time.AfterFunc(20*time.Second, func() { _ = tt.cmd.Process.Kill() })
	defer tooLate.Stop()
	_ = tt.cmd.Wait() // the code says it
	const end = "\x00the end\x00"
	if _, err := tt.slave.WriteString(end); err != nil {
		tt.t.Fatal(err)
	}
	tt.await(end)
	tt.mu.Lock()
	defer tt.mu.Unlock()
	screen, _, _ := strings.Cut(tt.seen.String(), end)
	return tt.cmd.ProcessState.ExitCode(), screen
}

const ctrlC = "\x03"

func TestTerminal(t *testing.T) {
	url := "QGJOB_URL=" + startServer(t)
	submit := []string{"submit", "--org-id=q", "--app-version-id=v", "--test=tests/a.spec.js", "--wait"}
	for _, test := range []struct {
		name string
		act  func(*terminal)
		code int
		last string
	}{
		{"Ctrl-C asks, y cancels", func(tt *terminal) {
			tt.press(ctrlC)
			tt.await("Cancel job ")
			tt.press("y\n")
		}, 19, "Job canceled"},
		{"a second Ctrl-C cancels", func(tt *terminal) {
			tt.press(ctrlC)
			tt.await("Cancel job ")
			tt.press(ctrlC)
		}, 19, "Job canceled"},
		{"n leaves the job running", func(tt *terminal) {
			tt.press(ctrlC)
			tt.await("Cancel job ")
			tt.press("n\n")
		}, 21, "Follow it with: qgjob status --job-id="},
		{"Enter goes on waiting", func(tt *terminal) {
			tt.press(ctrlC)
			tt.await("Cancel job ")
			tt.press("\n")
			tt.await("Waiting on.")
			tt.press(ctrlC)
			tt.awaitTimes("Cancel job ", 2)
			tt.press("y\n")
		}, 19, "Job canceled"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tt := onTerminal(t, []string{url}, submit...)
			tt.await(" · ") // the live line
			test.act(tt)
			code, screen := tt.exit()
			if code != test.code || !strings.Contains(screen, test.last) {
				t.Errorf("exit code %d, want %d, and %q at the end. The screen:\n%q", code, test.code, test.last, screen)
			}
		})
	}

	t.Run("who only watches does not cancel", func(t *testing.T) {
		id := queuedJob(t, url)
		tt := onTerminal(t, []string{url}, "status", "--wait", "--job-id="+id)
		tt.await(" · ")
		tt.press(ctrlC)
		code, screen := tt.exit()
		if code != 21 || !strings.Contains(screen, "is queued and goes on") {
			t.Errorf("exit code %d, want 21. The screen:\n%q", code, screen)
		}
	})

	worker := exec.Command("fakeworker", "passed")
	worker.Env = append(os.Environ(), url)
	if out, err := worker.CombinedOutput(); err != nil { // of the job that was left running
		t.Fatalf("%v: %s", err, out)
	}
	t.Run("colours", func(t *testing.T) {
		for _, env := range []struct {
			set    string
			colour bool
		}{{"LANG=C.UTF-8", true}, {"NO_COLOR=1", false}} {
			tt := onTerminal(t, []string{url, env.set}, "list")
			code, screen := tt.exit()
			if got := strings.Contains(screen, "\x1b[3"); code != 0 || got != env.colour {
				t.Errorf("with %s: exit code %d, colours %v, want %v. The screen:\n%q", env.set, code, got, env.colour, screen)
			}
		}
	})

	t.Run("plain in CI and when told", func(t *testing.T) {
		for _, plain := range []*terminal{
			onTerminal(t, []string{url, "CI=true"}, "list"),
			onTerminal(t, []string{url}, "list", "--plain"),
		} {
			if code, screen := plain.exit(); code != 0 || strings.Contains(screen, "\x1b") || !strings.Contains(screen, "JOB   ") {
				t.Errorf("exit code %d; the screen:\n%q", code, screen)
			}
		}
	})
}

// queuedJob returns the id of a job that is queued.
func queuedJob(t *testing.T, url string) string {
	t.Helper()
	cmd := exec.Command("qgjob", "list", "--state=queued", "--json")
	cmd.Env = append(os.Environ(), url)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list api.JobList
	if err := json.Unmarshal(out, &list); err != nil || len(list.Jobs) == 0 {
		t.Fatalf("no job is queued: %v %s", err, out)
	}
	return list.Jobs[0].ID
}

// startServer runs a server on SQLite until the test ends and returns its URL.
func startServer(t *testing.T) string {
	t.Helper()
	s := &scriptServer{data: t.TempDir(), addr: "127.0.0.1:0"}
	if err := s.start(t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.end(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.addr
}
