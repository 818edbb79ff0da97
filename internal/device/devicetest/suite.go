// Package devicetest is the suite that every device driver passes, over real devices or over simulated
// ones on their real wire protocols, and what such tests need of a host.
//
// A driver's test says how to get a phone of its kind and how to hurt it; the suite states what a worker
// can rely on whatever the phone is.
package devicetest

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// Harness is a host with one phone, and what a test may do to them.
type Harness struct {
	// Cloud says that the phone is one of a cloud's: builds are uploaded and stay beside each other, each session
	// begins on a clean phone with a fresh install, and what the phone is like shows in a session only.
	Cloud bool
	// Dormant says that the phone is off until a job wants it, and forgets its apps when its session is closed.
	Dormant bool
	// Offline and Hung are the causes that the driver gives to a phone in that trouble.
	Offline, Hung qgjob.Cause
	// Refusals are codes with which the phone may refuse a build, and the causes that the driver gives to them.
	Refusals map[string]qgjob.Cause

	// Driver makes a driver as another worker of the same host would have it. All see the phone.
	Driver func() device.Driver
	Serial string
	Phone  Phone
	// Builds are of one package and one version name, with different bytes; the version code of the last is the lowest.
	Builds [3]device.Build
	// InstallTime is how long an install takes at least.
	InstallTime time.Duration
	// KillServer ends a session's Appium as kill -9 does, and waits until it is gone.
	KillServer func(device.Session)
	// ServerGone says whether nothing is left of the Appium that a session had when the harness was last asked
	// with a session that is open.
	ServerGone func(device.Session) func() bool
}

// Phone is the phone's own account of what was done to it, and ways to hurt it.
type Phone interface {
	Account(pkg string) Account
	Replace(b device.Build) // puts a build in the place of what is there, without the driver's knowledge
	Hurt(Trouble)
	Heal()
}

// Account is what happened to a package on a phone.
type Account struct {
	Installs, Resets int      // of a cloud: uploads, and none
	Held             []string // SHA-256 of what is there: one build on a phone, any number on a cloud
	Running          string   // SHA-256 of the build that runs, "" for none
	OpenSessions     int      // of the automation server, for whatever package
}

// Trouble is something that happens to phones.
type Trouble struct {
	Offline bool   // drops off its connection
	Hang    bool   // keeps its connection and answers nothing
	Refuse  string // refuses installs with this code
	Blind   bool   // does not record its screen
}

// Run runs the suite. Every case gets a harness of its own.
func Run(t *testing.T, harness func(t *testing.T) Harness) {
	cases := []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"ListedOnceWithItsState", listed},
		{"InstallsOnce", installsOnce},
		{"OtherBytesAreInstalled", otherBytes},
		{"LowerVersionIsInstalled", lowerVersion},
		{"AppReplacedByHandIsNoticed", replacedByHand},
		{"InstallOutlivesTheWorker", outlivesWorker},
		{"RefusedInstallHasItsCause", refusedInstall},
		{"OfflineDuringPrepare", offline},
		{"HangIsBounded", hang},
		{"CancelEndsPrepare", cancelPrepare},
		{"OneWorkerAtATime", oneWorker},
		{"ClosedSessionRefuses", closedSession},
		{"SessionsThroughTheEndpoint", sessions},
		{"SessionLeftOpenGivesWay", leftOpen},
		{"KeptSessionOutlivesTheJob", keptSession},
		{"SessionOfAClientThatLeft", clientLeft},
		{"DeviceTellsItsLog", deviceLog},
		{"LogOfALostDevice", logOfALostDevice},
		{"DeviceShowsItsScreen", screen},
		{"ScreenIsRecorded", recorded},
		{"RecordingIsNoHarm", recordingOfALostDevice},
		{"DeviceThatDoesNotRecord", recordingOfABlindDevice},
		{"DeviceIsMended", mended},
		{"EndpointSurvivesKill", killedServer},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, harness(t))
		})
	}
}

