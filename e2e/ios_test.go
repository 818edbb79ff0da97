package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/device/devicetest"
	"qgjob/internal/phonesim"
)

// iphones is a stack whose devices are those of a simulated Mac.
type iphones struct {
	*stack
	mac      *phonesim.Mac
	ipa, app string // builds for iPhones and for simulators
}

func newIPhones(t *testing.T, devices ...phonesim.IPhoneOptions) *iphones {
	t.Helper()
	devicetest.AppiumDirIOS(t)
	s := &iphones{stack: newStack(t, 0)}
	var err error
	s.mac, err = phonesim.StartMac(phonesim.MacOptions{Dir: t.TempDir(), Program: []string{binary, "phone", "mactool"}, IPhones: devices})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.mac.Close(); err != nil {
			t.Error(err)
		}
	})
	s.ipa, s.app = buildIPAs(t)
	return s
}

// buildIPAs builds the example's app for iPhones and for simulators.
func buildIPAs(t *testing.T) (ipa, simulator string) {
	t.Helper()
	dir := t.TempDir()
	ipa, simulator = filepath.Join(dir, "corner-shop.ipa"), filepath.Join(dir, "corner-shop.zip")
	for file, more := range map[string][]string{ipa: nil, simulator: {"--simulator"}} {
		args := append([]string{"phone", "ipa", filepath.Join(root, "examples/onboarding/app/corner-shop.json"), "-o", file}, more...)
		if out, code := run(t, root, environment(t), time.Minute, args...); code != 0 {
			t.Fatalf("phone ipa: exit %d: %s", code, out)
		}
	}
	return ipa, simulator
}

// onMac starts a worker on the Mac that drives the given devices.
func (s *iphones) onMac(udids ...string) *process {
	s.t.Helper()
	args := []string{"worker", "--forever", "--ios-team=TEAM123456", "--data-dir", filepath.Join(root, ".cache", "e2e")}
	for _, udid := range udids {
		args = append(args, "--device", udid)
	}
	path := "PATH=" + s.mac.Bin() + string(filepath.ListSeparator) + os.Getenv("PATH")
	return start(s.t, s.t.TempDir(), append(s.env(), path), args...)
}

func (s *iphones) wantPassed(id string) api.JobDetail {
	s.t.Helper()
	d := s.waitFor(id, 2*time.Minute, "has a verdict", hasVerdict)
	if d.State != qgjob.Passed {
		s.t.Fatalf("job %s is %s (%s: %s)\n%s", d.TestPath, d.State, d.Cause, d.Message, s.log(id))
	}
	return d
}

