package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/bundle"
	"qgjob/internal/device"
	"qgjob/internal/phonesim"
)

func TestThirdFailureEndsTheWorkerWhenItsOtherJobsHaveEnded(t *testing.T) {
	w := newWorld(t, 0)
	started, letGo := make(chan string, 2), make(chan struct{})
	bad, long := w.submit("tests/bad.spec.js", 1), w.submit("tests/long.spec.js", 1)
	k := w.start(Options{Drivers: []device.Driver{newPhones("P1", "P2")}, Runner: specs{
		"tests/bad.spec.js": fails, "tests/long.spec.js": runsUntil(started, "long", letGo), "tests/more.spec.js": passes,
	}})
	receive(t, started)
	k.out.wait(t, "Worker is shutting down after a job's third failure.", 1)
	more := w.submit("tests/more.spec.js", 1)
	select {
	case err := <-k.done:
		t.Fatalf("it ended with %v before its other job did", err)
	default:
	}
	close(letGo)
	if err := k.end(); !errors.Is(err, ErrThirdFailure) {
		t.Errorf("it ended with %v", err)
	}
	for _, line := range []string{
		"Job " + bad + " failed. Retrying job... (1/2)\n",
		"Job " + bad + " failed. Retrying job... (2/2)\n",
		"Job " + bad + " completed with status: failed\n",
		"Job " + long + " completed with status: passed\n",
	} {
		if strings.Count(k.out.String(), line) != 1 {
			t.Errorf("%q is not printed once:\n%s", line, k.out)
		}
	}
	if !strings.HasSuffix(k.out.String(), "Goodbye.\n") {
		t.Errorf("it printed:\n%s", k.out)
	}
	if j := w.job(bad); j.State != qgjob.Failed || j.Attempts != 3 || j.AttemptList[0].DeviceID != j.AttemptList[2].DeviceID {
		t.Errorf("the failing job: %+v", j)
	}
	if j := w.job(long); j.State != qgjob.Passed || j.Attempts != 1 {
		t.Errorf("the long job: %+v", j)
	}
	if j := w.job(more); j.State != qgjob.Queued {
		t.Errorf("the job that came later: %+v", j)
	}
}

// TestRetryFindsItsDeviceFree: another idle phone, of this worker or another, does not snatch the retry.
func TestRetryFindsItsDeviceFree(t *testing.T) {
	w := newWorld(t, 0)
	runner := specs{"tests/bad.spec.js": fails}
	a := w.start(Options{Drivers: []device.Driver{newPhones("P1", "P2")}, Forever: true, Runner: runner})
	b := w.start(Options{Drivers: []device.Driver{newPhones("P3")}, Forever: true, Runner: runner})
	for range 5 {
		j := w.verdict(w.submit("tests/bad.spec.js", 1))
		var devices []string
		for _, at := range j.AttemptList {
			devices = append(devices, at.DeviceID)
		}
		if len(slices.Compact(devices)) != 1 {
			t.Errorf("the attempts ran on %v", devices)
		}
	}
	for _, k := range []*worker{a, b} {
		k.stop()
		if err := k.end(); err != nil {
			t.Errorf("it ended with %v", err)
		}
	}
}

func TestForeverGoesOnAfterAThirdFailure(t *testing.T) {
	w := newWorld(t, 0)
	bad, good := w.submit("tests/bad.spec.js", 1), w.submit("tests/good.spec.js", 2)
	phones := newPhones("P1")
	k := w.start(Options{Drivers: []device.Driver{phones}, Forever: true, Runner: specs{"tests/bad.spec.js": fails, "tests/good.spec.js": passes}})
	if j := w.verdict(good); j.State != qgjob.Passed || !j.AttemptList[0].Report.InstallSaved {
		t.Errorf("the good job: %+v", j)
	}
	if j := w.verdict(bad); j.State != qgjob.Failed || !j.AttemptList[0].Report.Installed || j.AttemptList[1].Report.Installed {
		t.Errorf("the bad job: %+v", j)
	}
	k.stop()
	if err := k.end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if phones.byID["P1"].installs != 1 {
		t.Errorf("%d installs for four attempts", phones.byID["P1"].installs)
	}
}

