package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"qgjob/internal/device/devicetest"
)

// workflow is a copy of the checkout, as its own repository, in which act executes the project's workflow: the
// steps themselves, on this machine, without the network.
type workflow struct {
	t   *testing.T
	dir string
}

// noAction stands for the actions of others: act cannot fetch any, and what they set up is here.
const noAction = "name: stand-in\ndescription: does nothing\nruns: {using: composite, steps: [{run: \"true\", shell: bash}]}\n"

func newWorkflow(t *testing.T, specs map[string]string) *workflow {
	t.Helper()
	w := &workflow{t: t, dir: filepath.Join(t.TempDir(), "checkout")}
	list, err := exec.Command("git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			continue // deleted, and not yet committed
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		w.write(name, string(data), info.Mode().Perm())
	}
	for name, text := range specs {
		w.write(filepath.Join("examples/onboarding/tests", name), text, 0o644)
	}
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"},
		{"add", "-A"},
		{"-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false", "commit", "-q", "-m", "checkout"},
		{"remote", "add", "origin", "https://github.com/example/shop"},
	} {
		cmd := exec.Command("git", append([]string{"-C", w.dir}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	return w
}

func (w *workflow) write(name, text string, mode os.FileMode) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		w.t.Fatal(err)
	}
}

// run executes the workflow with the given inputs and returns its exit code and log.
func (w *workflow) run(inputs ...string) (code int, log string) {
	t := w.t
	t.Helper()
	devicetest.AppiumDir(t) // installed once, before a worker needs it
	home := t.TempDir()
	stub, data := filepath.Join(home, "stand-in"), filepath.Join(home, "data", "qgjob")
	for _, dir := range []string{stub, data, filepath.Join(root, ".cache", "e2e")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The worker shares the caches of the other scenarios' workers.
	if err := os.Symlink(filepath.Join(root, ".cache", "e2e"), filepath.Join(data, "worker")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stub, "action.yml"), []byte(noAction), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"tool", "-modfile=" + filepath.Join(root, "tools", "go.mod"), "act", "workflow_dispatch",
		"-C", w.dir, "-W", ".github/workflows/appwright.yml", "-P", "ubuntu-latest=-self-hosted",
		"--action-offline-mode", "--container-daemon-socket", "-", "--artifact-server-path", "",
	}
	for _, action := range []string{"actions/setup-go@v5", "actions/setup-node@v4", "actions/upload-artifact@v4"} {
		args = append(args, "--local-repository", action+"="+stub)
	}
	for _, input := range inputs {
		args = append(args, "--input", input)
	}
	for _, variable := range []string{
		"HOME=" + home,
		"XDG_CACHE_HOME=" + filepath.Join(root, ".cache"),
		"XDG_DATA_HOME=" + filepath.Join(home, "data"),
		"npm_config_cache=" + filepath.Join(root, ".cache", "npm"),
		"ANDROID_ADB_SERVER_PORT=" + strconv.Itoa(devicetest.ADBServer(t)),
		"GOCACHE=" + goEnv(t, "GOCACHE"), "GOMODCACHE=" + goEnv(t, "GOMODCACHE"), "GOFLAGS=-mod=mod", "GOPROXY=off",
	} {
		args = append(args, "--env", variable)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(home, "cache"), "XDG_CONFIG_HOME="+filepath.Join(home, "config"), "HOME="+home,
		"GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"))
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(10*time.Minute, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer limit.Stop()
	_ = cmd.Wait() // the code says it
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("act\n%s", tail(out.String()))
		}
	})
	if left := childrenOf(t, "HOME="+home); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// killsTheWorker is a spec that ends the worker that runs it, as the kernel does when memory is short.
const killsTheWorker = `import { test } from "appwright";
import { readFileSync } from "node:fs";
test("ends the worker", async () => {
  for (let pid = process.ppid; pid > 1; ) {
    const [program, command] = readFileSync("/proc/" + pid + "/cmdline", "utf8").split("\0");
    if (/(^|\/)qgjob$/.test(program) && command === "worker") {
      process.kill(pid, "SIGKILL");
      break;
    }
    pid = Number(readFileSync("/proc/" + pid + "/stat", "utf8").split(") ")[1].split(" ")[1]);
  }
  await new Promise((r) => setTimeout(r, 60_000));
});
`

// TestWorkflow executes the project's own workflow, and with it the action: green when the specs pass, red
// when one fails, when one is missing, and when the worker dies.
func TestWorkflow(t *testing.T) {
	t.Parallel()
	w := newWorkflow(t, map[string]string{"kills.spec.ts": killsTheWorker})
	for _, c := range []struct {
		name   string
		inputs []string
		green  bool
		says   []string
	}{
		{"green", []string{"tests=tests/onboarding.spec.ts"}, true, []string{"Success! Run passed.", "::group::passed: tests/onboarding.spec.ts"}},
		{"failing spec", []string{"tests=tests/checkout.spec.ts"}, false, []string{"Sorry! Run failed.", "tests/checkout.spec.ts"}},
		{"missing spec", []string{"tests=tests/onboarding.spec.ts tests/missing.spec.ts"}, false, []string{"Sorry! Run errored.", "no_tests_matched"}},
		{"worker dies", []string{"tests=tests/kills.spec.ts", "wait-timeout=60s"}, false, []string{"Waited for 1 min 0 s."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &workflow{t: t, dir: w.dir}
			code, log := w.run(c.inputs...)
			if (code == 0) != c.green {
				t.Errorf("the workflow ended with %d, want green: %v", code, c.green)
			}
			for _, text := range c.says {
				if !strings.Contains(log, text) {
					t.Errorf("its log does not say %q", text)
				}
			}
			if strings.Contains(log, "Job succeeded") != c.green {
				t.Errorf("the job did not end as the workflow did")
			}
		})
	}
}