// open opens the phone as a worker with the driver does, and wakes it.
func open(t *testing.T, h Harness, d device.Driver) device.Session {
	t.Helper()
	s, err := d.Open(t.Context(), h.Serial)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	if h.Dormant {
		endpoint(t, s)
	}
	return s
}

func prepare(t *testing.T, s device.Session, b device.Build) device.Preparation {
	t.Helper()
	did, err := s.Prepare(t.Context(), b)
	if err != nil {
		t.Fatalf("prepare: %v", err)
	}
	return did
}

func wantInstalled(t *testing.T, h Harness, b device.Build, installs int) {
	t.Helper()
	a := h.Phone.Account(b.Package)
	if !slices.Contains(a.Held, b.SHA256) || !h.Cloud && len(a.Held) != 1 {
		t.Errorf("the phone holds %q, want %q", a.Held, b.SHA256)
	}
	if a.Installs != installs {
		t.Errorf("the phone counts %d installs, want %d", a.Installs, installs)
	}
}

func wantCause(t *testing.T, err error, want qgjob.Cause) {
	t.Helper()
	if f, ok := errors.AsType[*device.Failure](err); !ok || f.Cause != want {
		t.Errorf("error %v has cause %q, want %q", err, device.CauseOf(err), want)
	}
}

func listed(t *testing.T, h Harness) {
	infos, err := h.Driver().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(infos) != 1 {
		t.Fatalf("listed %d devices, want 1: %+v", len(infos), infos)
	}
	i := infos[0]
	if i.Serial != h.Serial || i.State != qgjob.DeviceIdle || i.Model == "" || i.OSVersion == "" && !h.Cloud || i.ID == "" || qgjob.TargetAny.Accepts(i.Kind) == h.Cloud {
		t.Errorf("listed %+v", i)
	}
	if h.Dormant {
		return
	}
	h.Phone.Hurt(Trouble{Offline: true})
	Eventually(t, 20*time.Second, "the phone is listed as offline, with advice", func() bool {
		infos, err := h.Driver().List(t.Context())
		return err == nil && len(infos) == 1 && infos[0].State == qgjob.DeviceOffline && infos[0].Message != ""
	})
}

func installsOnce(t *testing.T, h Harness) {
	b := h.Builds[0]
	s := open(t, h, h.Driver())
	first := prepare(t, s, b)
	if !first.Installed || first.Install <= 0 || first.Reset != 0 {
		t.Errorf("first preparation: %+v", first)
	}
	for range 3 {
		again := prepare(t, s, b)
		if again.Installed || again.Install != 0 || again.Reset <= 0 != h.Cloud {
			t.Errorf("preparation of an installed build: %+v", again)
		}
	}
	wantInstalled(t, h, b, 1)
	if n := h.Phone.Account(b.Package).Resets; n != 3 && !h.Cloud {
		t.Errorf("the app's data was cleared %d times, want 3", n)
	}
}

func otherBytes(t *testing.T, h Harness) {
	s := open(t, h, h.Driver())
	for i, b := range []device.Build{h.Builds[0], h.Builds[1], h.Builds[0]} {
		there := h.Cloud && i == 2
		if did := prepare(t, s, b); did.Installed == there {
			t.Errorf("build %d was installed: %v", i, did.Installed)
		}
		if there {
			i--
		}
		wantInstalled(t, h, b, i+1)
		if h.Cloud { // the build that is there and the one that runs are two things
			openSession(t, endpoint(t, s), b)
			if a := h.Phone.Account(b.Package); a.Running != b.SHA256 {
				t.Errorf("the build that runs is %q, want %q", a.Running, b.SHA256)
			}
			release(t, s)
		}
	}
}

func lowerVersion(t *testing.T, h Harness) {
	s := open(t, h, h.Driver())
	prepare(t, s, h.Builds[0])
	prepare(t, s, h.Builds[2])
	wantInstalled(t, h, h.Builds[2], 2)
}

