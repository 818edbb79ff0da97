package android

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// EmulatorOptions of a driver that boots emulators.
type EmulatorOptions struct {
	// Count is how many emulators run at most, those included that somebody else has started.
	Count int
	// AVDs are the virtual devices to boot, Count of them; empty: qgjob-1, qgjob-2 and so on, which are created.
	AVDs     []string
	Image    string        // system image for those that are created; empty: the newest that is installed
	BootTime time.Duration // that a boot may take; 0: five minutes
	IdleTime time.Duration // after which an emulator without work is stopped; 0: ten minutes
	SDK      string        // the Android SDK's directory; empty: as ANDROID_HOME says, or what is on the PATH
	AVDHome  string        // where the AVDs are; empty: as ANDROID_AVD_HOME says, or .android/avd in the user's home
}

// Emulators drives what a Driver drives, and emulators besides that it boots when a job needs one and stops
// when none does. An emulator that somebody else has started is the Driver's, and is never stopped.
//
// An AVD that is not running is listed as idle: opening it costs nothing, and the first Prepare boots it.
type Emulators struct {
	phones *Driver
	opts   EmulatorOptions
	sdk    sdk
	log    *slog.Logger

	creating sync.Mutex // one AVD is made at a time

	mu   sync.Mutex
	open map[string]*avdSession // by AVD
}

var _ device.Driver = (*Emulators)(nil)

// Ports of the consoles of our emulators; adb's is the next one. The adb server looks for emulators below
// them by itself, which is where those of other people are.
const (
	firstConsole = 5600
	lastConsole  = 5682
)

// NewEmulators makes a driver over one that lists what adb sees. It asks the Android SDK which AVDs there are.
func NewEmulators(ctx context.Context, phones *Driver, opts EmulatorOptions) (*Emulators, error) {
	opts.BootTime = cmp.Or(opts.BootTime, 5*time.Minute)
	opts.IdleTime = cmp.Or(opts.IdleTime, 10*time.Minute)
	e := &Emulators{phones: phones, opts: opts, log: phones.log, open: map[string]*avdSession{}}
	var err error
	if e.sdk, err = findSDK(opts.SDK, opts.AVDHome); err != nil {
		return nil, err
	}
	if len(opts.AVDs) > 0 {
		return e, e.haveAVDs(ctx)
	}
	if e.opts.Image == "" {
		if e.opts.Image, err = e.sdk.newestImage(); err != nil {
			return nil, err
		}
	}
	for i := range opts.Count {
		e.opts.AVDs = append(e.opts.AVDs, fmt.Sprintf("qgjob-%d", i+1))
	}
	return e, nil
}

// haveAVDs checks that the AVDs exist that are to be booted.
func (e *Emulators) haveAVDs(ctx context.Context) error {
	there, err := e.sdk.avds(ctx)
	if err != nil {
		return err
	}
	for _, name := range e.opts.AVDs {
		if !slices.Contains(there, name) {
			return device.Failf(qgjob.CauseHostFailed, "there is no AVD %q on this host: it has %s; create it, or leave --avd out to have one created", name, cmp.Or(strings.Join(there, ", "), "none"))
		}
	}
	return nil
}

// isOwnSerial says whether an emulator is one of a worker's. Those of other workers are theirs, too.
func isOwnSerial(serial string) bool {
	port, err := strconv.Atoi(strings.TrimPrefix(serial, "emulator-"))
	return isEmulatorSerial(serial) && err == nil && port >= firstConsole && port <= lastConsole
}

// List implements device.Driver.
func (e *Emulators) List(ctx context.Context) ([]device.Info, error) {
	seen, err := e.phones.List(ctx)
	if err != nil {
		return nil, err
	}
	running, adopted := map[string]device.Info{}, 0
	infos := slices.DeleteFunc(seen, func(i device.Info) bool {
		if isOwnSerial(i.Serial) {
			running[i.Serial] = i
			return true
		}
		if i.Kind == qgjob.TargetEmulator && (i.State == qgjob.DeviceIdle || i.State == qgjob.DeviceBooting) {
			adopted++
		}
		return false
	})
	for i, name := range e.opts.AVDs {
		e.mu.Lock()
		s := e.open[name]
		e.mu.Unlock()
		info := device.Info{ID: name + "@" + e.phones.host, Serial: name, Kind: qgjob.TargetEmulator, Platform: "android", Model: name, State: qgjob.DeviceIdle, OSVersion: e.sdk.versionOf(name, e.opts.Image)}
		serial := ""
		if s != nil {
			serial = s.serial()
		}
		if serial == "" && i >= e.opts.Count-adopted {
			continue // the limit is reached without it
		}
		if now, ok := running[serial]; ok && s.up() {
			info.OSVersion, info.Hardware = cmp.Or(now.OSVersion, info.OSVersion), now.Hardware
			info.State, info.Message = now.State, now.Message
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b device.Info) int { return strings.Compare(a.Serial, b.Serial) })
	return infos, nil
}

// Open implements device.Driver.
func (e *Emulators) Open(ctx context.Context, serial string) (device.Session, error) {
	if !slices.Contains(e.opts.AVDs, serial) {
		return e.phones.Open(ctx, serial)
	}
	held, err := device.Lock(device.HostLockDir, "avd-"+serial)
	if err != nil {
		return nil, err
	}
	s := &avdSession{e: e, name: serial, held: held, log: e.log.With("avd", serial)}
	e.mu.Lock()
	e.open[serial] = s
	e.mu.Unlock()
	return s, nil
}

func (e *Emulators) closed(s *avdSession) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open[s.name] == s {
		delete(e.open, s.name)
	}
}

// bootLog is where an emulator's output goes.
func (e *Emulators) bootLog(name string) string {
	return filepath.Join(e.phones.opts.DataDir, "emulators", name+".log")
}

// reserveConsole takes a port for a console whose neighbour, for adb, is free as well.
func reserveConsole() (port int, held *device.Held, err error) {
	for from := firstConsole; from <= lastConsole; from = port + 1 {
		if port, held, err = device.ReservePort(device.HostLockDir, from, lastConsole); err != nil {
			break
		}
		if port%2 == 0 && device.PortFree(port+1) {
			return port, held, nil
		}
		held.Unlock()
	}
	return 0, nil, device.Failf(qgjob.CauseHostFailed, "no two neighbouring ports from %d to %d are free on this host for another emulator: end what holds them", firstConsole, lastConsole+1)
}

// bootFailure says what became of an emulator that did not boot.
func (e *Emulators) bootFailure(name, format string, args ...any) error {
	return device.Failf(qgjob.CauseEmulatorNotBooted, "the emulator of AVD %s %s (its log is %s)", name, fmt.Errorf(format, args...), e.bootLog(name))
}

var errBootTime = errors.New("the boot takes too long")
