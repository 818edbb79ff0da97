package e2e

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
)

// TestEmulatorsOnDemand: a job boots an emulator, and neither the emulator nor anything else outlives a worker
// that is killed.
func TestEmulatorsOnDemand(t *testing.T) {
	t.Parallel()
	s := newStack(t, 0)
	sdk := filepath.Join(t.TempDir(), "sdk")
	if out, code := run(t, root, environment(t), time.Minute, "phone", "sdk", sdk); code != 0 {
		t.Fatalf("phone sdk: exit %d: %s", code, out)
	}
	// AVDs are locked for the whole host by their names.
	avd := "e2e-" + filepath.Base(filepath.Dir(sdk)) + "-" + strings.ReplaceAll(s.server.addr, ":", "-")
	env := append(s.env(), "ANDROID_HOME="+sdk, "ANDROID_AVD_HOME="+filepath.Join(sdk, "avd"))
	create := `yes no | "$0" create avd -n "$1" -k "system-images;android-34;google_apis;x86_64"`
	avdmanager := exec.Command("sh", "-c", create, filepath.Join(sdk, "cmdline-tools/latest/bin/avdmanager"), avd)
	avdmanager.Env = env
	if out, err := avdmanager.CombinedOutput(); err != nil {
		t.Fatalf("avdmanager: %v: %s", err, out)
	}
	w := start(t, t.TempDir(), env, "worker", "--forever", "--data-dir", filepath.Join(root, ".cache", "e2e"), "--avd", avd)
	dir := s.project(map[string]string{"tests/slow.spec.ts": slowSpec, "tests/short.spec.ts": strings.ReplaceAll(slowSpec, "i < 600", "i < 15")})
	id := s.submit(dir, "tests/onboarding.spec.ts", "--target=emulator")
	d := s.waitFor(id, 5*time.Minute, "has a verdict", hasVerdict)
	if d.State != qgjob.Passed || !strings.HasPrefix(d.AttemptList[0].DeviceID, avd+"@") || !d.AttemptList[0].Report.Installed {
		t.Errorf("job is %s on %s: %s", d.State, d.AttemptList[0].DeviceID, d.Message)
	}
	// One that dies under a test is no failure of the test: the job runs again, on the same AVD, which is booted anew.
	id = s.submit(dir, "tests/short.spec.ts", "--target=emulator")
	s.waitFor(id, time.Minute, "its spec runs", func(api.JobDetail) bool { return strings.Contains(s.log(id), "the slow spec has begun") })
	killed := exec.Command("pkill", "-KILL", "-f", "--", "-avd "+avd+" ")
	if out, err := killed.CombinedOutput(); err != nil {
		t.Fatalf("the emulator cannot be killed: %v: %s", err, out)
	}
	d = s.waitFor(id, 5*time.Minute, "has a verdict", hasVerdict)
	if first := d.AttemptList[0]; d.State != qgjob.Passed || first.Outcome != qgjob.OutcomeErrored || first.Cause != qgjob.CauseDeviceOffline || d.TestFailures != 0 {
		t.Errorf("job is %s (%s); its first attempt ended as %s %s: %s", d.State, d.Message, first.Outcome, first.Cause, first.Message)
	}

	id = s.submit(dir, "tests/slow.spec.ts", "--target=emulator")
	s.waitFor(id, time.Minute, "runs", func(d api.JobDetail) bool { return d.State == qgjob.Running })
	emulators := func() []string {
		return slices.DeleteFunc(childrenOf(t, "ANDROID_AVD_HOME="+filepath.Join(sdk, "avd")), func(p string) bool { return !strings.Contains(p, "-avd "+avd) })
	}
	if n := len(emulators()); n == 0 {
		t.Error("no emulator runs while a job does")
	}
	w.kill()
	eventually(t, 15*time.Second, "the emulator of the killed worker ends", func() bool { return len(emulators()) == 0 })
	s.nothingLeft()
}