func replacedByHand(t *testing.T, h Harness) {
	s := open(t, h, h.Driver())
	prepare(t, s, h.Builds[0])
	h.Phone.Replace(h.Builds[1])
	if did := prepare(t, s, h.Builds[0]); !did.Installed {
		t.Error("the app was replaced by hand, and the driver believes its memory")
	}
	installs := 3 // one of them by hand
	if h.Cloud {
		installs = 2
	}
	wantInstalled(t, h, h.Builds[0], installs)
}

func outlivesWorker(t *testing.T, h Harness) {
	b := h.Builds[0]
	s := open(t, h, h.Driver())
	prepare(t, s, b)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, h, h.Driver())
	if h.Dormant {
		if did := prepare(t, s, b); !did.Installed {
			t.Error("a new worker believes that a phone remembers which forgot")
		}
		return
	}
	if holder, ok := s.(device.Holder); ok {
		if app, ok := holder.Installed(); !ok || app != b.Key {
			t.Errorf("a new worker believes that %+v (%v) is installed, want %+v", app, ok, b.Key)
		}
	}
	if did := prepare(t, s, b); did.Installed {
		t.Error("a new worker installed what was there")
	}
	wantInstalled(t, h, b, 1)
}

func refusedInstall(t *testing.T, h Harness) {
	s := open(t, h, h.Driver())
	for code, cause := range h.Refusals {
		h.Phone.Hurt(Trouble{Refuse: code})
		_, err := s.Prepare(t.Context(), h.Builds[0])
		wantCause(t, err, cause)
		h.Phone.Heal()
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("check after refused installs: %v", err)
	}
	prepare(t, s, h.Builds[0])
	wantInstalled(t, h, h.Builds[0], 1)
}

func offline(t *testing.T, h Harness) {
	s := open(t, h, h.Driver())
	h.Phone.Hurt(Trouble{Hang: true}) // so that it is not over too soon
	failed := make(chan error, 1)
	go func() {
		_, err := s.Prepare(t.Context(), h.Builds[0])
		failed <- err
	}()
	h.Phone.Hurt(Trouble{Offline: true})
	wantCause(t, <-failed, h.Offline)
	wantCause(t, s.Check(t.Context()), h.Offline)
	h.Phone.Heal()
	Eventually(t, 30*time.Second, "the phone is back", func() bool {
		_, err := h.Driver().List(t.Context())
		return err == nil && s.Check(t.Context()) == nil
	})
	prepare(t, s, h.Builds[0])
	wantInstalled(t, h, h.Builds[0], h.Phone.Account(h.Builds[0].Package).Installs)
}

func hang(t *testing.T, h Harness) {
	s := open(t, h, h.Driver())
	h.Phone.Hurt(Trouble{Hang: true})
	within(t, 8*time.Second, "check", func() { wantCause(t, s.Check(t.Context()), h.Hung) })
	within(t, 4*time.Second, "list", func() {
		if _, err := h.Driver().List(t.Context()); err != nil {
			t.Errorf("list with a hanging phone: %v", err)
		}
	})
	within(t, 5*time.Second, "prepare with a deadline", func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Prepare(ctx, h.Builds[0]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("prepare with a deadline on a hanging phone: %v", err)
		}
	})
	h.Phone.Heal()
	Eventually(t, 20*time.Second, "the phone answers again", func() bool { return s.Check(t.Context()) == nil })
	prepare(t, s, h.Builds[0])
	wantInstalled(t, h, h.Builds[0], 1)
}

