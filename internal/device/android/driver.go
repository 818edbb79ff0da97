// Package android drives Android phones and emulators: through this host's adb server for what is done to
// the device, and through an Appium server of its own per device for what tests do on it.
//
// A Driver lists and opens devices; an opened one is a session with these parts: install.go proves on the
// device which build is installed and installs what is not; endpoint.go keeps Appium warm and its helper
// apps on the device; release.go leaves the device as the next job wants it. Everything that is asked of a
// device has a bound, so that one that hangs is an error with a name and holds up nobody else.
//
// The adb server belongs to the host: it is started when there is none and never killed. The package
// leaves nothing on the device but the app and Appium's helpers, and knows nothing of jobs.
package android

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/adb"
)

// Bounds of what a driver asks.
const (
	serverTimeout   = 5 * time.Second  // of a question to the adb server
	startTimeout    = 20 * time.Second // of `adb start-server`
	describeTimeout = 2 * time.Second  // of the questions to a device while listing
)

// oldestSDK is Android 7: the first with adb's shell protocol v2 and streamed installs.
const oldestSDK = 24

// Options of a driver.
type Options struct {
	Serials   []string // drive only these; one of the form host:port is connected to when it is not. Empty: whatever is there
	DataDir   string   // for what is kept about devices
	AppiumDir string   // for the install of Appium; empty: <DataDir>/appium
	AdbPort   int      // of the adb server; 0: as ANDROID_ADB_SERVER_PORT says
	Log       *slog.Logger
}

// Driver drives the devices of one adb server.
type Driver struct {
	opts   Options
	client adb.Client
	log    *slog.Logger
	host   string

	starting sync.Mutex // one start of the adb server at a time

	mu    sync.Mutex
	known map[string]facts // by serial
}

var _ device.Driver = (*Driver)(nil)

// New makes a driver. It touches nothing yet.
func New(opts Options) (*Driver, error) {
	if opts.AppiumDir == "" {
		opts.AppiumDir = filepath.Join(opts.DataDir, "appium")
	}
	opts.AdbPort = cmp.Or(opts.AdbPort, adb.PortFromEnv())
	dir, err := filepath.Abs(opts.DataDir)
	if err != nil {
		return nil, err
	}
	opts.DataDir = dir
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	return &Driver{
		opts:   opts,
		client: adb.Client{Port: opts.AdbPort},
		log:    opts.Log,
		host:   host,
		known:  map[string]facts{},
	}, nil
}

// facts of a device that has finished booting: what does not change while it stays connected.
type facts struct {
	transportID string // of the connection
	kind        qgjob.Target
	model       string
	osVersion   string
	sdk         int
	hardware    qgjob.Hardware
	measured    time.Time // when hardware was last asked for
}

// List implements device.Driver.
func (d *Driver) List(ctx context.Context) ([]device.Info, error) {
	devices, err := d.devices(ctx)
	if err != nil {
		return nil, err
	}
	infos := make([]device.Info, len(devices))
	var wg sync.WaitGroup
	for i, dev := range devices {
		wg.Go(func() { infos[i] = d.describe(ctx, dev) })
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list of devices: %w", context.Cause(ctx))
	}
	slices.SortFunc(infos, func(a, b device.Info) int { return strings.Compare(a.Serial, b.Serial) })
	return infos, nil
}

// Open implements device.Driver.
func (d *Driver) Open(ctx context.Context, serial string) (device.Session, error) {
	return device.OpenLocked(serial, func(held *device.Held) (device.Session, error) { return d.open(ctx, serial, held) })
}

func (d *Driver) open(ctx context.Context, serial string, held *device.Held) (*session, error) {
	devices, err := d.devices(ctx)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(devices, func(dev adb.Device) bool { return dev.Serial == serial })
	if at < 0 {
		return nil, device.Failf(qgjob.CauseDeviceOffline, "device %s is not connected: check the cable and `adb devices`", serial)
	}
	info := d.describe(ctx, devices[at])
	if ctx.Err() != nil {
		return nil, fmt.Errorf("open of device %s: %w", serial, context.Cause(ctx))
	}
	if info.State != qgjob.DeviceIdle {
		return nil, device.Failf(qgjob.CauseDeviceOffline, "device %s cannot be opened: %s", serial, info.Message)
	}
	return newSession(d, serial, held)
}

// devices are those of the adb server that this driver may drive, and those it was told to drive and are
// not there. It starts the server where there is none.
func (d *Driver) devices(ctx context.Context) ([]adb.Device, error) {
	if err := d.ensureServer(ctx); err != nil {
		return nil, err
	}
	all, err := d.serverDevices(ctx)
	if err != nil {
		return nil, err
	}
	if len(d.opts.Serials) == 0 {
		return all, nil
	}
	var devices []adb.Device
	for _, serial := range d.opts.Serials {
		at := slices.IndexFunc(all, func(dev adb.Device) bool { return dev.Serial == serial })
		if at < 0 {
			devices = append(devices, d.connect(ctx, serial))
			continue
		}
		devices = append(devices, all[at])
	}
	return devices, nil
}