func TestCancelStopsTheTest(t *testing.T) {
	w := newWorld(t, 0)
	started := make(chan string, 2)
	id := w.submit("tests/long.spec.js", 1)
	k := w.start(Options{Drivers: []device.Driver{newPhones("P1")}, Forever: true, Runner: specs{
		"tests/long.spec.js": runsUntil(started, "long", nil), "tests/good.spec.js": passes,
	}})
	receive(t, started)
	if j, err := w.client.Cancel(t.Context(), id); err != nil || j.State != qgjob.Canceling {
		t.Fatalf("cancel answered %+v, %v", j, err)
	}
	if got := receive(t, started); got != "long stopped" {
		t.Fatal(got)
	}
	if j := w.verdict(id); j.State != qgjob.Canceled || j.Attempts != 1 || j.AttemptList[0].Cause != qgjob.CauseCanceled {
		t.Errorf("the canceled job: %+v", j)
	}
	if j := w.verdict(w.submit("tests/good.spec.js", 1)); j.State != qgjob.Passed {
		t.Errorf("the next job on its device: %+v", j)
	}
	k.out.wait(t, "Job "+id+" completed with status: canceled", 1)
}

func TestWorkerToldToStopHandsItsJobsBackWithoutCost(t *testing.T) {
	w := newWorld(t, 0)
	started := make(chan string, 4)
	id := w.submit("tests/long.spec.js", 1)
	letGo := make(chan struct{})
	runner := specs{"tests/long.spec.js": runsUntil(started, "long", letGo)}
	phones := newPhones("P1")
	k := w.start(Options{Drivers: []device.Driver{phones}, Forever: true, Runner: runner, Grace: 50 * time.Millisecond})
	receive(t, started)
	k.stop()
	if got := receive(t, started); got != "long stopped" {
		t.Fatal(got)
	}
	if err := k.end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if open := phones.opened(); len(open) > 0 {
		t.Errorf("it left %v open", open)
	}
	j := w.job(id)
	if j.State != qgjob.Queued || j.TestFailures+j.InfraErrors != 0 || j.AttemptList[0].Cause != qgjob.CauseHandedBack {
		t.Errorf("the job: %+v", j)
	}
	if list, err := w.client.Devices(t.Context()); err != nil || len(list.Devices) != 0 {
		t.Errorf("devices of a worker that has left: %+v, %v", list, err)
	}
	close(letGo)
	w.start(Options{Drivers: []device.Driver{phones}, Forever: true, Runner: runner})
	if j := w.verdict(id); j.State != qgjob.Passed || states(j) != "submit assign hand_back assign pass" {
		t.Errorf("the job's life: %s", states(j))
	}
}

func TestWorkerToldToStopFinishesWhatEndsInItsGrace(t *testing.T) {
	w := newWorld(t, 0)
	started, letGo := make(chan string, 4), make(chan struct{})
	id, later := w.submit("tests/long.spec.js", 1), w.submit("tests/good.spec.js", 1)
	k := w.start(Options{Drivers: []device.Driver{newPhones("P1")}, Forever: true, Runner: specs{"tests/long.spec.js": runsUntil(started, "long", letGo), "tests/good.spec.js": passes}})
	receive(t, started)
	k.stop()
	k.out.wait(t, "Worker is shutting down", 1)
	close(letGo)
	if err := k.end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if j := w.job(id); j.State != qgjob.Passed {
		t.Errorf("the running job: %+v", j)
	}
	if j := w.job(later); j.State != qgjob.Queued || j.Attempts != 0 {
		t.Errorf("the waiting job: %+v", j)
	}
}

func TestKillEndsTheGrace(t *testing.T) {
	w := newWorld(t, 0)
	started := make(chan string, 4)
	id := w.submit("tests/long.spec.js", 1)
	k := w.start(Options{Drivers: []device.Driver{newPhones("P1")}, Forever: true, Grace: time.Hour, Runner: specs{"tests/long.spec.js": runsUntil(started, "long", nil)}})
	receive(t, started)
	k.stop()
	k.Kill()
	if err := k.end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if j := w.job(id); j.State != qgjob.Queued {
		t.Errorf("the job: %+v", j)
	}
}