func cancelPrepare(t *testing.T, h Harness) {
	s := open(t, h, h.Driver())
	ctx, cancel := context.WithTimeout(t.Context(), h.InstallTime/2)
	defer cancel()
	within(t, 3*time.Second, "prepare after its cancel", func() {
		if _, err := s.Prepare(ctx, h.Builds[0]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("canceled prepare: %v", err)
		}
	})
	prepare(t, s, h.Builds[0])
	if a := h.Phone.Account(h.Builds[0].Package); !slices.Contains(a.Held, h.Builds[0].SHA256) {
		t.Errorf("the phone holds %q", a.Held)
	}
}

func within(t *testing.T, bound time.Duration, what string, do func()) {
	t.Helper()
	began := time.Now()
	do()
	if took := time.Since(began); took > bound {
		t.Errorf("%s took %v, at most %v are allowed", what, took, bound)
	}
}

func oneWorker(t *testing.T, h Harness) {
	one, other := h.Driver(), h.Driver()
	s := open(t, h, one)
	for _, d := range []device.Driver{one, other} {
		if _, err := d.Open(t.Context(), h.Serial); !errors.Is(err, device.ErrInUse) {
			t.Errorf("second open: %v, want ErrInUse", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, h, other)
	prepare(t, s, h.Builds[0])
	if _, err := one.Open(t.Context(), "no-such-device"); err == nil {
		t.Error("a device that is not there was opened")
	} else {
		wantCause(t, err, qgjob.CauseDeviceOffline)
	}
}

func closedSession(t *testing.T, h Harness) {
	s := open(t, h, h.Driver())
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if _, err := s.Prepare(t.Context(), h.Builds[0]); err == nil {
		t.Error("a closed session prepares")
	}
	if _, err := s.Endpoint(t.Context()); err == nil {
		t.Error("a closed session has an endpoint")
	}
	if err := s.Check(t.Context()); err == nil {
		t.Error("a closed session checks")
	}
}

func endpoint(t *testing.T, s device.Session) device.Endpoint {
	t.Helper()
	e, err := s.Endpoint(t.Context())
	if err != nil {
		t.Fatalf("endpoint: %v", err)
	}
	return e
}

func release(t *testing.T, s device.Session) {
	t.Helper()
	if err := s.Release(t.Context()); err != nil {
		t.Fatalf("release: %v", err)
	}
}

// sessions is three jobs on a warm server: one leaves its session open, one ends it, one follows.
func sessions(t *testing.T, h Harness) {
	b := h.Builds[0]
	s := open(t, h, h.Driver())
	var url string
	for job := range 3 {
		prepare(t, s, b)
		e := endpoint(t, s)
		if url == "" {
			url = e.URL
		}
		if e.URL != url {
			t.Errorf("job %d has endpoint %s, the one before %s: the server did not stay warm", job, e.URL, url)
		}
		began := time.Now()
		id := openSession(t, e, b)
		t.Logf("job %d: session %s took %v", job, id, time.Since(began).Round(time.Millisecond))
		if a := h.Phone.Account(b.Package); a.Running != b.SHA256 || a.OpenSessions != 1 {
			t.Errorf("in a session the phone says %+v", a)
		}
		if job == 1 {
			if err := Command(t.Context(), e, "DELETE", "/session/"+id, nil, nil); err != nil {
				t.Error(err)
			}
		}
		release(t, s)
		release(t, s)
		if a := h.Phone.Account(b.Package); a.Running != "" || a.OpenSessions != 0 {
			t.Errorf("after a release the phone says %+v", a)
		}
	}
	wantInstalled(t, h, b, 1)
	gone := h.ServerGone(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 5*time.Second, "a closed session leaves no processes", gone)
}

// keptSession is two jobs of a batch, of which the second goes on in the first one's session.
func keptSession(t *testing.T, h Harness) {
	b := h.Builds[0]
	s := open(t, h, h.Driver())
	keeper, ok := s.(device.Keeper)
	if !ok {
		return // it makes a session for each job
	}
	prepare(t, s, b)
	e := endpoint(t, s)
	id := openSession(t, e, b)
	if err := keeper.ReleaseKeeping(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if a := h.Phone.Account(b.Package); a.Running != "" || a.OpenSessions != 1 {
		t.Errorf("after a release that keeps a session the phone says %+v", a)
	}
	if again := endpoint(t, s); again.URL != e.URL {
		t.Errorf("the endpoint moved from %s to %s", e.URL, again.URL)
	}
	prepare(t, s, b)
	if err := Command(t.Context(), e, "GET", "/session/"+id+"/source", nil, nil); err != nil {
		t.Errorf("the kept session does not answer: %v", err)
	}
	release(t, s)
	if a := h.Phone.Account(b.Package); a.OpenSessions != 0 {
		t.Errorf("after a release the phone says %+v", a)
	}
	wantInstalled(t, h, b, 1)
}

// mended climbs the ladder of what is done about a device that fails, with a job after each rung.
func mended(t *testing.T, h Harness) {
	b := h.Builds[0]
	s := open(t, h, h.Driver())
	healer, ok := s.(device.Healer)
	if !ok {
		return // there is nothing to be done
	}
	for rung := range device.HealRungs {
		prepare(t, s, b)
		openSession(t, endpoint(t, s), b)
		if did, err := healer.Heal(t.Context(), rung); err != nil || did == "" {
			t.Errorf("rung %d: %q, %v", rung, did, err)
		}
	}
	prepare(t, s, b)
	openSession(t, endpoint(t, s), b)
	wantInstalled(t, h, b, 1)
}

// deviceLog is a test whose device log is kept.
func deviceLog(t *testing.T, h Harness) {
	b := h.Builds[0]
	s := open(t, h, h.Driver())
	c, ok := s.(device.Chronicler)
	if !ok {
		return // it tells nothing
	}
	prepare(t, s, b)
	mark, err := c.MarkLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	openSession(t, endpoint(t, s), b)
	var log bytes.Buffer
	if err := c.LogSince(t.Context(), mark, &log); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), b.Package) {
		t.Errorf("the device's log does not tell of the app's start:\n%s", &log)
	}
}

// logOfALostDevice is a test whose device goes away: an error, soon, and nothing else.
func logOfALostDevice(t *testing.T, h Harness) {
	s := open(t, h, h.Driver())
	c, ok := s.(device.Chronicler)
	if !ok {
		return // it tells nothing
	}
	prepare(t, s, h.Builds[0])
	mark, err := c.MarkLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.Phone.Hurt(Trouble{Offline: true})
	within(t, 10*time.Second, "the log of a device that is gone", func() {
		if err := c.LogSince(t.Context(), mark, io.Discard); err == nil {
			t.Error("a device that is gone tells its log")
		}
	})
	if h.Dormant {
		return // it is another device when it is back
	}
	h.Phone.Heal()
	Eventually(t, 30*time.Second, "the phone is back", func() bool {
		_, err := h.Driver().List(t.Context())
		return err == nil && s.Check(t.Context()) == nil
	})
	if err := c.LogSince(t.Context(), mark, io.Discard); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// screen is a test whose device's screen is kept, also after its session.
func screen(t *testing.T, h Harness) {
	b := h.Builds[0]
	s := open(t, h, h.Driver())
	c, ok := s.(device.Screener)
	if !ok {
		return // it shows nothing
	}
	prepare(t, s, b)
	openSession(t, endpoint(t, s), b)
	var screen bytes.Buffer
	if err := c.Screen(t.Context(), &screen); err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(&screen); err != nil {
		t.Errorf("the screen is no picture: %v", err)
	}
}

// recorded begins a recording and keeps it, and another one and does not.
func recorded(t *testing.T, h Harness) {
	s, f, ok := filmer(t, h)
	if !ok {
		return
	}
	for _, keep := range []bool{true, false, true} {
		film, err := f.Film(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("while it records: %v", err)
		}
		dir := t.TempDir()
		to := ""
		if keep {
			to = dir
		}
		if err := film.End(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, "video-01.mp4"))
		if keep != (err == nil) || keep && !bytes.Contains(data[:min(len(data), 12)], []byte("ftyp")) {
			t.Errorf("keep %v: %q, %v", keep, data, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 1 {
			t.Errorf("keep %v: %d files, %v", keep, len(entries), err)
		}
	}
	if err := s.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// recordingOfALostDevice ends a recording of a device that is not there any more: an error, soon, and nothing else.
// A device that does not record says so, and is as good as any other.
func recordingOfABlindDevice(t *testing.T, h Harness) {
	s, f, ok := filmer(t, h)
	if !ok {
		return
	}
	h.Phone.Hurt(Trouble{Blind: true})
	film, err := f.Film(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if did := prepare(t, s, h.Builds[1]); !did.Installed {
		t.Error("the next build was not installed")
	}
	if err := nothingKept(t, film); err == nil || !strings.Contains(err.Error(), "does not record its screen") {
		t.Errorf("the recording ends with %v", err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func recordingOfALostDevice(t *testing.T, h Harness) {
	_, f, ok := filmer(t, h)
	if !ok {
		return
	}
	film, err := f.Film(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.Phone.Hurt(Trouble{Offline: true})
	if err := nothingKept(t, film); err == nil {
		t.Error("the recording of a device that is gone ends without an error")
	}
}

// filmer prepares a device whose driver records its screen; of others the provider does, or nobody.
func filmer(t *testing.T, h Harness) (device.Session, device.Filmer, bool) {
	t.Helper()
	s := open(t, h, h.Driver())
	f, ok := s.(device.Filmer)
	if ok {
		prepare(t, s, h.Builds[0])
	}
	return s, f, ok
}

// nothingKept ends a recording that leaves no file, and returns how it ended.
func nothingKept(t *testing.T, film device.Film) error {
	t.Helper()
	dir := t.TempDir()
	ended := film.End(t.Context(), dir)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("it left %d files, %v", len(entries), err)
	}
	return ended
}

// leftOpen is two tests of one job, of which the first crashed with its session open.
func leftOpen(t *testing.T, h Harness) {
	b := h.Builds[0]
	s := open(t, h, h.Driver())
	prepare(t, s, b)
	e := endpoint(t, s)
	openSession(t, e, b)
	openSession(t, e, b)
	if a := h.Phone.Account(b.Package); a.OpenSessions != 1 {
		t.Errorf("in the second test the phone says %+v", a)
	}
}

// clientLeft is the job that was canceled while its session was being made, at several moments.
func clientLeft(t *testing.T, h Harness) {
	b := h.Builds[0]
	s := open(t, h, h.Driver())
	for _, after := range []time.Duration{20 * time.Millisecond, 150 * time.Millisecond, 400 * time.Millisecond} {
		prepare(t, s, b)
		e := endpoint(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), after)
		OpenSession(ctx, e, b)
		cancel()
		release(t, s)
		if a := h.Phone.Account(b.Package); a.Running != "" || a.OpenSessions != 0 {
			t.Errorf("after the release of a job whose client left after %v, the phone says %+v", after, a)
		}
	}
	prepare(t, s, b)
	openSession(t, endpoint(t, s), b)
	if a := h.Phone.Account(b.Package); a.OpenSessions != 1 {
		t.Errorf("in the next job the phone says %+v", a)
	}
}

func killedServer(t *testing.T, h Harness) {
	b := h.Builds[0]
	s := open(t, h, h.Driver())
	prepare(t, s, b)
	openSession(t, endpoint(t, s), b)
	gone := h.ServerGone(s)
	h.KillServer(s)
	Eventually(t, 10*time.Second, "the killed server's children are gone", gone)
	release(t, s)
	prepare(t, s, b)
	openSession(t, endpoint(t, s), b)
	release(t, s)
	wantInstalled(t, h, b, 1)
}
