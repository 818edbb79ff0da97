package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/device/devicetest"
	"qgjob/internal/phonesim"
)

// stack is a server, an adb server with simulated phones, and the example's app: everything but workers.
type stack struct {
	t      *testing.T
	server *server
	adb    int
	phones []*phonesim.Phone
	apk    string
}

func newStack(t *testing.T, phones int, serverArgs ...string) *stack {
	t.Helper()
	devicetest.AppiumDir(t) // installed once, before a worker needs it
	s := &stack{t: t, adb: devicetest.ADBServer(t), server: newServer(t, append([]string{"--data-dir", t.TempDir()}, serverArgs...)...)}
	for i := range phones {
		phone, err := phonesim.Start(phonesim.Options{Serial: "SIM000" + strconv.Itoa(i+1), InstallTime: 200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := phone.Close(); err != nil {
				t.Error(err)
			}
		})
		s.phones = append(s.phones, phone)
	}
	s.apk = filepath.Join(t.TempDir(), "corner-shop.apk")
	if out, code := run(t, root, environment(t), time.Minute, "phone", "apk", filepath.Join(root, "examples/onboarding/app/corner-shop.json"), "-o", s.apk); code != 0 {
		t.Fatalf("phone apk: exit %d: %s", code, out)
	}
	s.server.up()
	return s
}

func (s *stack) env() []string {
	return environment(s.t,
		"XDG_CACHE_HOME="+filepath.Join(root, ".cache"),
		"ANDROID_ADB_SERVER_PORT="+strconv.Itoa(s.adb),
		"QGJOB_URL="+s.server.url(),
		"npm_config_cache="+filepath.Join(root, ".cache", "npm"),
	)
}

// worker starts a worker that uses the given phones only.
func (s *stack) worker(phones []*phonesim.Phone, args ...string) *process {
	return s.workerIn(s.t.TempDir(), phones, args...)
}

func (s *stack) workerIn(dir string, phones []*phonesim.Phone, args ...string) *process {
	s.t.Helper()
	args = append([]string{"worker", "--data-dir", filepath.Join(root, ".cache", "e2e")}, args...)
	for _, p := range phones {
		args = append(args, "--device", p.Addr())
	}
	return start(s.t, dir, s.env(), args...)
}