// Stock AppWright on an iPhone and on a simulator: the build says where a job runs, and is installed once.
func TestIPhones(t *testing.T) {
	t.Parallel()
	phone := phonesim.IPhoneOptions{UDID: phonesim.NewUDID(false), InstallTime: 200 * time.Millisecond}
	simulator := phonesim.IPhoneOptions{UDID: phonesim.NewUDID(true), Simulator: true, Booted: true, InstallTime: 200 * time.Millisecond}
	s := newIPhones(t, phone, simulator)
	project := s.project(nil)
	s.onMac(phone.UDID, simulator.UDID)
	var ids []string
	for version, build := range map[string]string{"phone": s.ipa, "simulator": s.app} {
		for _, test := range []string{"tests/onboarding.spec.ts", "tests/sign-in.spec.ts"} {
			out, code := run(t, project, s.env(), time.Minute, "submit", "--org-id=corner-shop", "--app-version-id="+version, "--test="+test, "--app="+build, "--allow-unmatched")
			id, ok := strings.CutPrefix(strings.TrimSpace(out), "Success! Job submitted: ")
			if code != 0 || !ok {
				t.Fatalf("submit: exit %d: %s", code, out)
			}
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		d := s.wantPassed(id)
		want := map[string]string{"phone": phone.UDID, "simulator": simulator.UDID}[d.AppVersionID]
		if got := d.AttemptList[0].DeviceID; !strings.HasPrefix(got, want) {
			t.Errorf("a job of the build for a %s ran on %s", d.AppVersionID, got)
		}
	}
	for _, udid := range []string{phone.UDID, simulator.UDID} {
		l := s.mac.IPhone(udid).Ledger()
		if l.Apps.Installs != 1 || l.SessionsOpened != l.SessionsClosed || l.SessionsOpened != 3 /* sign-in has two tests */ {
			t.Errorf("%s: %d installs, %d sessions, of which %d ended", udid, l.Apps.Installs, l.SessionsOpened, l.SessionsClosed)
		}
	}
	// An Android job has no device here.
	if out, code := run(t, project, s.env(), time.Minute, s.submitArgs("tests/checkout.spec.ts")...); code == 0 {
		t.Errorf("an APK was taken for iPhones: %s", out)
	}
}

// An attempt on a simulator leaves the device's log, masked, and its recording when that is asked for; one on an iPhone neither. A simulator that does
// not record passes its tests all the same.
func TestWhatSimulatorsLeave(t *testing.T) {
	t.Parallel()
	phone, simulator := phonesim.NewUDID(false), phonesim.NewUDID(true)
	s := newIPhones(t, phonesim.IPhoneOptions{UDID: phone}, phonesim.IPhoneOptions{UDID: simulator, Simulator: true, Booted: true})
	project := s.project(nil)
	s.onMac(phone, simulator)
	const secret = "com.example.cornershop" // which the log of every launch has
	submit := func(build string, more ...string) string {
		t.Helper()
		s.apk = build
		out, code := run(t, project, append(s.env(), "SHOP="+secret), time.Minute, s.submitArgs("tests/onboarding.spec.ts", append(more, "--app-version-id="+filepath.Ext(build), "--secret=SHOP", "--allow-unmatched")...)...)
		id, ok := strings.CutPrefix(strings.TrimSpace(out), "Success! Job submitted: ")
		if code != 0 || !ok {
			t.Fatalf("submit: exit %d: %s", code, out)
		}
		return id
	}
	left := func(id string) map[string]string {
		t.Helper()
		s.wantPassed(id)
		dir := t.TempDir()
		if out, code := run(t, dir, s.env(), time.Minute, "artifacts", "--job-id="+id, "--output="+dir); code != 0 {
			t.Fatalf("artifacts: exit %d: %s", code, out)
		}
		files := map[string]string{}
		for _, name := range []string{"device.log", "video-01.mp4", "video-02.mp4"} {
			if text, err := os.ReadFile(filepath.Join(dir, "attempt-1", name)); err == nil {
				files[name] = string(text)
			}
		}
		return files
	}
	onPhone, quiet, recorded := submit(s.ipa, "--video=on"), submit(s.app), submit(s.app, "--video=on")
	if files := left(onPhone); len(files) > 0 {
		t.Errorf("an iPhone left %q", files)
	}
	for id, wants := range map[string]int{quiet: 1, recorded: 2} {
		files := left(id)
		log := files["device.log"]
		if len(files) != wants || !strings.Contains(log, "Bootstrap success!") || strings.Contains(log, secret) {
			t.Errorf("a simulator left %q, want %d files and a masked log", files, wants)
		}
		if wants == 2 && !strings.Contains(files["video-01.mp4"], "ftyp") {
			t.Errorf("the recording is %q", files["video-01.mp4"])
		}
	}
	if err := s.mac.IPhone(simulator).SetFault(phonesim.Fault{Kind: phonesim.FaultNoRecorder}); err != nil {
		t.Fatal(err)
	}
	blind := submit(s.app, "--video=on")
	if files := left(blind); len(files) != 1 || !strings.Contains(s.log(blind), "does not record its screen") {
		t.Errorf("a simulator that does not record left %q\n%s", files, s.log(blind))
	}
	if out, err := exec.Command("pgrep", "-fa", simulator+" (recordVideo|log)").Output(); err == nil {
		t.Errorf("there is still %s", out)
	}
}

// A simulator that dies in a test, with its recording, is no failure of the test: another one runs it again.
func TestSimulatorDies(t *testing.T) {
	t.Parallel()
	one, other := phonesim.NewUDID(true), phonesim.NewUDID(true)
	s := newIPhones(t, phonesim.IPhoneOptions{UDID: one, Simulator: true, Booted: true}, phonesim.IPhoneOptions{UDID: other, Simulator: true, Booted: true})
	project := s.project(map[string]string{"tests/slow.spec.ts": strings.ReplaceAll(slowSpec, "i < 600", "i < 15")})
	if err := s.mac.IPhone(one).SetFault(phonesim.Fault{Kind: phonesim.FaultOffline, AfterCommands: 6}); err != nil {
		t.Fatal(err)
	}
	s.apk = s.app
	first := s.onMac(one)
	id := s.submit(project, "tests/slow.spec.ts", "--video=on", "--allow-unmatched")
	s.waitFor(id, 2*time.Minute, "its first attempt ended", func(d api.JobDetail) bool { return len(d.AttemptList) > 0 && d.AttemptList[0].Outcome != "" })
	s.onMac(other)
	d := s.wantPassed(id)
	if a := d.AttemptList[0]; a.Outcome != qgjob.OutcomeErrored || a.Cause != qgjob.CauseDeviceOffline {
		t.Errorf("the attempt on the simulator that died: %s %s: %s\n%s", a.Outcome, a.Cause, a.Message, first.errOut.String())
	}
	if last := d.AttemptList[len(d.AttemptList)-1]; !strings.HasPrefix(last.DeviceID, other) {
		t.Errorf("the last attempt ran on %s", last.DeviceID)
	}
}

// An app that crashes under a test is told by its name, and spends the test's budget.
func TestIPhoneAppCrashes(t *testing.T) {
	t.Parallel()
	udid := phonesim.NewUDID(false)
	s := newIPhones(t, phonesim.IPhoneOptions{UDID: udid})
	if err := s.mac.IPhone(udid).SetFault(phonesim.Fault{Kind: phonesim.FaultAppCrash, AfterCommands: 4}); err != nil {
		t.Fatal(err)
	}
	s.apk = s.ipa
	s.onMac(udid)
	d := s.wantPassed(s.submit(s.project(nil), "tests/onboarding.spec.ts", "--allow-unmatched"))
	if a := d.AttemptList[0]; a.Outcome != qgjob.OutcomeFailed || a.Cause != qgjob.CauseAppCrashed || d.TestFailures != 1 || d.InfraErrors != 0 {
		t.Errorf("the first attempt ended as %s %s: %s; spent %d and %d", a.Outcome, a.Cause, a.Message, d.TestFailures, d.InfraErrors)
	}
}
