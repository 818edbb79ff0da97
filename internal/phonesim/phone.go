package phonesim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strconv"
	"sync"
	"time"
)

// Options describe a phone. The zero value is a phone that listens on a free port of the loopback interface.
type Options struct {
	Serial    string // ro.serialno; default SIM0001
	Model     string // ro.product.model; default "SimPhone 1"
	OSVersion string // ro.build.version.release, "8" to "16"; default 14
	// Emulator lets the phone pose as an emulator.
	Emulator bool
	// AVD is the name of an emulator's virtual device. Default simphone.
	AVD string
	// BootTime is how long the phone takes to boot when it is switched on. adb reaches it meanwhile.
	BootTime time.Duration
	// InstallTime is how long the install of an app takes. Appium's helpers (io.appium.*) take none.
	InstallTime time.Duration
	// Listen is the address for adb. Default 127.0.0.1:0.
	Listen string
	// Logger receives what happens on the phone, what is not understood at debug level. Default: none.
	Logger *slog.Logger
}

// Phone is a simulated phone. All methods may be called concurrently.
type Phone struct {
	options  Options
	log      *slog.Logger
	listener net.Listener
	ctx      context.Context // ends with the phone
	cancel   context.CancelFunc
	running  sync.WaitGroup
	faults   *faults
	ios      bool                       // an iPhone: what it shows is as XCTest sees it
	commands map[string]func(*call) int // the shell's, by name

	mu              sync.Mutex
	transports      map[*transport]bool
	props           map[string]string
	settings        map[string]string
	files           map[string]file
	packages        map[string]*installedPackage
	apps            map[string]*app // running apps with a screen, by package
	pids            map[string]int  // processes, by package
	nextPID         int
	foreground      component
	backends        map[string]map[string]int // counts of outcomes remembered by the phone, by package
	instrumentation *instrumentation
	instrumented    chan struct{} // closed and replaced when an instrumentation starts
	clipboard       string
	orientation     string
	ledger          Ledger
	logcat          logcat
	recordings      map[string]chan struct{} // of the screen, by file; closed to end one
	boot            boot
}

// sdkOf are the API levels of Android's versions.
var sdkOf = map[string]int{"8": 26, "9": 28, "10": 29, "11": 30, "12": 31, "13": 33, "14": 34, "15": 35, "16": 36}

// Start switches a phone on. Unless it has a BootTime it is booted when Start returns.
func Start(o Options) (*Phone, error) {
	o = o.withDefaults()
	if _, ok := sdkOf[o.OSVersion]; !ok {
		return nil, fmt.Errorf("simulated phone: unknown Android version %q: choose 8 to 16", o.OSVersion)
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("simulated phone: %w", err)
	}
	p := newPhone(o)
	p.listener = listener
	p.running.Go(p.acceptLoop)
	return p, nil
}

// newPhone makes a phone that is not reached by adb.
func newPhone(o Options) *Phone {
	now := time.Now()
	p := &Phone{
		options: o, log: o.Logger.With("phone", o.Serial), faults: newFaults(),
		transports: map[*transport]bool{}, settings: map[string]string{}, files: map[string]file{},
		packages: map[string]*installedPackage{}, apps: map[string]*app{}, pids: map[string]int{},
		backends: map[string]map[string]int{}, orientation: "PORTRAIT", instrumented: make(chan struct{}),
		ledger: newLedger(o.Serial, now), logcat: newLogcat(),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.commands = shellCommands()
	p.props = o.props()
	p.addSystemPackages(now)
	p.bootFinished(now)
	p.boot.completeAt = now.Add(o.BootTime)
	return p
}

func (o Options) withDefaults() Options {
	fill := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	fill(&o.Serial, "SIM0001")
	fill(&o.OSVersion, "14")
	fill(&o.Listen, "127.0.0.1:0")
	if o.Emulator {
		fill(&o.Model, "sdk_gphone64_x86_64")
		fill(&o.AVD, "simphone")
	}
	fill(&o.Model, "SimPhone 1")
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) props() map[string]string {
	props := map[string]string{
		"ro.serialno": o.Serial, "ro.boot.serialno": o.Serial,
		"ro.product.model": o.Model, "ro.product.name": "simphone", "ro.product.device": "simphone",
		"ro.product.manufacturer": "qgjob", "ro.product.brand": "qgjob",
		"ro.build.version.release": o.OSVersion, "ro.build.version.sdk": strconv.Itoa(sdkOf[o.OSVersion]),
		"ro.build.version.codename": "REL", "ro.build.version.incremental": "1", "ro.build.version.security_patch": "2024-01-01",
		"ro.build.characteristics": "default", "ro.build.type": "user", "ro.debuggable": "0", "ro.hardware": "simphone",
		"ro.product.cpu.abi": "arm64-v8a", "ro.product.cpu.abilist": "arm64-v8a",
		"ro.product.locale": "en-US", "persist.sys.locale": "en-US", "persist.sys.timezone": "UTC",
		"ro.sf.lcd_density": strconv.Itoa(screenDensity), "init.svc.bootanim": "stopped",
		"sys.boot_completed": "1", "dev.bootcomplete": "1",
	}
	props["ro.build.fingerprint"] = fmt.Sprintf("qgjob/simphone/simphone:%s/SIM/1:user/release-keys", o.OSVersion)
	if o.Emulator {
		maps.Copy(props, map[string]string{
			"ro.kernel.qemu": "1", "ro.boot.qemu": "1", "ro.hardware": "ranchu", "ro.boot.qemu.avd_name": o.AVD,
			"ro.build.characteristics": "emulator", "ro.build.type": "userdebug", "ro.debuggable": "1",
			"ro.product.cpu.abi": "x86_64", "ro.product.cpu.abilist": "x86_64", "qemu.sf.lcd_density": strconv.Itoa(screenDensity),
		})
	}
	return props
}

// Addr is where adb finds the phone: `adb connect` takes it. An iPhone has none.
func (p *Phone) Addr() string {
	if p.listener == nil {
		return ""
	}
	return p.listener.Addr().String()
}

// Serial is the phone's ro.serialno.
func (p *Phone) Serial() string { return p.options.Serial }

// Close switches the phone off and waits until everything in it has ended.
func (p *Phone) Close() error {
	p.cancel()
	var err error
	if p.listener != nil {
		err = p.listener.Close()
	}
	p.killInstrumentation("the phone was switched off")
	p.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil // closed before
	}
	return err
}

func (p *Phone) acceptLoop() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if p.ctx.Err() == nil {
				p.log.Error("the phone can take no more connections", "error", err)
			}
			return
		}
		p.running.Go(func() { p.serveTransport(conn) })
	}
}

// addTransport refuses a connection while the phone is off adb.
func (p *Phone) addTransport(t *transport) bool {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.faults.isOffline(now) || now.Before(p.boot.reachableAt) {
		if tcp, ok := t.conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // the other side sees a reset, as from a port where nobody listens
		}
		return false
	}
	p.transports[t] = true
	return true
}

func (p *Phone) removeTransport(t *transport) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.transports, t)
}

func (p *Phone) cutTransports() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t := range p.transports {
		t.end()
	}
}

func (p *Phone) prop(name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.props[name]
}