// project is a copy of the example project with further specs, as a user's working directory.
func (s *stack) project(specs map[string]string) string {
	s.t.Helper()
	dir := s.t.TempDir()
	example := filepath.Join(root, "examples/onboarding")
	for _, name := range []string{"package.json", "package-lock.json", "appwright.config.ts", ".gitignore", "tests/app.ts", "tests/onboarding.spec.ts", "tests/checkout.spec.ts", "tests/orders.spec.ts", "tests/sign-in.spec.ts"} {
		b, err := os.ReadFile(filepath.Join(example, name))
		if err != nil {
			s.t.Fatal(err)
		}
		specs := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(specs), 0o755); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(specs, b, 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	for name, text := range specs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	return dir
}

func (s *stack) submitArgs(test string, more ...string) []string {
	return append([]string{"submit", "--org-id=corner-shop", "--app-version-id=1.2.0", "--test=" + test, "--app=" + s.apk}, more...)
}

// submit submits without waiting and returns the job's id.
func (s *stack) submit(dir, test string, more ...string) string {
	s.t.Helper()
	out, code := run(s.t, dir, s.env(), time.Minute, s.submitArgs(test, more...)...)
	id, ok := strings.CutPrefix(strings.TrimSpace(out), "Success! Job submitted: ")
	if code != 0 || !ok {
		s.t.Fatalf("submit: exit %d: %s", code, out)
	}
	return id
}

func (s *stack) job(id string) api.JobDetail {
	s.t.Helper()
	var d api.JobDetail
	if _, err := call(context.Background(), "GET", s.server.url()+"/v1/jobs/"+id, nil, &d); err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *stack) waitFor(id string, within time.Duration, what string, ok func(api.JobDetail) bool) api.JobDetail {
	s.t.Helper()
	var d api.JobDetail
	eventually(s.t, within, "job "+id+": "+what, func() bool {
		d = s.job(id)
		return ok(d)
	})
	return d
}

func hasVerdict(d api.JobDetail) bool { return d.State.IsVerdict() }

func (s *stack) log(id string) string {
	s.t.Helper()
	out, code := run(s.t, root, s.env(), 30*time.Second, "logs", "--job-id="+id)
	if code != 0 {
		s.t.Fatalf("logs: exit %d", code)
	}
	return out
}

// apps adds up what the phones count for the example's app.
func (s *stack) apps() (sum phonesim.Counts) {
	for _, p := range s.phones {
		c := p.Ledger().Apps
		sum.Installs += c.Installs
		sum.DataResets += c.DataResets
		sum.Launches += c.Launches
	}
	return sum
}

const slowSpec = `import { test, expect } from "appwright";
test("takes its time", async ({ device }) => {
  console.log("the slow spec has begun");
  for (let i = 0; i < 600; i++) {
    await expect(device.getByText("Next")).toBeVisible();
    await new Promise((r) => setTimeout(r, 200));
  }
});
`

// TestVerdicts submits specs of every kind to the real AppWright and asserts what the waiting command said.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	s := newStack(t, 2)
	w := s.worker(s.phones, "--forever")
	dir := s.project(map[string]string{
		"tests/skipped.spec.ts": `import { test } from "appwright"; test.skip("later", async () => {});`,
		"tests/broken.spec.ts":  `import { test } from "appwright"; this is no program`,
	})
	cases := []struct {
		test     string
		code     int
		end      string
		state    qgjob.JobState
		cause    qgjob.Cause
		attempts int
		flaky    bool
	}{
		{test: "tests/onboarding.spec.ts", code: 0, end: "Success! Test passed.", state: qgjob.Passed, attempts: 1},
		{test: "tests/sign-in.spec.ts", code: 0, end: "Success! Test passed.", state: qgjob.Passed, attempts: 1},
		{test: "tests/orders.spec.ts", code: 0, end: "Success! Test passed.", state: qgjob.Passed, attempts: 2, flaky: true},
		{test: "tests/checkout.spec.ts", code: 1, end: "Sorry! Test failed.", state: qgjob.Failed, cause: qgjob.CauseTestFailed, attempts: 3},
		{test: "tests/missing.spec.ts", code: 3, state: qgjob.Errored, cause: qgjob.CauseNoTestsMatched, attempts: 1},
		{test: "tests/skipped.spec.ts", code: 3, state: qgjob.Errored, cause: qgjob.CauseAllTestsSkipped, attempts: 1},
		{test: "tests/broken.spec.ts", code: 20, state: qgjob.Errored, cause: qgjob.CauseProjectInvalid, attempts: 1},
	}
	waiting := make([]*process, len(cases))
	for i, c := range cases {
		waiting[i] = start(t, dir, s.env(), s.submitArgs(c.test, "--wait")...)
	}
	for i, c := range cases {
		code := waiting[i].exit(5 * time.Minute)
		out := waiting[i].out.String()
		lines := strings.Split(strings.TrimSpace(out), "\n")
		id := strings.TrimPrefix(lines[0], "Success! Job submitted: ")
		if code != c.code || c.end != "" && lines[len(lines)-1] != c.end {
			t.Errorf("%s: exit %d, want %d\n%s%s", c.test, code, c.code, out, waiting[i].errOut)
			continue
		}
		d := s.job(id)
		if d.State != c.state || d.Cause != c.cause || len(d.AttemptList) != c.attempts || d.Flaky != c.flaky {
			t.Errorf("%s: %s %s after %d attempts (flaky: %v), want %s %s after %d (%v): %s",
				c.test, d.State, d.Cause, len(d.AttemptList), d.Flaky, c.state, c.cause, c.attempts, c.flaky, d.Message)
		}
		if out, code := run(t, dir, s.env(), time.Minute, "status", "--job-id="+id, "--json"); code != 0 || !json.Valid([]byte(out)) {
			t.Errorf("%s: status --json: exit %d: %s", c.test, code, out)
		}
	}
	if c := s.apps(); c.Installs != 2 {
		t.Errorf("%d installs of one build on two phones, want 2", c.Installs)
	}
	w.signal(15)
	if code := w.exit(time.Minute); code != 0 {
		t.Errorf("the worker ended with %d", code)
	}
	s.nothingLeft()
}

