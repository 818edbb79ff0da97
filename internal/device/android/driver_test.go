package android

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qgjob"
	"qgjob/internal/build"
	"qgjob/internal/device"
	"qgjob/internal/device/adb"
	"qgjob/internal/device/appium"
	"qgjob/internal/device/devicetest"
	"qgjob/internal/phonesim"
)

func list(t *testing.T, d *Driver) map[string]device.Info {
	t.Helper()
	infos, err := d.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bySerial := map[string]device.Info{}
	for _, i := range infos {
		bySerial[i.Serial] = i
	}
	return bySerial
}

func openSession(t *testing.T, d *Driver, serial string) *session {
	t.Helper()
	s, err := d.Open(t.Context(), serial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*session)
}

func TestStatesOfDevicesThatCannotBeAsked(t *testing.T) {
	d, err := New(Options{DataDir: t.TempDir(), Log: devicetest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	for state, want := range map[string]struct {
		state qgjob.DeviceState
		says  string
	}{
		"unauthorized":   {qgjob.DeviceUnauthorized, "confirm the dialog"},
		"authorizing":    {qgjob.DeviceUnauthorized, "confirm the dialog"},
		"no permissions": {qgjob.DeviceOffline, "udev"},
		"offline":        {qgjob.DeviceOffline, "does not answer"},
		"recovery":       {qgjob.DeviceOffline, "recovery"},
		"rescue":         {qgjob.DeviceOffline, `"rescue"`},
		stateMissing:     {qgjob.DeviceOffline, "not connected"},
	} {
		got := d.describe(t.Context(), adb.Device{Serial: "R58M", State: state})
		if got.State != want.state || !strings.Contains(got.Message, want.says) || got.ID != "R58M" || got.Kind != qgjob.TargetDevice {
			t.Errorf("a device that adb calls %s is %+v", state, got)
		}
	}
	got := d.describe(t.Context(), adb.Device{Serial: "emulator-5554", State: "offline"})
	if got.Kind != qgjob.TargetEmulator || got.ID != "emulator-5554@"+d.host {
		t.Errorf("an emulator that is offline is %+v", got)
	}
}

// simulatedHardware is what every simulated phone has. An emulator's instruction set is another.
var simulatedHardware = qgjob.Hardware{ScreenWidth: 1080, ScreenHeight: 2340, BatteryPercent: 100, FreeStorage: 48 << 30, ABIs: "arm64-v8a"}

func TestHardware(t *testing.T) {
	before := qgjob.Hardware{ScreenWidth: 720, ScreenHeight: 1280, BatteryPercent: 50, FreeStorage: 1}
	for text, want := range map[string]qgjob.Hardware{
		// A Pixel whose screen size was changed, with what its dumpsys and toybox df print.
		"Physical size: 1440x3120\nOverride size: 1080x2340\nCurrent Battery Service state:\n  AC powered: false\n  level: 37\n  scale: 100\n" +
			"Filesystem       1K-blocks     Used Available Use% Mounted on\n/dev/block/dm-52 111079404 93046460  17901872  84% /data/user/0\n": {ScreenWidth: 1080, ScreenHeight: 2340, BatteryPercent: 37, FreeStorage: 17901872 << 10},
		"/system/bin/sh: wm: inaccessible or not found\n": before,
		"": before,
	} {
		if diff := cmp.Diff(want, parseHardware(text, before)); diff != "" {
			t.Errorf("%q (-want +got)\n%s", text, diff)
		}
	}
}

// What changes is asked for again after a while, and not at each look.
func TestHardwareIsAskedForNowAndThen(t *testing.T) {
	t.Parallel()
	phone := startPhone(t, phonesim.Options{})
	d := newHost(t, phone.Addr()).driver(t)
	list(t, d)
	if err := phone.SetFault(phonesim.Fault{Kind: phonesim.FaultLowStorage}); err != nil {
		t.Fatal(err)
	}
	if got := list(t, d)[phone.Addr()].Hardware; got != simulatedHardware {
		t.Errorf("at the next look: %+v", got)
	}
	d.mu.Lock()
	f := d.known[phone.Addr()]
	f.measured = f.measured.Add(-measureEvery)
	d.known[phone.Addr()] = f
	d.mu.Unlock()
	if got := list(t, d)[phone.Addr()].Hardware.FreeStorage; got != 1<<20 {
		t.Errorf("a minute later %d bytes are free, want 1 MB", got)
	}
}

func TestKindModelAndVersion(t *testing.T) {
	t.Parallel()
	phone := startPhone(t, phonesim.Options{Model: "Pixel 7", OSVersion: "13"})
	emulator := startPhone(t, phonesim.Options{Emulator: true, OSVersion: "16"})
	d := newHost(t, phone.Addr(), emulator.Addr(), "127.0.0.1:1").driver(t)
	emulated := simulatedHardware
	emulated.ABIs = "x86_64"
	want := map[string]device.Info{
		phone.Addr(): {
			ID: phone.Addr() + "@" + d.host, Serial: phone.Addr(), Kind: qgjob.TargetDevice, Platform: "android",
			Model: "Pixel 7", OSVersion: "13", State: qgjob.DeviceIdle, Hardware: simulatedHardware,
		},
		emulator.Addr(): {
			ID: emulator.Addr() + "@" + d.host, Serial: emulator.Addr(), Kind: qgjob.TargetEmulator, Platform: "android",
			Model: "sdk_gphone64_x86_64", OSVersion: "16", State: qgjob.DeviceIdle, Hardware: emulated,
		},
		"127.0.0.1:1": {
			ID: "127.0.0.1:1@" + d.host, Serial: "127.0.0.1:1", Kind: qgjob.TargetDevice, Platform: "android",
			State: qgjob.DeviceOffline, Message: stateAdvice[stateMissing],
		},
	}
	if diff := cmp.Diff(want, list(t, d)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestOnlyNamedDevicesAreDriven(t *testing.T) {
	t.Parallel()
	mine, other := startPhone(t, phonesim.Options{}), startPhone(t, phonesim.Options{})
	h := newHost(t, mine.Addr(), other.Addr())
	list(t, h.driver(t)) // connects both
	h.serials = []string{mine.Addr()}
	d := h.driver(t)
	if got := list(t, d); len(got) != 1 || got[mine.Addr()].State != qgjob.DeviceIdle {
		t.Errorf("listed %+v", got)
	}
	if _, err := d.Open(t.Context(), other.Addr()); device.CauseOf(err) != qgjob.CauseDeviceOffline {
		t.Errorf("open of a device that is not to be driven: %v", err)
	}
}

func TestRebootIsSeenAndSurvived(t *testing.T) {
	t.Parallel()
	phone := startPhone(t, phonesim.Options{})
	h := newHost(t, phone.Addr())
	d := h.driver(t)
	s := openSession(t, d, phone.Addr())
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	if _, err := s.Prepare(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	d.client.Shell(t.Context(), phone.Addr(), "reboot")
	seen := map[qgjob.DeviceState]bool{}
	devicetest.Eventually(t, time.Minute, "the phone is idle again", func() bool {
		i := list(t, d)[phone.Addr()]
		seen[i.State] = true
		return i.State == qgjob.DeviceIdle && len(seen) > 1
	})
	if !seen[qgjob.DeviceBooting] {
		t.Errorf("seen were %v, and not that it was booting", seen)
	}
	if did, err := s.Prepare(t.Context(), b); err != nil || did.Installed {
		t.Errorf("after a reboot: %+v %v", did, err)
	}
}

func TestPhoneThatHangsHoldsUpNobody(t *testing.T) {
	t.Parallel()
	sick, well := startPhone(t, phonesim.Options{}), startPhone(t, phonesim.Options{})
	h := newHost(t, sick.Addr(), well.Addr())
	d := h.driver(t)
	list(t, d) // connects
	if err := sick.SetFault(phonesim.Fault{Kind: phonesim.FaultHang}); err != nil {
		t.Fatal(err)
	}
	d = h.driver(t) // knows nothing yet
	began := time.Now()
	got := list(t, d)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the list took %v", took)
	}
	if got[sick.Addr()].State != qgjob.DeviceOffline || got[well.Addr()].State != qgjob.DeviceIdle {
		t.Errorf("listed %+v", got)
	}
	if _, err := d.Open(t.Context(), sick.Addr()); device.CauseOf(err) != qgjob.CauseDeviceOffline {
		t.Errorf("open of a phone that hangs: %v", err)
	}
	if _, err := openSession(t, d, well.Addr()).Prepare(t.Context(), buildAPK(t, h.dir, phonesim.App{Label: "one"})); err != nil {
		t.Error(err)
	}
	sick.ClearFaults()
	openSession(t, d, sick.Addr()) // the failed open gave the lock back
}

// rewriting is a connection to the adb server on which one word of what is asked is another of its length.
func rewriting(t *testing.T, port int, from, to string) (throughPort int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err != nil {
				client.Close()
				return
			}
			go func() {
				io.Copy(client, server)
				client.Close()
			}()
			go func() {
				defer server.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := client.Read(buf)
					io.WriteString(server, strings.ReplaceAll(string(buf[:n]), from, to))
					if err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// Phones before Android 8 have no sha256sum.
func TestProofWithoutSHA256SumOnThePhone(t *testing.T) {
	phone := startPhone(t, phonesim.Options{})
	h := newHost(t, phone.Addr())
	h.port = rewriting(t, h.port, "sha256sum", "sha256bum")
	s := openSession(t, h.driver(t), phone.Addr())
	one, two := buildAPK(t, h.dir, phonesim.App{Label: "one"}), buildAPK(t, h.dir, phonesim.App{Label: "two"})
	for i, b := range []device.Build{one, one, two, one} {
		did, err := s.Prepare(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if want := i != 1; did.Installed != want {
			t.Errorf("preparation %d installed: %v, want %v", i, did.Installed, want)
		}
	}
	s.Close()
}

func TestMissingADB(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("ANDROID_HOME", "")
	t.Setenv("ANDROID_SDK_ROOT", "")
	d, err := New(Options{DataDir: t.TempDir(), AdbPort: closedPort(t), Log: devicetest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.List(t.Context())
	if f, ok := errors.AsType[*device.Failure](err); !ok || f.Cause != qgjob.CauseHostFailed || !strings.Contains(f.Message, "apt install adb") {
		t.Errorf("error %v", err)
	}
}

func closedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestServerIsStartedWhenThereIsNone(t *testing.T) {
	t.Setenv("HOME", t.TempDir()) // for the server's keys
	port := closedPort(t)
	t.Setenv("ANDROID_ADB_SERVER_PORT", strconv.Itoa(port))
	phone := startPhone(t, phonesim.Options{})
	d, err := New(Options{Serials: []string{phone.Addr()}, DataDir: t.TempDir(), Log: devicetest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // this test's own server
		if out, err := exec.Command("adb", "-P", strconv.Itoa(port), "kill-server").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	if got := list(t, d)[phone.Addr()]; got.State != qgjob.DeviceIdle {
		t.Errorf("listed %+v", got)
	}
}

func TestServerThatHangs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := New(Options{DataDir: t.TempDir(), AdbPort: l.Addr().(*net.TCPAddr).Port, Log: devicetest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.List(t.Context()); device.CauseOf(err) != qgjob.CauseHostFailed || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("error %v", err)
	}
}

// An adb of another version than the server's would kill the server.
func TestADBOfAnotherVersionIsRefused(t *testing.T) {
	d := newHost(t).driver(t)
	real, err := d.fittingADB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "adb"), []byte("#!/bin/sh\necho Android Debug Bridge version 1.0.39\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":/bin")
	t.Setenv("ANDROID_SDK_ROOT", "")
	t.Setenv("ANDROID_HOME", "")
	if _, err := d.fittingADB(t.Context()); device.CauseOf(err) != qgjob.CauseHostFailed || !strings.Contains(err.Error(), "1.0.39") {
		t.Errorf("error %v", err)
	}
	sdk := filepath.Join(t.TempDir(), "sdk")
	if err := makeAndroidHome(sdk, real); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ANDROID_HOME", sdk)
	if got, err := d.fittingADB(t.Context()); err != nil || got != filepath.Join(sdk, "platform-tools", "adb") {
		t.Errorf("with a fitting one in ANDROID_HOME: %s %v", got, err)
	}
}

func TestHelpersAreWhatTheyAreCalled(t *testing.T) {
	install, err := appium.Ensure(t.Context(), devicetest.AppiumDir(t), appium.Android, devicetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range helpers {
		file, err := h.apk(install)
		if err != nil {
			t.Fatal(err)
		}
		info, err := build.Parse(file.path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Package != h.pkg || info.SHA256 != file.sha256 {
			t.Errorf("%s is %+v", h.pkg, info)
		}
	}
}

// Somebody removes Appium's helpers between two jobs, and takes the port of its connection.
func TestEndpointMendsWhatOthersBreak(t *testing.T) {
	t.Parallel()
	phone := startPhone(t, phonesim.Options{})
	h := newHost(t, phone.Addr())
	s := openSession(t, h.driver(t), phone.Addr())
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	job := func() {
		t.Helper()
		if _, err := s.Prepare(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		e, err := s.Endpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := devicetest.OpenSession(t.Context(), e, b); err != nil {
			t.Fatal(err)
		}
		if err := s.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	job()
	if _, err := s.shell(t.Context(), commandTimeout, "pm uninstall "+helpers[1].pkg); err != nil {
		t.Fatal(err)
	}
	job()
	before := s.systemPort
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(before)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	job()
	if s.systemPort == before {
		t.Errorf("port %d is somebody else's", before)
	}
	if n := phone.Ledger().Packages[helpers[0].pkg].Installs; n != 1 {
		t.Errorf("Appium's helper was installed %d times", n)
	}
}

func TestRevokedPermissions(t *testing.T) {
	const dump = `Packages:
  Package [com.example.shop] (abc123):
    requested permissions:
      android.permission.INTERNET
    install permissions:
      android.permission.INTERNET: granted=true
      android.permission.VIBRATE: granted=false
    User 0: ceDataInode=1 installed=true hidden=false
      gids=[3003]
      runtime permissions:
        android.permission.POST_NOTIFICATIONS: granted=false, flags=[ USER_SENSITIVE_WHEN_GRANTED]
        android.permission.ACCESS_FINE_LOCATION: granted=true
        android.permission.CAMERA: granted=false
      disabledComponents:
        com.example.shop.Tracker: granted=false

Queries:
  system apps queryable: false
`
	want := []string{"android.permission.POST_NOTIFICATIONS", "android.permission.CAMERA"}
	if diff := cmp.Diff(want, revokedPermissions(dump)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestPackageNamesThatReachAShell(t *testing.T) {
	t.Parallel()
	phone := startPhone(t, phonesim.Options{})
	h := newHost(t, phone.Addr())
	s := openSession(t, h.driver(t), phone.Addr())
	for _, name := range []string{"", "shop", "com.example.shop; reboot", "com.example.$(reboot)", "com..shop", "com.example.shop\nreboot"} {
		b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
		b.Package = name
		if _, err := s.Prepare(t.Context(), b); device.CauseOf(err) != qgjob.CauseBadBuild {
			t.Errorf("package %q: %v", name, err)
		}
	}
}
