package android

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/devicetest"
	"qgjob/internal/phonesim"
)

// program makes this test binary a program of the Android SDK, when it is called as one.
func program(args []string) (code int, is bool) {
	if len(args) == 0 || args[0] != "emulator" && args[0] != "avdmanager" {
		return 0, false
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	tool := phonesim.Tool{Args: args[1:], Env: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	var err error
	if args[0] == "emulator" {
		err = tool.Emulator(ctx)
	} else {
		err = tool.AVDManager()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// sdkHost is a host with an Android SDK whose emulators are simulated phones.
type sdkHost struct {
	*host
	prefix string // of AVD names: they are locked for the whole host
	opts   EmulatorOptions
}

func newSDKHost(t *testing.T, avds int) *sdkHost {
	t.Helper()
	h := &sdkHost{host: newHost(t)}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h.opts = EmulatorOptions{Count: avds, SDK: filepath.Join(h.dir, "sdk"), AVDHome: filepath.Join(h.dir, "avd")}
	if err := phonesim.WriteSDK(h.opts.SDK, self); err != nil {
		t.Fatal(err)
	}
	h.prefix = fmt.Sprintf("test-%d-%d-", os.Getpid(), h.port)
	for i := range avds {
		h.opts.AVDs = append(h.opts.AVDs, fmt.Sprintf("%s%d", h.prefix, i+1))
		h.create(t, h.opts.AVDs[i], "")
	}
	return h
}

// create makes an AVD, with more lines in its configuration.
func (h *sdkHost) create(t *testing.T, name, more string) {
	t.Helper()
	tool := phonesim.Tool{
		Args: []string{"create", "avd", "--force", "-n", name, "-k", "system-images;android-34;google_apis;x86_64"}, Stdin: strings.NewReader("no\n"), Stdout: io.Discard,
		Env: func(name string) string {
			return map[string]string{"ANDROID_HOME": h.opts.SDK, "ANDROID_AVD_HOME": h.opts.AVDHome}[name]
		},
	}
	if err := tool.AVDManager(); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(h.avdDir(name), "config.ini")
	old, err := os.ReadFile(config)
	if err == nil {
		err = os.WriteFile(config, append(old, more...), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (h *sdkHost) avdDir(name string) string { return filepath.Join(h.opts.AVDHome, name+".avd") }

func (h *sdkHost) emulators(t *testing.T) *Emulators {
	t.Helper()
	e, err := NewEmulators(t.Context(), h.driver(t), h.opts)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEmulatorSuite(t *testing.T) {
	devicetest.Run(t, func(t *testing.T) devicetest.Harness {
		const installTime = 700 * time.Millisecond
		h := newSDKHost(t, 1)
		name := h.opts.AVDs[0]
		h.create(t, name, fmt.Sprintf("phonesim.install_ms=%d\n", installTime.Milliseconds()))
		return devicetest.Harness{
			Dormant: true, Offline: qgjob.CauseDeviceOffline, Hung: qgjob.CauseDeviceHung,
			Refusals: map[string]qgjob.Cause{"INSTALL_FAILED_INSUFFICIENT_STORAGE": qgjob.CauseInstallRefused, "INSTALL_FAILED_INVALID_APK": qgjob.CauseBadBuild},
			Driver:   func() device.Driver { return h.emulators(t) },
			Serial:   name,
			Phone:    &simulatedAVD{t: t, host: h, name: name},
			Builds: [3]device.Build{
				buildAPK(t, h.dir, phonesim.App{VersionCode: 5, Label: "one"}),
				buildAPK(t, h.dir, phonesim.App{VersionCode: 5, Label: "two"}),
				buildAPK(t, h.dir, phonesim.App{VersionCode: 4, Label: "three"}),
			},
			InstallTime: installTime,
			KillServer: func(s device.Session) {
				server := s.(*avdSession).inner.server
				syscall.Kill(server.PID(), syscall.SIGKILL)
				<-server.Done()
			},
			ServerGone: func(s device.Session) func() bool {
				appium, emulator := s.(*avdSession).inner.server.PID(), s.(*avdSession).running
				return func() bool {
					return devicetest.GroupGone(appium) && (s.(*avdSession).running == emulator || devicetest.GroupGone(emulator.PID))
				}
			},
		}
	})
}

// simulatedAVD is the phone in an emulator's process as the suite's Phone.
type simulatedAVD struct {
	t    *testing.T
	host *sdkHost
	name string
}

func (s *simulatedAVD) control(method, path string, body, answer any) {
	s.t.Helper()
	address, err := os.ReadFile(filepath.Join(s.host.avdDir(s.name), "phone.control"))
	if err != nil {
		s.t.Fatal(err)
	}
	content, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequest(method, string(address)+path, bytes.NewReader(content))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(answer); err != nil || res.StatusCode != http.StatusOK {
		s.t.Fatalf("%s %s: %s %v", method, path, res.Status, err)
	}
}

func (s *simulatedAVD) Account(pkg string) devicetest.Account {
	var l phonesim.Ledger
	s.control("GET", "/ledger", nil, &l)
	return accountOf(l, pkg)
}

// Replace installs as somebody with adb at hand would.
func (s *simulatedAVD) Replace(b device.Build) {
	d := s.host.driver(s.t)
	running := serials(s.t, d)
	if len(running) != 1 {
		s.t.Fatalf("adb sees %q", running)
	}
	other := &session{d: d, serial: running[0], log: devicetest.Log(s.t)}
	v, err := other.stream(s.t.Context(), apk{b.Path, b.SHA256, b.Package})
	if err != nil || v != "Success" {
		s.t.Fatalf("install by hand: %v %v", v, err)
	}
}

func (s *simulatedAVD) Hurt(trouble devicetest.Trouble) {
	var armed []phonesim.ArmedFault
	s.control("PUT", "/fault", faultOf(trouble), &armed)
}

func (s *simulatedAVD) Heal() {
	var armed []phonesim.ArmedFault
	s.control("DELETE", "/fault", nil, &armed)
}

func openAVD(t *testing.T, e *Emulators, name string) *avdSession {
	t.Helper()
	s, err := e.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*avdSession)
}

func serials(t *testing.T, d device.Driver) []string {
	t.Helper()
	infos, err := d.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, i := range infos {
		list = append(list, i.Serial)
	}
	return list
}

// A job boots an emulator; an emulator without work stops, and boots again for the next.
func TestEmulatorsRunWhileTheyAreNeeded(t *testing.T) {
	t.Parallel()
	h := newSDKHost(t, 2)
	h.opts.IdleTime = 100 * time.Millisecond
	e := h.emulators(t)
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	name := h.opts.AVDs[0]
	if got := serials(t, e); !slices.Equal(got, h.opts.AVDs) {
		t.Fatalf("listed %q", got)
	}
	s := openAVD(t, e, name)
	if all, err := e.phones.serverDevices(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("before the first job adb sees %v %v", all, err)
	}
	for range 2 {
		if did, err := s.Prepare(t.Context(), b); err != nil || !did.Installed {
			t.Fatalf("%+v %v", did, err)
		}
		running := s.running
		if err := s.Check(t.Context()); err != nil || !isOwnSerial(running.serial) {
			t.Errorf("%s: %v", running.serial, err)
		}
		infos, err := e.List(t.Context())
		if err != nil || len(infos) != 2 || infos[0].State != qgjob.DeviceIdle || infos[0].OSVersion != "14" || infos[0].Kind != qgjob.TargetEmulator {
			t.Errorf("listed %+v %v", infos, err)
		}
		if err := s.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		devicetest.Eventually(t, 20*time.Second, "the emulator without work is stopped", func() bool { return devicetest.GroupGone(running.PID) })
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("an emulator that was stopped: %v", err)
		}
	}
}

// Those that somebody else has started count, are used, and go on when the worker ends.
func TestRunningEmulatorsAreAdopted(t *testing.T) {
	t.Parallel()
	h := newSDKHost(t, 2)
	foreign := startPhone(t, phonesim.Options{Emulator: true})
	d := h.driver(t)
	if err := d.ensureServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.client.Connect(t.Context(), foreign.Addr()); err != nil {
		t.Fatal(err)
	}
	e := h.emulators(t)
	devicetest.Eventually(t, 20*time.Second, "the running emulator is listed, and one less is booted", func() bool {
		return slices.Equal(serials(t, e), []string{foreign.Addr(), h.opts.AVDs[0]})
	})
	s, err := e.Open(t.Context(), foreign.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Check(t.Context()), s.Close()); err != nil {
		t.Error(err)
	}
	if all, err := d.serverDevices(t.Context()); err != nil || len(all) != 1 || all[0].State != "device" {
		t.Errorf("after the worker's end adb sees %v %v", all, err)
	}
}

func TestBootsThatFail(t *testing.T) {
	t.Parallel()
	h := newSDKHost(t, 3)
	slow, broken, snap := h.opts.AVDs[0], h.opts.AVDs[1], h.opts.AVDs[2]
	h.create(t, slow, "phonesim.cold_boot_ms=3600000\n")
	h.create(t, snap, "phonesim.cold_boot_ms=3600000\n")
	if err := os.MkdirAll(filepath.Join(h.avdDir(snap), "snapshots", "default_boot"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})

	h.opts.BootTime = time.Second
	s := openAVD(t, h.emulators(t), slow)
	_, err := s.Prepare(t.Context(), b)
	if device.CauseOf(err) != qgjob.CauseEmulatorNotBooted || !strings.Contains(err.Error(), "had not booted after 1s") || s.running != nil {
		t.Errorf("a boot that takes too long: %v", err)
	}

	h.opts.BootTime = time.Minute
	e := h.emulators(t)
	if err := os.WriteFile(filepath.Join(h.avdDir(broken), "config.ini"), []byte("image.sysdir.1=system-images/android-99/\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(h.avdDir(broken), "config.ini")); err != nil {
		t.Fatal(err)
	}
	_, err = openAVD(t, e, broken).Prepare(t.Context(), b)
	if device.CauseOf(err) != qgjob.CauseEmulatorNotBooted || !strings.Contains(err.Error(), "FATAL") {
		t.Errorf("an emulator that ends at once: %v", err)
	}

	if _, err := openAVD(t, e, snap).Prepare(t.Context(), b); err != nil {
		t.Errorf("a boot from a snapshot: %v", err)
	}
	if log, err := os.ReadFile(e.bootLog(snap)); err != nil || !strings.Contains(string(log), "loaded snapshot") {
		t.Errorf("%s %v", log, err)
	}
}

// An emulator that dies in a batch is an error with a name, and the next job has a new one.
func TestEmulatorThatDies(t *testing.T) {
	t.Parallel()
	h := newSDKHost(t, 1)
	s := openAVD(t, h.emulators(t), h.opts.AVDs[0])
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	if _, err := s.Prepare(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	dead := s.running
	syscall.Kill(-dead.PID, syscall.SIGKILL)
	<-dead.Done()
	if err := s.Check(t.Context()); device.CauseOf(err) != qgjob.CauseDeviceOffline || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("check: %v", err)
	}
	if err := s.Release(t.Context()); err != nil {
		t.Errorf("release: %v", err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("check before the next job: %v", err)
	}
	if did, err := s.Prepare(t.Context(), b); err != nil || !did.Installed {
		t.Errorf("the next job: %+v %v", did, err)
	}
}

// While a worker does not yet know that its emulator died, another's must not have that one's serial: what the
// first asks of the dead one would reach it.
func TestEmulatorThatDiedIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	h := newSDKHost(t, 2)
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	busy := openAVD(t, h.emulators(t), h.opts.AVDs[0])
	if _, err := busy.Prepare(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	dead := busy.running
	syscall.Kill(-dead.PID, syscall.SIGKILL)
	<-dead.Done()
	other := openAVD(t, h.emulators(t), h.opts.AVDs[1])
	if _, err := other.Prepare(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if other.serial() == dead.serial {
		t.Errorf("the other worker's emulator is %s, too", dead.serial)
	}
	if err := busy.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if did, err := busy.Prepare(t.Context(), b); err != nil || !did.Installed {
		t.Errorf("the next job: %+v %v", did, err)
	}
}

// AVDs of qgjob's own are made from the newest system image that fits.
func TestAVDsAreCreated(t *testing.T) {
	t.Parallel()
	h := newSDKHost(t, 0)
	e := h.emulators(t)
	e.opts.AVDs = []string{h.prefix + "own"}
	if !strings.HasPrefix(e.opts.Image, "system-images;android-34;google_apis;") {
		t.Fatalf("image %q", e.opts.Image)
	}
	if err := e.makeAVD(t.Context(), e.opts.AVDs[0]); err != nil {
		t.Fatal(err)
	}
	if there, err := e.sdk.avds(t.Context()); err != nil || !slices.Equal(there, e.opts.AVDs) {
		t.Errorf("AVDs: %q %v", there, err)
	}
	e.opts.Image = "system-images;android-1;none;x86"
	if err := e.makeAVD(t.Context(), h.prefix+"other"); device.CauseOf(err) != qgjob.CauseHostFailed || !strings.Contains(err.Error(), "Valid system image paths") {
		t.Errorf("an image that is not there: %v", err)
	}
	h.opts.Count, h.opts.AVDs = 1, []string{"nobody-made-it"}
	if _, err := NewEmulators(t.Context(), h.driver(t), h.opts); device.CauseOf(err) != qgjob.CauseHostFailed || !strings.Contains(err.Error(), h.prefix+"own") {
		t.Errorf("an AVD that is not there: %v", err)
	}
	h.opts.SDK = t.TempDir()
	if _, err := NewEmulators(t.Context(), h.driver(t), h.opts); err == nil || !strings.Contains(err.Error(), "ANDROID_HOME") {
		t.Errorf("a host without an emulator: %v", err)
	}
}