func (d *Driver) serverDevices(ctx context.Context) ([]adb.Device, error) {
	asking, cancel := context.WithTimeoutCause(ctx, serverTimeout, errServerHangs)
	defer cancel()
	all, err := d.client.Devices(asking)
	if err != nil {
		return nil, d.serverFailure(ctx, err)
	}
	return all, nil
}

// connect asks the server to connect to a network device, whose serial is host:port, and returns what it
// then is; missing for a device that is not there.
func (d *Driver) connect(ctx context.Context, serial string) adb.Device {
	missing := adb.Device{Serial: serial, State: stateMissing}
	if !strings.Contains(serial, ":") {
		return missing
	}
	asking, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	if err := d.client.Connect(asking, serial); err != nil {
		d.log.Debug("device cannot be connected to", "serial", serial, "error", err)
		return missing
	}
	all, err := d.client.Devices(asking)
	if err != nil {
		return missing
	}
	if at := slices.IndexFunc(all, func(dev adb.Device) bool { return dev.Serial == serial }); at >= 0 {
		return all[at]
	}
	return missing
}

var errServerHangs = errors.New("it does not answer")

func (d *Driver) ensureServer(ctx context.Context) error {
	d.starting.Lock()
	defer d.starting.Unlock()
	asking, cancel := context.WithTimeoutCause(ctx, serverTimeout, errServerHangs)
	defer cancel()
	_, err := d.client.Version(asking)
	if err == nil {
		return nil
	}
	if !errors.Is(err, adb.ErrNoServer) {
		return d.serverFailure(ctx, err)
	}
	path, err := findADB()
	if err != nil {
		return err
	}
	d.log.Info("starting the adb server", "port", d.client.Port, "adb", path)
	starting, cancel := context.WithTimeoutCause(ctx, startTimeout, errServerHangs)
	defer cancel()
	if err := d.client.Start(starting, path); err != nil {
		return d.serverFailure(ctx, err)
	}
	return nil
}

func (d *Driver) serverFailure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("adb server on port %d: %w", d.client.Port, context.Cause(ctx))
	}
	return device.Failf(qgjob.CauseHostFailed, "the adb server on port %d cannot be used: %w: try `adb -P %d devices`", d.client.Port, err, d.client.Port)
}

// The states of adb's list that need words of their own; stateMissing is ours.
const (
	stateDevice  = "device"
	stateMissing = "missing"
)

var stateAdvice = map[string]string{
	"offline":        "it is connected and does not answer: unlock it, or plug it in again",
	"unauthorized":   "confirm the dialog \"Allow USB debugging?\" on its screen",
	"authorizing":    "confirm the dialog \"Allow USB debugging?\" on its screen",
	"no permissions": "this user may not open its USB port: install udev rules (Debian: apt install android-sdk-platform-tools-common) and plug it in again",
	"connecting":     "it is being connected to",
	"recovery":       "it is in recovery mode: restart it",
	"sideload":       "it is in sideload mode: restart it",
	"bootloader":     "it is in its bootloader: restart it",
	stateMissing:     "it is not connected: check the cable and `adb devices`",
}

// describe says what a device is like. It asks a device that is online once per connection.
func (d *Driver) describe(ctx context.Context, dev adb.Device) device.Info {
	info := device.Info{Serial: dev.Serial, ID: dev.Serial, Kind: qgjob.TargetDevice, Platform: "android", Model: dev.Model}
	if isEmulatorSerial(dev.Serial) {
		info.Kind = qgjob.TargetEmulator
	}
	switch dev.State {
	case stateDevice:
		d.describeOnline(ctx, dev, &info)
	case "unauthorized", "authorizing":
		info.State, info.Message = qgjob.DeviceUnauthorized, stateAdvice[dev.State]
	default:
		info.State = qgjob.DeviceOffline
		info.Message = cmp.Or(stateAdvice[dev.State], fmt.Sprintf("adb calls it %q: restart it", dev.State))
	}
	if info.Kind == qgjob.TargetEmulator || strings.Contains(dev.Serial, ":") {
		info.ID = dev.Serial + "@" + d.host
	}
	return info
}

