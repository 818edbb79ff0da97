package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/agent"
	"qgjob/internal/device/android"
	"qgjob/internal/device/appium"
	"qgjob/internal/device/ios"
	"qgjob/internal/phonesim"
	"qgjob/internal/store"
)

// noDeviceTime is how long run --local waits for a device of this host that can be used.
const noDeviceTime = 20 * time.Second

// localRun is what a run on this host's own devices has beside what it submits: its worker, what that one
// notes of devices, and where the artifacts go that would end with its server.
type localRun struct {
	worker    *agent.Agent
	simulated bool
	notes     chan string
	results   string // directory
}

// Write takes a line that the worker notes. Nobody is waited for: what nobody reads in time is lost.
func (l *localRun) Write(line []byte) (int, error) {
	select {
	case l.notes <- strings.TrimSpace(string(line)):
	default:
	}
	return len(line), nil
}

// parseLocal checks what run --local takes beside a submit.
func (o *runOptions) parseLocal(p *program, urlGiven bool) error {
	switch {
	case urlGiven:
		return exitf(exitUsage, "--local and --url contradict each other: --local starts a server of its own")
	case o.phones < 0 || o.phones > 100:
		return exitf(exitUsage, "--phones must be between 1 and 100, or left out to use real devices")
	case o.phones > 0 && len(o.serials) > 0:
		return exitf(exitUsage, "--phones and --device contradict each other: simulated phones are used alone")
	}
	if err := checkResults(o.artifacts); err != nil {
		return exitf(exitUsage, "--artifacts: %v", err)
	}
	if o.orgID == "" {
		o.orgID = "local"
	}
	if o.appVersionID == "" {
		o.appVersionID = "local"
	}
	o.env, o.token, o.ephemeral = "", "", true // those are of another server
	if p.logLevel == slog.LevelInfo {
		p.logLevel = slog.LevelWarn // what the server and the worker do is not asked for
	}
	if err := o.parseRun(p); err != nil {
		return err
	}
	if o.projectRoot == "" { // no worker has another one
		dir, err := filepath.Abs(o.projectDir)
		if err == nil {
			err = isProject(dir, o.config)
		}
		if err == nil {
			err = errors.New("--no-bundle leaves the test project out")
		}
		return exitf(exitUsage, "%v: go to the directory of your AppWright project, or name it with --project-dir", err)
	}
	return nil
}

// runLocal runs the tests on a server and a worker that live as long as the run. What outlives it are the
// caches of this user's workers, which it shares.
func (o *runOptions) runLocal(ctx context.Context, p *program, urlGiven bool) (err error) {
	if err := o.parseLocal(p, urlGiven); err != nil {
		return err
	}
	if err := appium.CheckHost(ctx); err != nil {
		return exitf(exitInfrastructure, "tests cannot run on this host: %v", err)
	}
	dir, err := os.MkdirTemp("", "qgjob-run-")
	if err != nil {
		return exitf(exitInfrastructure, "no directory for the run: %v", err)
	}
	defer func() { err = withCleanup(err, os.RemoveAll(dir)) }()
	server := serverOptions{listen: "127.0.0.1:0", dataDir: dir, lease: store.DefaultLease}
	s, err := server.open(ctx, p.logger())
	if err != nil {
		return err
	}
	defer func() { err = withCleanup(err, s.close()) }()
	worker := workerOptions{connection: connection{url: s.url()}, forever: true, serials: o.serials, ios: iosOptions{use: true}}
	adbPort := 0
	if o.phones > 0 {
		fleet, err := startFleet(ctx, o.phones, filepath.Join(dir, "adb"), phonesim.Options{Logger: p.logger()})
		if err != nil {
			return err
		}
		defer func() { err = withCleanup(err, fleet.close()) }()
		adbPort = fleet.adb.port
		for _, phone := range fleet.phones {
			worker.serials = append(worker.serials, phone.phone.Addr())
		}
	}
	data, err := p.dataDir("")
	if err != nil {
		return err
	}
	worker.dataDir = filepath.Join(data, "worker")
	options, err := worker.agent(ctx, p, adbPort)
	if err != nil {
		return err
	}
	o.local = &localRun{results: o.artifacts, simulated: o.phones > 0, notes: make(chan string, 100)}
	options.Out, options.Notes, options.Grace = io.Discard, o.local, devGrace
	if o.local.worker, err = agent.New(options); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	o.url = s.url()
	return o.beside(ctx, p, s)
}

