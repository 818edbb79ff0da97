package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"qgjob"
	"qgjob/internal/api"
)

// end is one way in which a job can end.
type end struct {
	name     string
	outcomes []string // none: it is canceled while it waits
	code     int
	worse    int // of two jobs of one run, the one that decides
}

// ends are the ways in which a job can end, what the fake worker reports for that, and what a waiting command
// exits with when the job is alone.
var ends = []end{
	{"passed", []string{"passed"}, 0, 0},
	{"flaky", []string{"failed", "passed"}, 0, 0},
	{"canceled", nil, 19, 1},
	{"failed", []string{"failed", "failed", "failed"}, 1, 2},
	{"timed out", []string{"timed_out", "failed", "timed_out"}, 1, 2},
	{"no tests", []string{"no_tests_matched"}, 3, 3},
	{"all skipped", []string{"all_tests_skipped"}, 3, 3},
	{"bad build", []string{"bad_build"}, 20, 4},
	{"infrastructure", []string{"device_offline", "appium_died", "device_hung", "session_died"}, 20, 4},
}

// qgjobEnv is a person's environment: no CI, a home of its own.
func qgjobEnv(t *testing.T, url string) []string {
	t.Helper()
	return append(os.Environ(), "HOME="+t.TempDir(), "XDG_DATA_HOME=", "XDG_CACHE_HOME=", "CI=", "GITHUB_ACTIONS=", "QGJOB_URL="+url)
}

// exitOfCommand runs a command line to its end.
func exitOfCommand(t *testing.T, env []string, args ...string) (code int, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Dir = env, t.TempDir()
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	_ = cmd.Run() // the code says it
	return cmd.ProcessState.ExitCode(), b.String()
}

// served starts a server for a test and returns its URL.
func served(t *testing.T, flags ...string) (*scriptServer, string) {
	t.Helper()
	s := &scriptServer{addr: "127.0.0.1:0", data: filepath.Join(t.TempDir(), "data")}
	if err := s.start(t.TempDir(), flags); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.end(syscall.SIGKILL) }) // of one that is still there
	return s, "http://" + s.addr
}

// TestExitCodes: every pair of ways in which the jobs of a run can end, as every command that speaks of
// verdicts tells it. Only a run whose every job passed is 0.
func TestExitCodes(t *testing.T) {
	_, url := served(t)
	env := qgjobEnv(t, url)
	client := &api.Client{BaseURL: url}
	for i, one := range ends {
		for _, other := range ends[i:] {
			t.Run(one.name+" and "+other.name, func(t *testing.T) {
				want := one.code
				if other.worse > one.worse {
					want = other.code
				}
				if green := one.worse == 0 && other.worse == 0; (want == 0) != green {
					t.Fatalf("the table itself is wrong: %d", want)
				}
				key := uuid.NewString()
				submit := []string{"--org-id=q", "--app-version-id=v", "--test=a.spec.js", "--test=b.spec.js", "--idempotency-key=" + key}
				if code, out := exitOfCommand(t, env, append([]string{"qgjob", "submit"}, submit...)...); code != 0 {
					t.Fatalf("submit: exit code %d: %s", code, out)
				}
				list, err := client.Jobs(t.Context(), api.JobQuery{OrgID: "q", Limit: 2})
				if err != nil || len(list.Jobs) != 2 {
					t.Fatalf("jobs %+v, %v", list, err)
				}
				// The newest comes first; which of the two specs that is does not matter.
				var outcomes []string
				for n, e := range []end{one, other} {
					j := list.Jobs[1-n]
					if e.outcomes == nil {
						if _, err := client.Cancel(t.Context(), j.ID); err != nil {
							t.Fatal(err)
						}
					}
					outcomes = append(outcomes, e.outcomes...)
				}
				if code, out := exitOfCommand(t, env, append([]string{"fakeworker"}, outcomes...)...); code != 0 {
					t.Fatalf("the worker: %s", out)
				}
				run := "--run-id=" + list.Jobs[0].RunID
				for _, args := range [][]string{
					{"wait", run},
					{"status", run, "--exit-status"},
					{"status", run, "--wait", "--json"},
					append([]string{"submit", "--wait"}, submit...),
					append([]string{"run", "--junit=out.xml"}, submit...),
				} {
					if code, out := exitOfCommand(t, env, append([]string{"qgjob"}, args...)...); code != want {
						t.Errorf("qgjob %s: exit code %d, want %d: %s", strings.Join(args, " "), code, want, out)
					}
				}
				for n, j := range []qgjob.Job{list.Jobs[1], list.Jobs[0]} {
					alone := []int{one.code, other.code}[n]
					for _, args := range [][]string{{"wait", "--job-id=" + j.ID}, {"status", "--exit-status", "--job-id=" + j.ID}} {
						if code, out := exitOfCommand(t, env, append([]string{"qgjob"}, args...)...); code != alone {
							t.Errorf("qgjob %s: exit code %d, want %d: %s", strings.Join(args, " "), code, alone, out)
						}
					}
				}
			})
		}
	}
}

