// Package ios drives iPhones and iOS simulators of a Mac: through Xcode's devicectl and simctl for what is done to
// the device, and through an Appium server of its own per device for what tests do on it.
//
// A Driver lists and opens devices. An opened one is a session over a target (simctl.go, devicectl.go), with these parts: session.go
// proves which build is installed and installs what is not; wda.go keeps WebDriverAgent, which is what XCTest is driven by, running on
// the device between jobs; endpoint.go keeps Appium warm and sees to the app before each of its sessions.
//
// What is proven is where an app lies: iOS gives each install a place of its own, so that an app at the place where this worker put it is the one that
// was put there. The package has been tried on a stand-in of Xcode's programs only.
package ios

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// Options of a driver.
type Options struct {
	Serials    []string // drive only these, by UDID; empty: the iPhones and booted simulators that are there
	Simulators []string // names or UDIDs of simulators to boot when a job needs them
	Team       string   // the development team that signs WebDriverAgent for iPhones
	DataDir    string   // for what is kept about devices
	AppiumDir  string   // for the installs of Appium
	Path       string   // where Xcode's programs are looked for; empty: PATH
	Log        *slog.Logger
}

// Driver drives the iPhones and simulators of one Mac.
type Driver struct {
	opts Options
	host string
	log  *slog.Logger
	filming

	mu   sync.Mutex
	seen map[string]device.Info // iPhones by UDID, as they were last listed
}

var _ device.Driver = (*Driver)(nil)

// Available says whether this host has Xcode's programs.
func Available() bool {
	_, err := exec.LookPath("xcrun")
	return err == nil
}

// New makes a driver. It touches nothing yet.
func New(opts Options) (*Driver, error) {
	dir, err := filepath.Abs(opts.DataDir)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	opts.DataDir = dir
	opts.Path = cmp.Or(opts.Path, os.Getenv("PATH"))
	return &Driver{opts: opts, host: host, log: opts.Log, filming: defaultFilming, seen: map[string]device.Info{}}, nil
}

// udid matches the ids of iPhones, new and old, and of simulators.
var udid = regexp.MustCompile(`^([0-9A-Fa-f]{8}-[0-9A-Fa-f]{16}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})$`)

// IsUDID says whether a serial is an iPhone's or a simulator's.
func IsUDID(serial string) bool { return udid.MatchString(serial) }

// List implements device.Driver. Of the two programs that it asks, one that fails hides only its own devices.
func (d *Driver) List(ctx context.Context) ([]device.Info, error) {
	var phones, simulators []device.Info
	var phonesErr, simulatorsErr error
	var wg sync.WaitGroup
	wg.Go(func() { phones, phonesErr = d.phones(ctx) })
	wg.Go(func() { simulators, simulatorsErr = d.simulators(ctx) })
	wg.Wait()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("list of iPhones: %w", context.Cause(ctx))
	}
	if phonesErr != nil && simulatorsErr != nil {
		return nil, simulatorsErr
	}
	for _, err := range []error{phonesErr, simulatorsErr} {
		if err != nil {
			d.log.Warn("a part of this Mac's devices cannot be listed", "error", err)
		}
	}
	all := slices.Concat(phones, simulators)
	if len(d.opts.Serials) > 0 {
		all = d.named(all)
	}
	slices.SortFunc(all, func(a, b device.Info) int { return strings.Compare(a.Serial, b.Serial) })
	return all, nil
}

// named are the devices that are to be driven, those included that are not there.
func (d *Driver) named(all []device.Info) []device.Info {
	var named []device.Info
	for _, serial := range d.opts.Serials {
		at := slices.IndexFunc(all, func(i device.Info) bool { return i.Serial == serial })
		if at < 0 {
			all = append(all, device.Info{
				ID: serial, Serial: serial, Kind: qgjob.TargetDevice, Platform: platform, State: qgjob.DeviceOffline,
				Message: "it is not connected: check the cable and `xcrun devicectl list devices`",
			})
			at = len(all) - 1
		}
		named = append(named, all[at])
	}
	return named
}

const platform = "ios"

// Open implements device.Driver.
func (d *Driver) Open(ctx context.Context, serial string) (device.Session, error) {
	return device.OpenLocked(serial, func(held *device.Held) (device.Session, error) { return d.open(ctx, serial, held) })
}

func (d *Driver) open(ctx context.Context, serial string, held *device.Held) (device.Session, error) {
	infos, err := d.List(ctx)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(infos, func(i device.Info) bool { return i.Serial == serial })
	if at < 0 {
		return nil, device.Failf(qgjob.CauseDeviceOffline, "iPhone %s is not connected: check the cable and `xcrun devicectl list devices`", serial)
	}
	info := infos[at]
	if info.State != qgjob.DeviceIdle {
		return nil, device.Failf(qgjob.CauseDeviceOffline, "iPhone %s cannot be opened: %s", serial, info.Message)
	}
	x := xcode{udid: serial, path: d.opts.Path}
	if info.Kind == qgjob.TargetEmulator {
		t := &simulator{xcode: x, name: info.Model, boots: d.mine(serial, info.Model)}
		s, err := newSession(d, info, t, held)
		if err != nil {
			return nil, err
		}
		return &simulatorSession{session: s, simulator: t}, nil
	}
	return newSession(d, info, &phone{xcode: x}, held)
}

// mine says whether a simulator is one that this driver boots.
func (d *Driver) mine(udid, name string) bool {
	return slices.ContainsFunc(d.opts.Simulators, func(s string) bool { return s == udid || s == name })
}

// Bounds of what is asked of Xcode's programs.
const (
	listTimeout    = 3 * time.Second  // of a list of devices
	checkTimeout   = 5 * time.Second  // of Check
	commandTimeout = 30 * time.Second // of what a device answers at once
	installTimeout = 5 * time.Minute
	bootTimeout    = 3 * time.Minute
)
