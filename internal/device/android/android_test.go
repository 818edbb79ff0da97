package android

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/devicetest"
	"qgjob/internal/phonesim"
)

func TestMain(m *testing.M) {
	if code, is := program(os.Args[1:]); is {
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

const testPackage = "com.example.shop"

func TestSuite(t *testing.T) {
	devicetest.Run(t, func(t *testing.T) devicetest.Harness {
		const installTime = 700 * time.Millisecond
		phone := startPhone(t, phonesim.Options{InstallTime: installTime})
		h := newHost(t, phone.Addr())
		return devicetest.Harness{
			Offline: qgjob.CauseDeviceOffline, Hung: qgjob.CauseDeviceHung,
			Refusals: map[string]qgjob.Cause{
				"INSTALL_FAILED_INSUFFICIENT_STORAGE":    qgjob.CauseInstallRefused,
				"INSTALL_FAILED_USER_RESTRICTED":         qgjob.CauseInstallRefused,
				"INSTALL_FAILED_OLDER_SDK":               qgjob.CauseInstallRefused,
				"INSTALL_FAILED_NO_MATCHING_ABIS":        qgjob.CauseInstallRefused,
				"INSTALL_FAILED_INVALID_APK":             qgjob.CauseBadBuild,
				"INSTALL_PARSE_FAILED_NOT_APK":           qgjob.CauseBadBuild,
				"INSTALL_PARSE_FAILED_NO_CERTIFICATES":   qgjob.CauseBadBuild,
				"INSTALL_FAILED_SOMETHING_NOT_KNOWN_YET": qgjob.CauseInstallRefused,
			},
			Driver: func() device.Driver { return h.driver(t) },
			Serial: phone.Addr(),
			Phone:  &simulated{t: t, phone: phone, host: h},
			Builds: [3]device.Build{
				buildAPK(t, h.dir, phonesim.App{VersionCode: 5, Label: "one"}),
				buildAPK(t, h.dir, phonesim.App{VersionCode: 5, Label: "two"}),
				buildAPK(t, h.dir, phonesim.App{VersionCode: 4, Label: "three"}),
			},
			InstallTime: installTime,
			KillServer: func(s device.Session) {
				server := s.(*session).server
				syscall.Kill(server.PID(), syscall.SIGKILL)
				<-server.Done()
			},
			ServerGone: func(s device.Session) func() bool {
				pid := s.(*session).server.PID()
				return func() bool { return devicetest.GroupGone(pid) }
			},
		}
	})
}

// host is a host with an adb server of its own, and what workers on it share.
type host struct {
	dir     string
	port    int
	serials []string
}

func newHost(t *testing.T, serials ...string) *host {
	t.Helper()
	return &host{dir: t.TempDir(), port: devicetest.ADBServer(t), serials: serials}
}

func (h *host) driver(t *testing.T) *Driver {
	t.Helper()
	d, err := New(Options{
		Serials: h.serials, DataDir: filepath.Join(h.dir, "data"), AppiumDir: devicetest.AppiumDir(t),
		AdbPort: h.port, Log: devicetest.Log(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func startPhone(t *testing.T, o phonesim.Options) *phonesim.Phone {
	t.Helper()
	phone, err := phonesim.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { phone.Close() })
	return phone
}

func buildAPK(t *testing.T, dir string, app phonesim.App) device.Build {
	t.Helper()
	app.Package = testPackage
	app.Model = &phonesim.Model{Start: "home", Screens: map[string]phonesim.Screen{
		"home": {Elements: []phonesim.Element{{ID: "title", Text: "Welcome"}}},
	}}
	content, err := phonesim.BuildAPK(app)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	b := device.Build{
		Path: filepath.Join(dir, app.Label+".apk"), SHA256: hex.EncodeToString(sum[:]), Package: testPackage,
		Activity: testPackage + ".MainActivity", VersionCode: int64(app.VersionCode),
		Key: qgjob.App{OrgID: "qualgent", AppVersionID: app.Label, BuildSHA256: hex.EncodeToString(sum[:])},
	}
	if err := os.WriteFile(b.Path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return b
}

// simulated is a simulated phone as the suite's Phone.
type simulated struct {
	t     *testing.T
	phone *phonesim.Phone
	host  *host
}

func (s *simulated) Account(pkg string) devicetest.Account {
	return accountOf(s.phone.Ledger(), pkg)
}

func accountOf(l phonesim.Ledger, pkg string) devicetest.Account {
	a := devicetest.Account{
		Installs: l.Packages[pkg].Installs, Resets: l.Packages[pkg].DataResets, OpenSessions: l.SessionsOpened - l.SessionsClosed,
	}
	if installed, ok := l.Installed[pkg]; ok {
		a.Held = []string{installed.SHA256}
	}
	if l.Foreground == pkg {
		a.Running = l.Installed[pkg].SHA256
	}
	return a
}

// Replace installs as somebody with adb at hand would.
func (s *simulated) Replace(b device.Build) {
	other := &session{d: s.host.driver(s.t), serial: s.phone.Addr(), log: devicetest.Log(s.t)}
	v, err := other.stream(s.t.Context(), apk{b.Path, b.SHA256, b.Package})
	if err != nil || v != "Success" {
		s.t.Fatalf("install by hand: %v %v", v, err)
	}
}

func (s *simulated) Hurt(trouble devicetest.Trouble) {
	if err := s.phone.SetFault(faultOf(trouble)); err != nil {
		s.t.Fatal(err)
	}
}

// faultOf is the fault of a simulated phone that makes the trouble.
func faultOf(trouble devicetest.Trouble) phonesim.Fault {
	switch {
	case trouble.Offline:
		return phonesim.Fault{Kind: phonesim.FaultOffline}
	case trouble.Hang:
		return phonesim.Fault{Kind: phonesim.FaultHang}
	case trouble.Blind:
		return phonesim.Fault{Kind: phonesim.FaultNoRecorder}
	}
	return phonesim.Fault{Kind: phonesim.FaultRefuseInstall, Code: trouble.Refuse}
}

func (s *simulated) Heal() { s.phone.ClearFaults() }