func (d *Driver) describeOnline(ctx context.Context, dev adb.Device, info *device.Info) {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	f, booted, err := d.facts(ctx, dev)
	if err != nil {
		info.State, info.Message = qgjob.DeviceOffline, "it is connected and does not answer: restart it"
		return
	}
	info.Kind, info.Model, info.OSVersion = f.kind, f.model, f.osVersion
	switch {
	case !booted:
		info.State, info.Message = qgjob.DeviceBooting, "it is starting"
	case f.sdk < oldestSDK:
		info.State, info.Message = qgjob.DeviceOffline, fmt.Sprintf("it runs Android %s: Android 7 or newer is needed", f.osVersion)
	default:
		info.State = qgjob.DeviceIdle
		info.Hardware = d.hardware(ctx, dev.Serial)
	}
}

// measureEvery is how often a device is asked for what changes of its hardware.
const measureEvery = time.Minute

// hardware is what is known of a device's screen, battery and storage. What it does not tell now is as it was.
func (d *Driver) hardware(ctx context.Context, serial string) qgjob.Hardware {
	d.mu.Lock()
	f := d.known[serial]
	d.mu.Unlock()
	if !f.measured.IsZero() && time.Since(f.measured) < measureEvery {
		return f.hardware
	}
	out, err := d.client.Shell(ctx, serial, "wm size; dumpsys battery; df -k /data")
	if err != nil {
		d.log.Debug("device does not tell its hardware", "serial", serial, "error", err)
	} else {
		f.hardware = parseHardware(out.Stdout, f.hardware)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if known, ok := d.known[serial]; ok && known.transportID == f.transportID {
		known.hardware, known.measured = f.hardware, time.Now()
		d.known[serial] = known
	}
	return f.hardware
}

var (
	screenSize   = regexp.MustCompile(`(?m)^(?:Physical|Override) size: (\d+)x(\d+)`)
	batteryLevel = regexp.MustCompile(`(?m)^\s*level: (\d+)\s*$`)
	dataStorage  = regexp.MustCompile(`(?m)^\S+\s+\d+\s+\d+\s+(\d+)\s+\d+%\s+/data`) // in 1 KB blocks
)

// parseHardware reads what wm, dumpsys and df say. What they do not say is as it was.
func parseHardware(text string, before qgjob.Hardware) qgjob.Hardware {
	h := before
	number := func(s string) int64 {
		n, _ := strconv.ParseInt(s, 10, 64) // digits
		return n
	}
	if all := screenSize.FindAllStringSubmatch(text, -1); all != nil {
		last := all[len(all)-1] // an override comes after the physical size
		h.ScreenWidth, h.ScreenHeight = int(number(last[1])), int(number(last[2]))
	}
	if m := batteryLevel.FindStringSubmatch(text); m != nil {
		h.BatteryPercent = min(100, int(number(m[1])))
	}
	if m := dataStorage.FindStringSubmatch(text); m != nil {
		h.FreeStorage = number(m[1]) << 10
	}
	return h
}

// facts asks a device what it is, the first time on a connection, and each time whether it has booted: a
// phone on the network can restart and be back on what adb takes for the same connection.
func (d *Driver) facts(ctx context.Context, dev adb.Device) (f facts, booted bool, err error) {
	d.mu.Lock()
	f, known := d.known[dev.Serial]
	d.mu.Unlock()
	if known && dev.TransportID != "" && f.transportID == dev.TransportID {
		out, err := d.client.Shell(ctx, dev.Serial, "getprop sys.boot_completed")
		return f, strings.TrimSpace(out.Stdout) == "1", err
	}
	out, err := d.client.Shell(ctx, dev.Serial, "getprop")
	if err != nil {
		return facts{}, false, err
	}
	props := parseProps(out.Stdout)
	f = facts{
		transportID: dev.TransportID,
		kind:        qgjob.TargetDevice,
		model:       cmp.Or(props["ro.product.model"], dev.Model),
		osVersion:   props["ro.build.version.release"],
		hardware:    qgjob.Hardware{ABIs: cmp.Or(props["ro.product.cpu.abilist"], props["ro.product.cpu.abi"])},
	}
	f.sdk, _ = strconv.Atoi(props["ro.build.version.sdk"])
	if props["ro.kernel.qemu"] == "1" || props["ro.boot.qemu"] == "1" || isEmulatorSerial(dev.Serial) {
		f.kind = qgjob.TargetEmulator
	}
	if props["sys.boot_completed"] != "1" {
		return f, false, nil
	}
	d.mu.Lock()
	d.known[dev.Serial] = f
	d.mu.Unlock()
	return f, true, nil
}

func isEmulatorSerial(serial string) bool { return strings.HasPrefix(serial, "emulator-") }

// parseProps reads what getprop prints: [name]: [value].
func parseProps(text string) map[string]string {
	props := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "]: [")
		if ok {
			props[strings.TrimPrefix(name, "[")] = strings.TrimSuffix(value, "]")
		}
	}
	return props
}
