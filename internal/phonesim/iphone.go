package phonesim

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// IPhoneOptions describe an iPhone, or a simulator of one.
type IPhoneOptions struct {
	UDID      string
	Simulator bool
	Name      string // default: Model
	Model     string // default "iPhone 16"
	OSVersion string // default "18.2"
	Booted    bool   // of a simulator; a phone always is
	// BootTime is how long a simulator takes to boot, InstallTime how long the install of an app takes.
	BootTime, InstallTime time.Duration
}

// iPhone is an iPhone or a simulator that a Mac sees. It has an Android phone's works: apps, faults, the ledger.
type iPhone struct {
	*Phone
	o    IPhoneOptions
	root string // directory of its apps

	containers map[string]containers // by bundle id; guarded by the phone's lock
	booted     bool                  // guarded by the phone's lock
}

// containers are where an app and its data are.
type containers struct{ app, data string }

// dataMark is a file among an app's data by which it is seen that they were removed.
const dataMark = "Documents/.phonesim"

func newIPhone(o IPhoneOptions, root string, log *slog.Logger) *iPhone {
	o.Model = cmp.Or(o.Model, "iPhone 16")
	o.Name = cmp.Or(o.Name, o.Model)
	o.OSVersion = cmp.Or(o.OSVersion, "18.2")
	p := newPhone(Options{Serial: o.UDID, Model: o.Model, OSVersion: o.OSVersion, InstallTime: o.InstallTime, Logger: log}.withDefaults())
	p.ios = true
	return &iPhone{Phone: p, o: o, root: root, containers: map[string]containers{}, booted: o.Booted || !o.Simulator}
}

func (d *iPhone) isBooted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.booted
}

func (d *iPhone) offline() bool { return d.faults.isOffline(time.Now()) }

// boot starts a simulator; it takes its time.
func (d *iPhone) boot() error {
	if err := d.pass(d.o.BootTime); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.booted = true
	return nil
}

// shutDown ends everything that runs.
func (d *iPhone) shutDown(why string) {
	d.killInstrumentation(why)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.booted = false
	for name := range d.pids {
		d.stopPackage(name)
	}
}

func (d *iPhone) restart() {
	d.shutDown("the iPhone was restarted")
	d.mu.Lock()
	defer d.mu.Unlock()
	d.booted = true
	d.ledger.record(time.Now(), Entry{Kind: EntryReboot})
}