// nothingLeft asserts that no process that used this stack's adb server is left, but the adb server.
func (s *stack) nothingLeft() {
	s.t.Helper()
	marker := "ANDROID_ADB_SERVER_PORT=" + strconv.Itoa(s.adb)
	var left []string
	eventually(s.t, 15*time.Second, "the worker's processes end", func() bool {
		left = slices.DeleteFunc(childrenOf(s.t, marker), func(p string) bool { return strings.Contains(p, "nodaemon") })
		return len(left) == 0
	})
}

// TestContractTranscript compares the contract's texts byte for byte.
func TestContractTranscript(t *testing.T) {
	t.Parallel()
	s := newStack(t, 1)
	dir := s.project(nil)
	// The contract's own form: no bundle, a worker that was started in the project's directory.
	if err := os.MkdirAll(filepath.Join(dir, "build"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", s.apk, filepath.Join(dir, "build", "corner-shop.apk")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w := s.workerIn(dir, s.phones)
	p := start(t, t.TempDir(), s.env(), "submit", "--org-id=qualgent", "--app-version-id=xyz123", "--test=tests/onboarding.spec.ts", "--priority=1", "--wait")
	if code := p.exit(3 * time.Minute); code != 0 {
		t.Fatalf("exit %d", code)
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(p.out.String(), "Success! Job submitted: "), "\n")
	want := strings.ReplaceAll(`Success! Job submitted: ID
Waiting for job: ID | App Version: xyz123 | Priority: 1 | Test: tests/onboarding.spec.ts to complete...
Job status: queued
Job status: running
Job status: passed
Success! Test passed.
`, "ID", id)
	if p.out.String() != want {
		t.Errorf("submit printed\n%swant\n%s", p.out, want)
	}
	if code := w.exit(time.Minute); code != 0 {
		t.Errorf("an idle worker ended with %d, want 0", code)
	}
	want = strings.ReplaceAll(`Worker has started! Polling for jobs...
Waiting for job: ID | App Version: xyz123 | Priority: 1 | Test: tests/onboarding.spec.ts to complete...
Job ID completed with status: passed
No jobs available. Retrying... (1/5)
No jobs available. Retrying... (2/5)
No jobs available. Retrying... (3/5)
No jobs available. Retrying... (4/5)
No jobs available. Retrying... (5/5)
Worker is shutting down after too many idle cycles.
Goodbye.
`, "ID", id)
	if got := fromFirstJob(w.out.String()); got != want {
		t.Errorf("the worker printed\n%swant\n%s", got, want)
	}
	s.nothingLeft()
}

// fromFirstJob leaves out the idle polls before the first job.
func fromFirstJob(out string) string {
	first, rest, _ := strings.Cut(out, "\n")
	if i := strings.Index(rest, "Waiting for job"); i >= 0 {
		rest = rest[i:]
	}
	return first + "\n" + rest
}

// TestThirdFailure: the worker that reports a third failure ends with exit 1, what waits stays queued.
func TestThirdFailure(t *testing.T) {
	t.Parallel()
	s := newStack(t, 1)
	dir := s.project(nil)
	failing := s.submit(dir, "tests/checkout.spec.ts")
	waiting := s.submit(dir, "tests/onboarding.spec.ts", "--priority=5")
	w := s.worker(s.phones)
	if code := w.exit(3 * time.Minute); code != 1 {
		t.Errorf("the worker ended with %d, want 1", code)
	}
	for _, line := range []string{
		"Job " + failing + " failed. Retrying job... (1/2)\n",
		"Job " + failing + " failed. Retrying job... (2/2)\n",
		"Job " + failing + " completed with status: failed\n",
	} {
		if !strings.Contains(w.out.String(), line) {
			t.Errorf("the worker did not print %q:\n%s", line, w.out)
		}
	}
	if d := s.job(failing); d.State != qgjob.Failed {
		t.Errorf("job is %s", d.State)
	}
	if d := s.job(waiting); d.State != qgjob.Queued {
		t.Errorf("the job that waited is %s, want queued", d.State)
	}
	s.nothingLeft()
}

// TestCancelReachesThePhone: a cancel ends the running test's processes and the device serves the next job.
func TestCancelReachesThePhone(t *testing.T) {
	t.Parallel()
	s := newStack(t, 1)
	dir := s.project(map[string]string{"tests/slow.spec.ts": slowSpec})
	w := s.worker(s.phones, "--forever")
	slow := start(t, dir, s.env(), s.submitArgs("tests/slow.spec.ts", "--wait")...)
	eventually(t, 2*time.Minute, "the slow spec runs on the phone", func() bool { return s.phones[0].Ledger().Commands > 20 })
	id, _, _ := strings.Cut(strings.TrimPrefix(slow.out.String(), "Success! Job submitted: "), "\n")
	if out := s.log(id); !strings.Contains(out, "the slow spec has begun") {
		t.Errorf("the log does not show the running test's output: %s", out)
	}
	running := s.runners()
	began := time.Now()
	if _, code := run(t, dir, s.env(), time.Minute, "cancel", "--job-id="+id); code != 0 {
		t.Errorf("cancel: exit %d", code)
	}
	// The session is deleted, the app stopped, the runner of the test gone with its worker process; one that was
	// started ahead for the next job may stay.
	eventually(t, 10*time.Second, "the phone is free", func() bool {
		l := s.phones[0].Ledger()
		return l.SessionsOpened > 0 && l.SessionsOpened == l.SessionsClosed && !strings.Contains(l.Foreground, "cornershop")
	})
	eventually(t, 10*time.Second, "the runner of the canceled test is gone", func() bool { return !slices.Contains(s.runners(), running[0]) })
	if code := slow.exit(30 * time.Second); code != 19 {
		t.Errorf("the waiting command ended with %d, want 19", code)
	}
	s.waitFor(id, 10*time.Second, "is canceled", func(d api.JobDetail) bool { return d.State == qgjob.Canceled })
	next := s.submit(dir, "tests/onboarding.spec.ts")
	d := s.waitFor(next, time.Minute, "has a verdict", hasVerdict)
	if d.State != qgjob.Passed {
		t.Errorf("the job after a canceled one is %s: %s", d.State, d.Message)
	}
	if wait := d.AttemptList[0].AssignedAt.Sub(began); wait > 10*time.Second {
		t.Errorf("the device took %s to be free again", wait)
	}
	w.signal(15)
	w.exit(time.Minute)
	s.nothingLeft()
}

// startOf is when a process that childrenOf found has started, in the kernel's ticks since its own start; ids are given again and say nothing.
func startOf(process string) int {
	pid, _, _ := strings.Cut(process, " ")
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return 0 // it has ended
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	ticks, _ := strconv.Atoi(fields[19])
	return ticks
}

// runners lists the runners of this stack's workers, the longest running first.
func (s *stack) runners() (found []string) {
	s.t.Helper()
	for _, p := range childrenOf(s.t, "ANDROID_ADB_SERVER_PORT="+strconv.Itoa(s.adb)) {
		if strings.Contains(p, "runner.cjs") {
			found = append(found, p)
		}
	}
	slices.SortStableFunc(found, func(a, b string) int { return cmp.Compare(startOf(a), startOf(b)) })
	if len(found) == 0 {
		found = []string{""}
	}
	return found
}

// TestWorkerKilled: a job of a worker that dies goes to another device when its lease ends.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	s := newStack(t, 2, "--lease", "3s")
	dir := s.project(map[string]string{"tests/slow.spec.ts": strings.ReplaceAll(slowSpec, "i < 600", "i < 15")})
	dying := s.worker(s.phones[:1], "--forever")
	id := s.submit(dir, "tests/slow.spec.ts")
	eventually(t, 2*time.Minute, "the spec runs on the first phone", func() bool { return s.phones[0].Ledger().Commands > 20 })
	dying.kill()
	w := s.worker(s.phones[1:], "--forever")
	d := s.waitFor(id, 2*time.Minute, "has a verdict", hasVerdict)
	if d.State != qgjob.Passed || len(d.AttemptList) != 2 {
		t.Fatalf("job is %s after %d attempts: %s", d.State, len(d.AttemptList), d.Message)
	}
	first, second := d.AttemptList[0], d.AttemptList[1]
	if first.Outcome != qgjob.OutcomeLost || first.Cause != qgjob.CauseLeaseExpired || first.DeviceID == second.DeviceID {
		t.Errorf("first attempt: %s %s on %s; second on %s", first.Outcome, first.Cause, first.DeviceID, second.DeviceID)
	}
	if d.InfraErrors != 1 || d.TestFailures != 0 {
		t.Errorf("spent %d infrastructure and %d test retries, want 1 and 0", d.InfraErrors, d.TestFailures)
	}
	w.signal(15)
	w.exit(time.Minute)
	s.nothingLeft() // not of the killed worker either
}

// TestWorkerTold: a worker that is told to stop hands its job back without cost.
func TestWorkerTold(t *testing.T) {
	t.Parallel()
	s := newStack(t, 1)
	dir := s.project(map[string]string{"tests/slow.spec.ts": slowSpec})
	w := s.worker(s.phones, "--forever")
	id := s.submit(dir, "tests/slow.spec.ts")
	s.inATest()
	w.signal(15)
	if code := w.exit(time.Minute); code != 0 {
		t.Errorf("the worker ended with %d, want 0", code)
	}
	d := s.job(id)
	if d.State != qgjob.Queued || d.InfraErrors != 0 || d.TestFailures != 0 || d.AttemptList[0].Cause != qgjob.CauseHandedBack {
		t.Errorf("job is %s, spent %d and %d, attempt ended as %s", d.State, d.InfraErrors, d.TestFailures, d.AttemptList[0].Cause)
	}
	s.nothingLeft()
}

// inATest returns the first phone that is in the middle of a test.
func (s *stack) inATest() (phone *phonesim.Phone) {
	s.t.Helper()
	eventually(s.t, 2*time.Minute, "a spec runs", func() bool {
		for _, p := range s.phones {
			if p.Ledger().Commands > 20 {
				phone = p
			}
		}
		return phone != nil
	})
	return phone
}

// TestPhoneLost: a phone that goes away in the middle of a test is not the test's fault; another one runs it.
func TestPhoneLost(t *testing.T) {
	t.Parallel()
	s := newStack(t, 2)
	dir := s.project(map[string]string{"tests/slow.spec.ts": strings.ReplaceAll(slowSpec, "i < 600", "i < 15")})
	w := s.worker(s.phones, "--forever")
	id := s.submit(dir, "tests/slow.spec.ts")
	lost := s.inATest()
	if err := lost.SetFault(phonesim.Fault{Kind: phonesim.FaultOffline}); err != nil {
		t.Fatal(err)
	}
	d := s.waitFor(id, 3*time.Minute, "has a verdict", hasVerdict)
	if d.State != qgjob.Passed || len(d.AttemptList) != 2 {
		t.Fatalf("job is %s after %d attempts: %s", d.State, len(d.AttemptList), d.Message)
	}
	first, second := d.AttemptList[0], d.AttemptList[1]
	if first.Outcome != qgjob.OutcomeErrored || first.Cause != qgjob.CauseDeviceOffline || first.DeviceID == second.DeviceID || d.TestFailures != 0 {
		t.Errorf("first attempt: %s %s on %s; second on %s; %d test failures", first.Outcome, first.Cause, first.DeviceID, second.DeviceID, d.TestFailures)
	}
	w.signal(15)
	w.exit(time.Minute)
	s.nothingLeft()
}

// TestPhoneHangs: a phone that keeps its connection and answers nothing ends the attempt long before the test's own time is over.
func TestPhoneHangs(t *testing.T) {
	t.Parallel()
	s := newStack(t, 2)
	dir := s.project(map[string]string{"tests/slow.spec.ts": strings.ReplaceAll(slowSpec, "i < 600", "i < 15")})
	w := s.worker(s.phones, "--forever")
	id := s.submit(dir, "tests/slow.spec.ts")
	sick := s.inATest()
	if err := sick.SetFault(phonesim.Fault{Kind: phonesim.FaultHang}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	d := s.waitFor(id, 4*time.Minute, "the attempt on the phone that hangs has ended", func(d api.JobDetail) bool {
		return len(d.AttemptList) > 0 && d.AttemptList[0].Outcome != ""
	})
	if first, took := d.AttemptList[0], time.Since(began); first.Outcome != qgjob.OutcomeErrored || first.Cause != qgjob.CauseDeviceHung || took > 2*time.Minute {
		t.Errorf("the attempt ended after %s as %s %s: %s", took, first.Outcome, first.Cause, first.Message)
	}
	d = s.waitFor(id, 2*time.Minute, "has a verdict", hasVerdict)
	if d.State != qgjob.Passed || d.TestFailures != 0 {
		t.Errorf("job is %s after %d attempts: %s", d.State, len(d.AttemptList), d.Message)
	}
	sick.ClearFaults()
	w.signal(15)
	w.exit(time.Minute)
	s.nothingLeft()
}

// TestADBServerKilled: somebody ends the host's adb server under a test. The attempt is errored, and the worker starts another server.
func TestADBServerKilled(t *testing.T) {
	t.Parallel()
	s := newStack(t, 1)
	dir := s.project(map[string]string{"tests/slow.spec.ts": strings.ReplaceAll(slowSpec, "i < 600", "i < 15")})
	w := s.worker(s.phones, "--forever")
	id := s.submit(dir, "tests/slow.spec.ts")
	s.inATest()
	killServer := func() {
		if out, err := exec.Command("adb", "-P", strconv.Itoa(s.adb), "kill-server").CombinedOutput(); err != nil {
			t.Errorf("adb kill-server: %v: %s", err, out)
		}
	}
	killServer()
	d := s.waitFor(id, 4*time.Minute, "has a verdict", hasVerdict)
	// The session ends with its connection to the device, which is there again when it is looked at: at once, or a moment later.
	first := d.AttemptList[0]
	named := first.Cause == qgjob.CauseSessionDied || first.Cause == qgjob.CauseDeviceOffline
	if d.State != qgjob.Passed || first.Outcome != qgjob.OutcomeErrored || !named || d.TestFailures != 0 || d.InfraErrors != 1 {
		t.Errorf("job is %s (%s) after %d infrastructure errors; its first attempt ended as %s %s: %s", d.State, d.Message, d.InfraErrors, first.Outcome, first.Cause, first.Message)
	}
	w.signal(15)
	w.exit(time.Minute)
	killServer() // the worker's, which is left to others
	s.nothingLeft()
}

// TestServerAwayDuringATest: a test that runs while the server is killed and started again is neither lost nor doubled.
func TestServerAwayDuringATest(t *testing.T) {
	t.Parallel()
	s := newStack(t, 1)
	dir := s.project(map[string]string{"tests/slow.spec.ts": strings.ReplaceAll(slowSpec, "i < 600", "i < 15")})
	w := s.worker(s.phones, "--forever")
	waiting := start(t, dir, s.env(), s.submitArgs("tests/slow.spec.ts", "--wait")...)
	s.inATest()
	s.server.kill()
	s.server.up()
	if code := waiting.exit(2 * time.Minute); code != 0 {
		t.Errorf("the waiting command ended with %d: %s%s", code, waiting.out, waiting.errOut)
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(waiting.out.String(), "Success! Job submitted: "), "\n")
	if d := s.job(id); len(d.AttemptList) != 1 || d.State != qgjob.Passed {
		t.Errorf("job is %s after %d attempts, want passed after 1", d.State, len(d.AttemptList))
	}
	if n := strings.Count(waiting.out.String(), "Job status: running"); n != 1 {
		t.Errorf("%d lines say that the job runs, want 1:\n%s", n, waiting.out)
	}
	w.signal(15)
	w.exit(time.Minute)
	s.nothingLeft()
}