// beside runs the tests while the server serves and the worker works, and ends both.
func (o *runOptions) beside(ctx context.Context, p *program, s *openServer) error {
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	serverCtx, stopServer := context.WithCancel(ctx)
	defer stopServer()
	workerCtx, stopWorker := context.WithCancel(ctx)
	defer stopWorker()
	served, worked := make(chan error, 1), make(chan error, 1)
	go func() {
		err := s.serve(serverCtx)
		fail(exitf(exitInfrastructure, "the run's server ended: %v", err))
		served <- err
	}()
	go func() {
		err := o.local.worker.Run(workerCtx)
		fail(exitf(exitInfrastructure, "the run's worker ended: %v", err))
		worked <- err
	}()
	verdict := o.run(running, p)
	stopWorker()
	workErr := <-worked
	stopServer()
	return withCleanup(verdict, errors.Join(workErr, <-served))
}

// awaitDevices waits until the server knows this host's devices, so that it can tell which tests none of them can
// run, and one of them can be used. What hinders them is said as it comes.
func (l *localRun) awaitDevices(ctx context.Context, p *program, conn *connection) error {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	limit := time.NewTimer(noDeviceTime)
	defer limit.Stop()
	known, client, note := l.worker.Known(), conn.client(-1), ""
	said, overdue := false, false
	for {
		select {
		case <-known:
			known = nil // it stays so
		default:
		}
		list, err := client.Devices(ctx)
		switch {
		case err != nil || known != nil && !overdue: // it comes, or some devices are still being opened
		case slices.ContainsFunc(list.Devices, usable):
			return nil
		case len(list.Devices) == 0 && !l.simulated && !android.Available() && !ios.Available():
			return exitf(exitInfrastructure, "%s", noADB)
		case !said:
			fmt.Fprintf(p.stderr, "No device of this host can be used yet. Waiting up to %s for one.\n", roughly(noDeviceTime))
			said = true
		}
		if overdue {
			return noUsableDevice(list.Devices, note)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case note = <-l.notes:
			fmt.Fprintln(p.stderr, note)
		case <-again.C:
		case <-limit.C:
			overdue = true
		}
	}
}

const noADB = "there is no adb on this host, by which phones and emulators are found: install it (Debian, Ubuntu: apt install adb; macOS: brew install android-platform-tools)"

// usable says whether a device takes work, now or soon.
func usable(d qgjob.Device) bool {
	return d.State == qgjob.DeviceIdle || d.State == qgjob.DeviceBusy || d.State == qgjob.DeviceBooting
}

// noUsableDevice says why nothing can run on this host. Note is the last thing that its worker noted.
func noUsableDevice(devices []qgjob.Device, note string) error {
	var why []string
	for _, d := range devices {
		why = append(why, strings.TrimSuffix(fmt.Sprintf("%s is %s: %s", d.ID, d.State, oneLine(d.Message)), ": "))
	}
	switch {
	case len(why) > 0:
		return exitf(exitNoDevice, "no device of this host can be used: %s", strings.Join(why, "; "))
	case note != "":
		return exitf(exitInfrastructure, "no device of this host can be used: %s", note)
	}
	return exitf(exitNoDevice, "adb sees no phone and no emulator on this host: connect a phone with USB debugging turned on, start an emulator, or simulate phones with --phones=2")
}