func TestWorkerThatWasCutOffIsRefused(t *testing.T) {
	w := newWorld(t, 2*time.Second)
	started, letGo := make(chan string, 8), make(chan struct{})
	id := w.submit("tests/long.spec.js", 1)
	runner := specs{"tests/long.spec.js": runsUntil(started, "long", letGo)}
	first := w.start(Options{Drivers: []device.Driver{newPhones("P1")}, Forever: true, Runner: runner})
	receive(t, started)
	first.wire.set(true)
	second := w.start(Options{Drivers: []device.Driver{newPhones("P2")}, Forever: true, Runner: runner})
	// Both come: the first worker ends its test by itself, the second one gets the job.
	seen := []string{receive(t, started), receive(t, started)}
	slices.Sort(seen)
	if !slices.Equal(seen, []string{"long", "long stopped"}) {
		t.Fatalf("seen: %v", seen)
	}
	first.wire.set(false)
	first.out.wait(t, "The server answers again.", 1)
	close(letGo)
	second.out.wait(t, "Job "+id+" completed with status: passed", 1)
	first.stop()
	if err := first.end(); err != nil {
		t.Errorf("the first worker ended with %v", err)
	}
	j := w.verdict(id)
	if states(j) != "submit assign retry assign pass" || j.AttemptList[0].Outcome != qgjob.OutcomeLost || j.AttemptList[1].DeviceID != "P2" {
		t.Errorf("the job: %s, %+v", states(j), j.AttemptList)
	}
	if strings.Contains(first.out.String(), "Retrying job") || strings.Contains(first.out.String(), "completed") {
		t.Errorf("the first worker, whose result was refused, printed:\n%s", first.out)
	}
}