// installApp installs an app's directory. Its error is an *installError, or that of the file system.
func (d *iPhone) installApp(dir string) (bundle string, err error) {
	if err := d.pass(d.options.InstallTime); err != nil {
		return "", err
	}
	info, described, err := readApp(dir)
	if err == nil {
		err = d.mayTake(described)
	}
	if refusal := d.faults.installRefusal(); err == nil && refusal != nil {
		err = refusal
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if err != nil {
		name := cmp.Or(info.pkg, "unknown")
		d.ledger.record(now, Entry{Kind: EntryInstallFailed, Package: name, SHA256: info.sha256, Detail: err.Error()})
		return "", err
	}
	d.stopPackage(info.pkg)
	before := d.containers[info.pkg]
	at := containers{
		app:  filepath.Join(d.root, "Bundle", "Application", newUUID(), filepath.Base(dir)),
		data: cmp.Or(before.data, filepath.Join(d.root, "Data", "Application", newUUID())),
	}
	mark := filepath.Join(at.data, filepath.FromSlash(dataMark))
	if err := errors.Join(os.RemoveAll(before.app), os.MkdirAll(filepath.Dir(mark), 0o755), os.WriteFile(mark, nil, 0o644), os.CopyFS(at.app, os.DirFS(dir))); err != nil {
		return "", err
	}
	pkg := &installedPackage{apkInfo: info, name: info.pkg, lastUpdate: now, firstInstall: now, data: newAppData()}
	if old := d.packages[info.pkg]; old != nil {
		pkg.data, pkg.firstInstall = old.data, old.firstInstall
	}
	d.packages[info.pkg], d.containers[info.pkg] = pkg, at
	d.ledger.record(now, Entry{Kind: EntryInstall, Package: info.pkg, VersionCode: info.versionCode, SHA256: info.sha256})
	d.logcat.write(now, 1, 'I', "installd", "Installed "+info.pkg)
	return info.pkg, nil
}

// mayTake says why an app is not for this device.
func (d *iPhone) mayTake(app infoPlist) error {
	want := platformPhone
	if d.o.Simulator {
		want = platformSimulator
	}
	for _, platform := range app.Platforms {
		if platform != want {
			return &installError{"IncorrectArchitecture", "The app was built for " + platform + ", and this is " + want}
		}
	}
	if olderThan(d.o.OSVersion, app.MinimumOS) {
		return &installError{"DeviceOSVersionTooLow", fmt.Sprintf("The system version is too low: the app needs iOS %s, and this is %s", app.MinimumOS, d.o.OSVersion)}
	}
	return nil
}

// olderThan compares versions of numbers with dots.
func olderThan(version, other string) bool {
	a, b := strings.Split(version, "."), strings.Split(other, ".")
	for i := range b {
		have := 0
		if i < len(a) {
			have, _ = strconv.Atoi(a[i])
		}
		if want, _ := strconv.Atoi(b[i]); have != want {
			return have < want
		}
	}
	return false
}

// remove uninstalls an app and says whether it was there.
func (d *iPhone) remove(bundle string) bool {
	if !d.uninstall(bundle) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.containers[bundle]
	delete(d.containers, bundle)
	os.RemoveAll(filepath.Dir(c.app))
	os.RemoveAll(c.data)
	return true
}

func (d *iPhone) containersOf(bundle string) (containers, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.containers[bundle]
	return c, ok
}

// launch starts an app that does not run, or brings it to the front. It says whether the app is there.
func (d *iPhone) launch(bundle string, now time.Time) bool {
	pkg := d.packages[bundle]
	if pkg == nil || pkg.system {
		return false
	}
	d.noticeReset(bundle, now)
	d.bringUp(pkg, bundle, now)
	return true
}

// noticeReset looks whether the app's data were removed. It is called with the phone's lock held.
func (d *iPhone) noticeReset(bundle string, now time.Time) {
	pkg, at := d.packages[bundle], d.containers[bundle]
	if pkg == nil || at.data == "" {
		return
	}
	mark := filepath.Join(at.data, filepath.FromSlash(dataMark))
	if _, err := os.Stat(mark); err == nil {
		return
	}
	d.ledger.record(now, Entry{Kind: EntryDataReset, Package: bundle})
	pkg.data = newAppData()
	if err := errors.Join(os.MkdirAll(filepath.Dir(mark), 0o755), os.WriteFile(mark, nil, 0o644)); err != nil {
		d.log.Error("the app's data cannot be kept", "error", err)
	}
}

// answers returns when the iPhone takes a command: at once, unless it hangs, and when it is disconnected. It says no when ctx ended before.
func (d *iPhone) answers(ctx context.Context) bool {
	for {
		d.faults.mu.Lock()
		hung := d.faults.hang.is(time.Now()) && !d.faults.offline.is(time.Now())
		d.faults.mu.Unlock()
		if !hung {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends an app and says whether it ran.
func (d *iPhone) stop(bundle string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopPackage(bundle) {
		return false
	}
	d.ledger.record(time.Now(), Entry{Kind: EntryForceStop, Package: bundle})
	return true
}

// NewUDID makes up the id of an iPhone, or of a simulator.
func NewUDID(simulator bool) string {
	if simulator {
		return newUUID()
	}
	parts := strings.Split(newUUID(), "-")
	return "00008140-" + parts[0] + parts[1] + parts[2]
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16]))
}
