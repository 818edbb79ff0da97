package browserstack

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/devicetest"
	"qgjob/internal/phonesim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testPackage = "com.example.shop"

func TestSuite(t *testing.T) {
	t.Run("android", func(t *testing.T) { suite(t, buildAPK) })
	t.Run("ios", func(t *testing.T) { suite(t, buildIPA) })
}

func suite(t *testing.T, build func(*testing.T, string, phonesim.App) device.Build) {
	devicetest.Run(t, func(t *testing.T) devicetest.Harness {
		const uploadTime = 700 * time.Millisecond
		h := newHost(t, phonesim.CloudOptions{Parallels: 1, UploadTime: uploadTime, SessionTime: 250 * time.Millisecond})
		return devicetest.Harness{
			Cloud: true, Offline: qgjob.CauseCloudUnreachable, Hung: qgjob.CauseCloudUnreachable,
			Refusals: map[string]qgjob.Cause{"Malformed archive": qgjob.CauseBadBuild},
			Driver:   func() device.Driver { return h.driver(t) },
			Serial:   "browserstack-1",
			Phone:    &simulated{t: t, host: h},
			Builds: [3]device.Build{
				build(t, h.dir, phonesim.App{VersionCode: 5, Label: "one"}),
				build(t, h.dir, phonesim.App{VersionCode: 5, Label: "two"}),
				build(t, h.dir, phonesim.App{VersionCode: 4, Label: "three"}),
			},
			InstallTime: uploadTime,
			KillServer:  func(device.Session) { h.cloud.EndSessions() },
			ServerGone:  func(device.Session) func() bool { return func() bool { return running(h.cloud) == 0 } },
		}
	})
}

// host is a host whose workers use one simulated account.
type host struct {
	dir   string
	cloud *phonesim.Cloud
	opts  Options
}

func newHost(t *testing.T, o phonesim.CloudOptions) *host {
	t.Helper()
	o.Username = filepath.Base(t.TempDir()) + t.Name() // slots are locked for the whole host
	o.Logger = devicetest.Log(t)
	cloud, err := phonesim.StartCloud(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cloud.Close(); err != nil {
			t.Error(err)
		}
	})
	h := &host{dir: t.TempDir(), cloud: cloud}
	h.opts = Options{
		Username: cloud.Username(), AccessKey: cloud.AccessKey(), URL: cloud.URL(), DataDir: filepath.Join(h.dir, "data"), Log: devicetest.Log(t),
	}
	return h
}

// driver is another worker's.
func (h *host) driver(t *testing.T) *Driver {
	t.Helper()
	d, err := New(h.opts)
	if err != nil {
		t.Fatal(err)
	}
	d.rhythm = 20 * time.Millisecond
	return d
}

func buildAPK(t *testing.T, dir string, app phonesim.App) device.Build {
	t.Helper()
	app.Package = testPackage
	content, err := phonesim.BuildAPK(app)
	if err != nil {
		t.Fatal(err)
	}
	b := keep(t, dir, app, content)
	b.Platform, b.Activity = qgjob.PlatformAndroid, testPackage+".MainActivity"
	return b
}

func buildIPA(t *testing.T, dir string, app phonesim.App) device.Build {
	t.Helper()
	app.Package = testPackage
	content, err := phonesim.BuildIPA(app, false)
	if err != nil {
		t.Fatal(err)
	}
	b := keep(t, dir, app, content)
	b.Platform = qgjob.PlatformIOS
	return b
}

// keep writes a build as a worker's cache keeps it, whose names tell nothing of its kind.
func keep(t *testing.T, dir string, app phonesim.App, content []byte) device.Build {
	t.Helper()
	sum := sha256.Sum256(content)
	b := device.Build{
		Path: filepath.Join(dir, app.Label+".apk"), SHA256: hex.EncodeToString(sum[:]), Package: testPackage, VersionCode: int64(app.VersionCode),
		Key: qgjob.App{OrgID: "qualgent", AppVersionID: app.Label, BuildSHA256: hex.EncodeToString(sum[:])},
	}
	if err := os.WriteFile(b.Path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return b
}

// simulated is a simulated account as the suite's Phone.
type simulated struct {
	t    *testing.T
	host *host
}

func (s *simulated) Account(string) devicetest.Account {
	l := s.host.cloud.Ledger()
	a := devicetest.Account{Held: l.Apps, OpenSessions: running(s.host.cloud)}
	for _, n := range l.UploadsOf {
		a.Installs += n
	}
	for _, session := range l.Sessions {
		if session.Status == "running" {
			a.Running = session.SHA256
		}
	}
	return a
}

func running(c *phonesim.Cloud) int {
	n := 0
	for _, s := range c.Ledger().Sessions {
		if s.EndedAt == nil {
			n++
		}
	}
	return n
}

// Replace removes what is on the account, as somebody with the dashboard at hand would.
func (s *simulated) Replace(device.Build) {
	for _, sha := range s.host.cloud.Ledger().Apps {
		s.host.cloud.DeleteUploads(sha)
	}
}

func (s *simulated) Hurt(trouble devicetest.Trouble) {
	switch {
	case trouble.Offline:
		s.host.cloud.SetFault(phonesim.CloudFault{Kind: phonesim.CloudOffline})
	case trouble.Hang:
		s.host.cloud.SetFault(phonesim.CloudFault{Kind: phonesim.CloudHang})
	case trouble.Refuse != "":
		s.host.cloud.SetFault(phonesim.CloudFault{Kind: phonesim.CloudRefuseUpload, Message: trouble.Refuse})
	}
}

func (s *simulated) Heal() { s.host.cloud.SetFault(phonesim.CloudFault{}) }