func TestLogArrivesWhole(t *testing.T) {
	w := newWorld(t, 0)
	started, letGo := make(chan string, 1), make(chan struct{})
	var text strings.Builder
	for i := range 40_000 {
		text.WriteString(strings.Repeat("x", i%40) + "\n")
	}
	half := text.Len() / 2
	chatty := func(ctx context.Context, log io.Writer) (Verdict, error) {
		io.WriteString(log, text.String()[:half])
		started <- "half"
		<-letGo
		io.WriteString(log, text.String()[half:])
		return passes(ctx, log)
	}
	id := w.submit("tests/chatty.spec.js", 1)
	k := w.start(Options{Drivers: []device.Driver{newPhones("P1")}, Forever: true, Runner: specs{"tests/chatty.spec.js": chatty}})
	receive(t, started)
	k.wire.set(true)
	close(letGo)
	k.out.wait(t, "cannot be reached", 1)
	k.wire.set(false)
	w.verdict(id)
	var log []byte
	for {
		chunk, err := w.client.Log(t.Context(), id, 0, int64(len(log)), 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(chunk.Data) == 0 {
			break
		}
		log = append(log, chunk.Data...)
	}
	if !strings.Contains(string(log), text.String()) || !strings.HasSuffix(string(log), "[qgjob] passed\n") {
		t.Errorf("of %d bytes, %d are in the log, which ends with %q", text.Len(), len(log), log[max(0, len(log)-80):])
	}
}

func TestJobWithoutAProjectSaysWhatToDo(t *testing.T) {
	w := newWorld(t, 0)
	id := w.submit("tests/good.spec.js", 1)
	w.start(Options{Drivers: []device.Driver{newPhones("P1")}, Forever: true, ProjectDir: noProject, Runner: specs{}})
	j := w.verdict(id)
	if j.State != qgjob.Errored || j.Cause != qgjob.CauseProjectInvalid || !strings.Contains(j.Message, "submit from the project's directory") || j.Attempts != 1 {
		t.Errorf("the job: %+v", j)
	}
}

func TestProjectAndBuildTravelWithTheJob(t *testing.T) {
	w := newWorld(t, 0)
	dir := projectDir(t)
	apk, err := os.ReadFile(filepath.Join(dir, "app.apk"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "app.apk")); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if _, _, err := bundle.Pack(t.Context(), dir, &packed); err != nil {
		t.Fatal(err)
	}
	project, app := file(packed.Bytes()), file(apk)
	if _, err := w.client.UploadBundle(t.Context(), "qualgent", project); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.UploadBuild(t.Context(), "qualgent", "xyz123", app); err != nil {
		t.Fatal(err)
	}
	runner := &recording{specs: specs{"tests/a.spec.js": passes, "tests/b.spec.js": passes}}
	k := w.start(Options{Drivers: []device.Driver{newPhones("P1")}, Forever: true, ProjectDir: noProject, Runner: runner})
	run, err := w.client.Submit(t.Context(), api.SubmitRequest{
		OrgID: "qualgent", AppVersionID: "xyz123", BundleSHA256: project.SHA256, BuildSHA256: app.SHA256,
		Jobs: []api.JobSpec{{TestPath: "tests/a.spec.js"}, {TestPath: "tests/b.spec.js"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range run.Jobs {
		if j := w.verdict(j.ID); j.State != qgjob.Passed || j.AttemptList[0].Report.BuildSHA256 != app.SHA256 {
			t.Errorf("job: %+v", j)
		}
	}
	k.stop()
	if err := k.end(); err != nil {
		t.Error(err)
	}
	if len(runner.ran) != 2 || runner.ran[0].Dir != runner.ran[1].Dir || runner.config != "export default {}" {
		t.Errorf("it ran %+v, with a config of %q", runner.ran, runner.config)
	}
	if n := k.wire.count("/v1/bundles/") + k.wire.count("/v1/builds/"); n != 2 {
		t.Errorf("two jobs of one bundle and one build took %d downloads", n)
	}
	if left, _ := filepath.Glob(filepath.Join(k.o.DataDir, "workers", "*-*")); len(left) > 0 {
		t.Errorf("left on the disk: %v", left)
	}
}

func file(b []byte) api.File {
	sum := sha256.Sum256(b)
	return api.File{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(b)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}}
}

// recording remembers what it was given to run.
type recording struct {
	specs
	ran    []Task
	config string
}

func (r *recording) Run(ctx context.Context, t Task, p Plan, on Setup, log io.Writer) (Verdict, error) {
	r.ran = append(r.ran, t)
	config, err := os.ReadFile(filepath.Join(t.Dir, "appwright.config.ts"))
	r.config = string(config)
	if err != nil {
		return Verdict{}, err
	}
	return r.specs.Run(ctx, t, p, on, log)
}

// TestRunnerStartsWhileTheDeviceIsReset: in a batch the runner loads the spec while the device is reset, and is told
// when it may use it. When the app turns out to be another, the runner starts again after the install.
func TestRunnerStartsWhileTheDeviceIsReset(t *testing.T) {
	w := newWorld(t, 0)
	phones := newPhones("P1")
	loading := make(chan struct{}, 4)
	phones.byID["P1"].prepare = func(ctx context.Context) error {
		if phones.byID["P1"].installs > 0 {
			select {
			case <-loading:
			case <-ctx.Done():
				return errors.New("the runner was not started while the device was reset")
			}
		}
		return nil
	}
	runner := &early{specs: specs{"tests/good.spec.js": passes}, loading: loading}
	w.start(Options{Drivers: []device.Driver{phones}, Forever: true, Runner: runner, Limits: Limits{Setup: patience}})
	first, second := w.submit("tests/good.spec.js", 1), w.submit("tests/good.spec.js", 1)
	for _, id := range []string{first, second} {
		if j := w.verdict(id); j.State != qgjob.Passed || j.Attempts != 1 {
			t.Errorf("the job: %+v", j)
		}
	}
	if r := w.job(second).AttemptList[0].Report; !r.InstallSaved || r.Installed {
		t.Errorf("the second job's attempt: %+v", r)
	}
	phones.replace("P1")
	if j := w.verdict(w.submit("tests/good.spec.js", 1)); j.State != qgjob.Passed || !j.AttemptList[0].Report.Installed {
		t.Errorf("the job that found another app: %+v", j)
	}
	if runner.stopped != 1 || runner.ran != 3 {
		t.Errorf("%d runners were stopped before they had the device, %d had it", runner.stopped, runner.ran)
	}
}

// early is a runner that says when it has been started, and waits for its device.
type early struct {
	specs
	loading      chan struct{}
	stopped, ran int
}

func (r *early) Run(ctx context.Context, t Task, p Plan, on Setup, log io.Writer) (Verdict, error) {
	if on.Ready != nil {
		r.loading <- struct{}{}
		select {
		case <-on.Ready:
		case <-ctx.Done():
			r.stopped++
			return Verdict{}, ctx.Err()
		}
	}
	r.ran++
	return r.specs.Run(ctx, t, p, on, log)
}

func TestBadBuildIsFinal(t *testing.T) {
	w := newWorld(t, 0)
	dir := projectDir(t)
	if err := os.WriteFile(filepath.Join(dir, "app.apk"), []byte("no zip"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := w.submit("tests/good.spec.js", 1)
	phones := newPhones("P1")
	w.start(Options{Drivers: []device.Driver{phones}, Forever: true, ProjectDir: dir, Runner: specs{"tests/good.spec.js": passes}})
	if j := w.verdict(id); j.State != qgjob.Errored || j.Cause != qgjob.CauseBadBuild || j.Attempts != 1 {
		t.Errorf("the job: %+v", j)
	}
	if phones.byID["P1"].installs != 0 {
		t.Error("a device was touched")
	}
}

// A slot of BrowserStack runs a job on the platform that the job's build is for. What a config names is checked by the worker alone.
func TestSlotRunsTheBuildsPlatform(t *testing.T) {
	w := newWorld(t, 0)
	phones := newPhones("S1")
	slot := &phones.byID["S1"].info
	slot.Kind, slot.Platform, slot.OSVersion = qgjob.TargetBrowserStack, qgjob.PlatformAny, ""
	runner := &recording{specs: specs{"tests/good.spec.js": passes}}
	dir := projectDir(t)
	w.start(Options{Drivers: []device.Driver{phones}, Forever: true, ProjectDir: dir, Runner: runner})
	app := func(simulator bool) []byte {
		content, err := phonesim.BuildIPA(phonesim.App{Package: "com.example.shop"}, simulator)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	ipa := file(app(false))
	if _, err := w.client.UploadBuild(t.Context(), "qualgent", "iphone", ipa); err != nil {
		t.Fatal(err)
	}
	run := func(version, sha, requires string) api.JobDetail {
		run, err := w.client.Submit(t.Context(), api.SubmitRequest{
			OrgID: "qualgent", AppVersionID: version, BuildSHA256: sha,
			Jobs: []api.JobSpec{{TestPath: "tests/good.spec.js", Target: string(qgjob.TargetBrowserStack), Requires: requires}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return w.verdict(run.Jobs[0].ID)
	}
	for _, j := range []api.JobDetail{run("xyz123", "", ""), run("iphone", ipa.SHA256, "")} {
		if j.State != qgjob.Passed {
			t.Errorf("%+v", j)
		}
	}
	if len(runner.ran) != 2 || runner.ran[0].Platform != qgjob.PlatformAndroid || runner.ran[1].Platform != qgjob.PlatformIOS {
		t.Errorf("it ran %+v", runner.ran)
	}
	if j := run("xyz123", "", "platform=ios"); j.Cause != qgjob.CauseProjectInvalid || !strings.Contains(j.Message, "is for android") {
		t.Errorf("an APK for a job of iOS: %s %s", j.Cause, j.Message)
	}
	if err := os.WriteFile(filepath.Join(dir, "app.apk"), app(true), 0o600); err != nil {
		t.Fatal(err)
	}
	if j := run("xyz123", "", "platform=ios"); j.Cause != qgjob.CauseProjectInvalid || !strings.Contains(j.Message, "BrowserStack has iPhones only") {
		t.Errorf("a simulator's app: %s %s", j.Cause, j.Message)
	}
}

func TestWorkerThatTheServerForgotRegistersAgain(t *testing.T) {
	w := newWorld(t, 0)
	started, letGo := make(chan string, 4), make(chan struct{})
	k := w.start(Options{Drivers: []device.Driver{newPhones("P1")}, Forever: true, Runner: specs{"tests/long.spec.js": runsUntil(started, "long", letGo)}})
	id := w.submit("tests/long.spec.js", 1)
	receive(t, started)
	if err := w.client.Leave(t.Context(), k.id, api.LeaveRequest{}); err != nil {
		t.Fatal(err)
	}
	k.beat.set()
	if got := receive(t, started); got != "long stopped" {
		t.Fatal(got)
	}
	close(letGo)
	if j := w.verdict(id); j.State != qgjob.Passed || j.TestFailures+j.InfraErrors != 0 {
		t.Errorf("the job: %+v", j)
	}
}

// TestTheServerKnowsTheDevicesWhenTheWorkerSaysSo submits right after: what no device can run is refused then. What
// hinders devices is noted beside the contract's texts.
func TestTheServerKnowsTheDevicesWhenTheWorkerSaysSo(t *testing.T) {
	w := newWorld(t, 0)
	blind, notes := newPhones(), newOutput()
	blind.blind = errors.New("adb is missing")
	k := w.start(Options{Drivers: []device.Driver{newPhones("P1", "P2"), blind}, Forever: true, Notes: notes, Runner: specs{}})
	select {
	case <-k.Known():
	case <-time.After(patience):
		t.Fatal("the worker never says that the server knows its devices")
	}
	if list, err := w.client.Devices(t.Context()); err != nil || len(list.Devices) != 2 {
		t.Errorf("the server knows %v (%v), want two devices", list.Devices, err)
	}
	notes.wait(t, "Devices cannot be listed: adb is missing.", 1)
	if strings.Contains(k.out.String(), "cannot be listed") {
		t.Errorf("it is among the contract's texts:\n%s", k.out)
	}
}