// TestExitCodesOfWhatHappens: what happens to server, worker and command while somebody waits.
func TestExitCodesOfWhatHappens(t *testing.T) {
	submit := func(command string, more ...string) []string {
		return append([]string{command, "--org-id=q", "--app-version-id=v", "--test=a.spec.js", "--test=b.spec.js"}, more...)
	}
	for _, c := range []struct {
		name   string
		args   []string
		during func(t *testing.T, s *scriptServer, env []string, cmd *exec.Cmd)
		code   int
	}{
		{"the wait ends", submit("run", "--wait-timeout=300ms"), nil, 21},
		{"interrupted", submit("run"), func(t *testing.T, _ *scriptServer, _ []string, cmd *exec.Cmd) { _ = cmd.Process.Signal(os.Interrupt) }, 19},
		{"terminated", submit("submit", "--wait"), func(t *testing.T, _ *scriptServer, _ []string, cmd *exec.Cmd) {
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}, 19},
		{"the server is lost for longer than the wait", submit("run", "--wait-timeout=2s"), func(t *testing.T, s *scriptServer, _ []string, _ *exec.Cmd) {
			_ = s.end(syscall.SIGKILL)
		}, 21},
		{"the server is killed and comes back", submit("run"), func(t *testing.T, s *scriptServer, env []string, _ *exec.Cmd) {
			_ = s.end(syscall.SIGKILL)
			if err := s.start(t.TempDir(), nil); err != nil {
				t.Fatal(err)
			}
			if code, out := exitOfCommand(t, env, "fakeworker", "passed", "passed"); code != 0 {
				t.Errorf("the worker: %s", out)
			}
		}, 0},
		{"the server comes back with other data", submit("run"), func(t *testing.T, s *scriptServer, _ []string, _ *exec.Cmd) {
			_ = s.end(syscall.SIGKILL)
			s.data = filepath.Join(t.TempDir(), "other")
			if err := s.start(t.TempDir(), nil); err != nil {
				t.Fatal(err)
			}
		}, 20},
		{"every worker is lost", submit("run", "--fail-fast"), func(t *testing.T, _ *scriptServer, env []string, _ *exec.Cmd) {
			for range 4 {
				exitOfCommand(t, env, "fakeworker", "die")
			}
		}, 20},
		{"nothing is said of the tests", submit("status"), nil, 2},
		{"no such flag", submit("run", "--sooner"), nil, 2},
		{"no test", []string{"run", "--org-id=q", "--app-version-id=v"}, nil, 2},
		{"no such run", []string{"wait", "--run-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804"}, nil, 2},
		{"no such server for run", submit("run", "--url=http://127.0.0.1:9"), nil, 20},
		{"no such server for wait", []string{"wait", "--url=http://127.0.0.1:9", "--run-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804"}, nil, 20},
		{"no such server for retry", []string{"retry", "--url=http://127.0.0.1:9", "--run-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804"}, nil, 20},
		{"reports that cannot be written", submit("run", "--junit=/dev/null/x.xml"), func(t *testing.T, _ *scriptServer, env []string, _ *exec.Cmd) {
			exitOfCommand(t, env, "fakeworker", "passed", "passed")
		}, 20},
		{"a worker of no server", []string{"worker", "--url=ftp://x"}, nil, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, url := served(t, "--lease=1s")
			env := qgjobEnv(t, url)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "qgjob", c.args...)
			cmd.Env, cmd.Dir = env, t.TempDir()
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if c.during != nil {
				queued(t, url, 2)
				c.during(t, s, env, cmd)
			}
			_ = cmd.Wait() // the code says it
			if code := cmd.ProcessState.ExitCode(); code != c.code {
				t.Errorf("exit code %d, want %d: %s", code, c.code, out.String())
			}
		})
	}
}

// queued waits until so many jobs are queued.
func queued(t *testing.T, url string, n int) {
	t.Helper()
	client := &api.Client{BaseURL: url}
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	limit := time.After(time.Minute)
	for {
		list, err := client.Jobs(t.Context(), api.JobQuery{State: qgjob.Queued})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Jobs) == n {
			return
		}
		select {
		case <-again.C:
		case <-limit:
			t.Fatal(fmt.Sprint(n, " jobs were not queued"))
		}
	}
}
