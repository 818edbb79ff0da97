package ios

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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
	dir, err := os.MkdirTemp("", "qgjob-ios-")
	if err == nil {
		qgjobPath = filepath.Join(dir, "qgjob")
		err = exec.Command("go", "build", "-o", qgjobPath, "qgjob/cmd/qgjob").Run()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "the binary that stands for Xcode's programs cannot be built: %v\n", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// qgjobPath is the binary: as a program of the Mac it starts many times, which this test's own does slowly.
var qgjobPath string

const testBundle = "com.example.shop"

// mac is a Mac with one device, and what workers on it share.
type mac struct {
	*phonesim.Mac
	dir       string
	udid      string
	simulator bool
	mine      bool // the driver boots the simulator
	named     bool // the driver drives this device only
}

func startMac(t *testing.T, o phonesim.IPhoneOptions) *mac {
	t.Helper()
	h := &mac{dir: t.TempDir(), simulator: o.Simulator, named: true}
	sum := sha256.Sum256([]byte(h.dir)) // devices are locked for the whole host
	if o.Simulator {
		h.udid = fmt.Sprintf("%X-%X-%X-%X-%X", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
	} else {
		h.udid = fmt.Sprintf("%X-%X", sum[:4], sum[4:12])
	}
	o.UDID = h.udid
	var err error
	h.Mac, err = phonesim.StartMac(phonesim.MacOptions{Dir: filepath.Join(h.dir, "mac"), Program: []string{qgjobPath, "phone", "mactool"}, IPhones: []phonesim.IPhoneOptions{o}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func (h *mac) driver(t *testing.T) *Driver {
	t.Helper()
	o := Options{
		Team: "TEAM123456", DataDir: filepath.Join(h.dir, "data"), AppiumDir: devicetest.AppiumDirIOS(t),
		Path: h.Bin() + string(filepath.ListSeparator) + os.Getenv("PATH"), Log: devicetest.Log(t),
	}
	if h.named {
		o.Serials = []string{h.udid}
	}
	if h.mine {
		o.Simulators = []string{h.udid}
	}
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const installTime = 700 * time.Millisecond

func TestIPhoneSuite(t *testing.T) {
	suite(t, phonesim.IPhoneOptions{InstallTime: installTime})
}

func TestSimulatorSuite(t *testing.T) {
	suite(t, phonesim.IPhoneOptions{Simulator: true, Booted: true, InstallTime: installTime})
}

func suite(t *testing.T, o phonesim.IPhoneOptions) {
	devicetest.Run(t, func(t *testing.T) devicetest.Harness {
		h := startMac(t, o)
		apps := newBuilds(t, h)
		return devicetest.Harness{
			Offline: qgjob.CauseDeviceOffline, Hung: qgjob.CauseDeviceHung,
			Refusals: map[string]qgjob.Cause{
				"ApplicationVerificationFailed": qgjob.CauseInstallRefused, "PackageInspectionFailed": qgjob.CauseBadBuild, "SomethingNotKnownYet": qgjob.CauseInstallRefused,
			},
			Driver: func() device.Driver { return h.driver(t) },
			Serial: h.udid,
			Phone:  apps,
			Builds: [3]device.Build{
				apps.build(phonesim.App{VersionCode: 5, Label: "one"}),
				apps.build(phonesim.App{VersionCode: 5, Label: "two"}),
				apps.build(phonesim.App{VersionCode: 4, Label: "three"}),
			},
			InstallTime: installTime,
			KillServer: func(s device.Session) {
				server := inner(s).server
				syscall.Kill(server.PID(), syscall.SIGKILL)
				<-server.Done()
			},
			ServerGone: func(s device.Session) func() bool {
				server, wda := inner(s).server.PID(), inner(s).wda
				return func() bool {
					return devicetest.GroupGone(server) && (inner(s).wda == wda || devicetest.GroupGone(wda.PID))
				}
			},
		}
	})
}

func inner(s device.Session) *session {
	if s, ok := s.(*simulatorSession); ok {
		return s.session
	}
	return s.(*session)
}

// builds are apps of a test, and its device as the suite's Phone.
type builds struct {
	t   *testing.T
	mac *mac
	of  map[string]string // SHA-256 of builds, by that of the apps in them
}

func newBuilds(t *testing.T, h *mac) *builds {
	return &builds{t: t, mac: h, of: map[string]string{}}
}

func (b *builds) build(app phonesim.App) device.Build {
	b.t.Helper()
	app.Package = testBundle
	app.Model = &phonesim.Model{Start: "home", Screens: map[string]phonesim.Screen{
		"home": {Elements: []phonesim.Element{{ID: "title", Text: "Welcome"}}},
	}}
	content, err := phonesim.BuildIPA(app, b.mac.simulator)
	if err != nil {
		b.t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	build := device.Build{
		Path: filepath.Join(b.mac.dir, app.Label), SHA256: hex.EncodeToString(sum[:]), Package: testBundle, VersionCode: int64(app.VersionCode),
		Key: qgjob.App{OrgID: "qualgent", AppVersionID: app.Label, BuildSHA256: hex.EncodeToString(sum[:])},
	}
	if err := os.WriteFile(build.Path, content, 0o644); err != nil {
		b.t.Fatal(err)
	}
	known, err := phonesim.AppSHA256(b.unpacked(build))
	if err != nil {
		b.t.Fatal(err)
	}
	b.of[known] = build.SHA256
	return build
}

// unpacked is the app's directory in a build.
func (b *builds) unpacked(build device.Build) string {
	b.t.Helper()
	app, err := unzip(build.Path, b.t.TempDir())
	if err != nil {
		b.t.Fatal(err)
	}
	return app
}

func (b *builds) Account(bundle string) devicetest.Account {
	l := b.mac.IPhone(b.mac.udid).Ledger()
	a := devicetest.Account{
		Installs: l.Packages[bundle].Installs, Resets: l.Packages[bundle].DataResets, OpenSessions: l.SessionsOpened - l.SessionsClosed,
	}
	if installed, ok := l.Installed[bundle]; ok {
		a.Held = []string{b.of[installed.SHA256]}
	}
	if l.Foreground == bundle {
		a.Running = b.of[l.Installed[bundle].SHA256]
	}
	return a
}

// Replace installs as somebody with Xcode would.
func (b *builds) Replace(build device.Build) {
	if err := b.mac.InstallApp(b.mac.udid, b.unpacked(build)); err != nil {
		b.t.Fatalf("install by hand: %v", err)
	}
}

func (b *builds) Hurt(trouble devicetest.Trouble) {
	fault := phonesim.Fault{Kind: phonesim.FaultRefuseInstall, Code: trouble.Refuse}
	switch {
	case trouble.Offline:
		fault = phonesim.Fault{Kind: phonesim.FaultOffline}
	case trouble.Hang:
		fault = phonesim.Fault{Kind: phonesim.FaultHang}
	case trouble.Blind:
		fault = phonesim.Fault{Kind: phonesim.FaultNoRecorder}
	}
	if err := b.mac.IPhone(b.mac.udid).SetFault(fault); err != nil {
		b.t.Fatal(err)
	}
}

// Heal also boots a simulator that died, as a person would.
func (b *builds) Heal() {
	b.mac.IPhone(b.mac.udid).ClearFaults()
	if b.mac.simulator {
		s := &simulator{xcode: xcode{udid: b.mac.udid, path: b.mac.Bin()}}
		if err := s.boot(b.t.Context()); err != nil {
			b.t.Error(err)
		}
	}
}

// A build cannot write outside of where it is unpacked, by whatever links.
func TestABuildStaysWhereItIsUnpacked(t *testing.T) {
	victim := t.TempDir()
	type entry struct{ name, content string }
	link := func(name, to string) entry { return entry{name + "@", to} }
	for name, entries := range map[string][]entry{
		"an absolute link":   {link("My.app/l", victim), {"My.app/l/evil", "x"}},
		"a link through one": {link("My.app/b/l", "../.."), link("m", "My.app/b/l/../"+filepath.Base(victim)), {"m/evil", "x"}},
		"a link out":         {link("My.app/l", "../../"+filepath.Base(victim)), {"My.app/l/evil", "x"}},
	} {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for _, e := range entries {
			header := &zip.FileHeader{Name: strings.TrimSuffix(e.name, "@")}
			header.SetMode(0o644)
			if header.Name != e.name {
				header.SetMode(os.ModeSymlink | 0o777)
			}
			w, err := z.CreateHeader(header)
			if err == nil {
				_, err = w.Write([]byte(e.content))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		file, dir := filepath.Join(t.TempDir(), "app.zip"), filepath.Join(filepath.Dir(victim), strconv.Itoa(len(name)))
		if err := errors.Join(os.WriteFile(file, b.Bytes(), 0o644), os.Mkdir(dir, 0o755)); err != nil {
			t.Fatal(err)
		}
		if _, err := unzip(file, dir); device.CauseOf(err) != qgjob.CauseBadBuild {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(victim, "evil")); err == nil {
			t.Errorf("%s wrote outside", name)
		}
	}
}
