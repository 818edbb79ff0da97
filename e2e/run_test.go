package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"qgjob/internal/device/devicetest"
)

const twoTests = `import { test, expect } from "appwright";
for (const n of [1, 2]) {
  test("part " + n, async ({ device }) => {
    await expect(device.getByText("Next")).toBeVisible();
  });
}
`

const redTest = `import { test, expect } from "appwright";
test("never there", async ({ device }) => {
  await expect(device.getByText("Nope")).toBeVisible({ timeout: 500 });
});
`

// TestShards splits a spec of two tests in two jobs: each runs one of them, and together they are the spec.
func TestShards(t *testing.T) {
	t.Parallel()
	s := newStack(t, 1)
	dir := s.project(map[string]string{"tests/two.spec.ts": twoTests})
	w := s.worker(s.phones, "--forever")
	out, code := run(t, dir, s.env(), 5*time.Minute, "run", "--org-id=corner-shop", "--app-version-id=1.2.0", "--app="+s.apk,
		"--test=tests/two.spec.ts", "--shard=2", "--junit=out/junit.xml")
	if code != 0 || !strings.Contains(out, "Tests: 2 passed, 0 failed\n") || !strings.Contains(out, "Jobs: 2 passed\n") {
		t.Errorf("exit code %d: %s", code, out)
	}
	junit, err := os.ReadFile(filepath.Join(dir, "out", "junit.xml"))
	for _, test := range []string{`name="part 1"`, `name="part 2"`, `name="tests/two.spec.ts (part 1/2)" tests="1"`, `name="tests/two.spec.ts (part 2/2)" tests="1"`} {
		if err != nil || strings.Count(string(junit), test) != 1 {
			t.Errorf("%s is not there once (%v): %s", test, err, junit)
		}
	}
	// Playwright's report is made where the project's npm packages are, by whoever waits for the run.
	id := regexp.MustCompile(`Run submitted: (\S+)`).FindStringSubmatch(out)
	if id == nil {
		t.Fatalf("no run: %s", out)
	}
	page := filepath.Join(t.TempDir(), "report")
	if out, code := run(t, filepath.Join(root, "examples/onboarding"), s.env(), time.Minute, "wait", "--run-id="+id[1], "--report="+page); code != 0 {
		t.Errorf("--report: exit code %d: %s", code, out)
	}
	html, err := os.ReadFile(filepath.Join(page, "index.html"))
	if err != nil || !strings.Contains(string(html), "playwrightReportBase64") {
		t.Errorf("there is no HTML report (%v)", err)
	}
	w.signal(15)
	w.exit(time.Minute)
	s.nothingLeft()
}

// TestRunLocal runs a spec without any server, and leaves nothing behind: no process, no file of the run.
func TestRunLocal(t *testing.T) {
	t.Parallel()
	devicetest.AppiumDir(t) // installed once, before a worker needs it
	s := &stack{t: t, apk: filepath.Join(t.TempDir(), "corner-shop.apk")}
	if out, code := run(t, root, environment(t), time.Minute, "phone", "apk", filepath.Join(root, "examples/onboarding/app/corner-shop.json"), "-o", s.apk); code != 0 {
		t.Fatalf("phone apk: exit %d: %s", code, out)
	}
	dir, data, temp := s.project(map[string]string{"tests/red.spec.ts": redTest}), filepath.Join(t.TempDir(), "qgjob"), t.TempDir()
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	// The worker shares the caches of the other scenarios' workers.
	caches := filepath.Join(root, ".cache", "e2e")
	if err := errors.Join(os.MkdirAll(caches, 0o755), os.Symlink(caches, filepath.Join(data, "worker"))); err != nil {
		t.Fatal(err)
	}
	env := environment(t, "XDG_CACHE_HOME="+filepath.Join(root, ".cache"), "XDG_DATA_HOME="+filepath.Dir(data), "npm_config_cache="+filepath.Join(root, ".cache", "npm"), "TMPDIR="+temp)
	results := filepath.Join(dir, "qgjob-results")
	for _, c := range []struct {
		test string
		code int
		kept []string // of the test, for who mends it; of the last run only
	}{
		{"tests/missing.spec.ts", 3, []string{"tests-missing.spec.ts/attempt-1/log.txt"}},
		{"tests/red.spec.ts", 1, []string{"tests-red.spec.ts/attempt-1/log.txt", "tests-red.spec.ts/attempt-3/log.txt", "tests-red.spec.ts/attempt-3/screen.png"}},
		{"tests/onboarding.spec.ts", 0, nil},
	} {
		p := start(t, dir, env, "run", "--local", "--phones=1", "--app="+s.apk, "--test="+c.test)
		code := p.exit(5 * time.Minute)
		out := p.out.String() + p.errOut.String()
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d: %s", c.test, code, c.code, out)
		}
		if strings.Contains(out, "--job-id") || strings.Contains(out, "Log and artifacts of "+c.test+": qgjob-results") != (c.kept != nil) {
			t.Errorf("%s: it does not say where the log is, or names a command of a server that is gone: %s", c.test, out)
		}
		for _, name := range c.kept {
			if info, err := os.Stat(filepath.Join(results, name)); err != nil || info.Size() == 0 {
				t.Errorf("%s: %s is not kept (%v)", c.test, name, err)
			}
		}
		if kept, _ := filepath.Glob(filepath.Join(results, "[^.]*")); min(1, len(c.kept)) != len(kept) {
			t.Errorf("%s: kept are %v", c.test, kept)
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind in %s: %v, %v", temp, left, err)
	}
	if left := childrenOf(t, "TMPDIR="+temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if files, err := filepath.Glob(filepath.Join(data, "*")); err != nil || len(files) != 1 {
		t.Errorf("the data directory holds %v, want the worker's caches only (%v)", files, err)
	}
}
