package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/agent"
	"qgjob/internal/phonesim"
	"qgjob/internal/store"
)

// noDeviceTime is how long run --local waits for a device of this host.
const noDeviceTime = 20 * time.Second

type runOptions struct {
	submitOptions
	local   bool
	serials []string
	phones  int
}

func (p *program) runCommand() *cobra.Command {
	o := runOptions{submitOptions: submitOptions{priority: qgjob.DefaultPriority, wait: true}}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Submit tests, wait for their verdict, write the reports, exit by the verdict",
		Long: `Run is submit --wait with the reports that were asked for: one command from a test project to a verdict.

With --local it needs no server: it starts one for the run, uses the phones and emulators that adb sees on
this host (or --phones simulated ones), and leaves no process and no queue behind. Organization and app
version are then "local" unless they are given.

` + exitHelp(),
		Example: `  qgjob run --org-id=qualgent --app-version-id=xyz123 --app=app.apk --test=tests --junit=results.xml
  qgjob run --local --app=app.apk --test=tests/onboarding.spec.ts
  qgjob run --local --phones=2 --app=app.apk --test=tests --fail-fast`,
	}
	f := cmd.Flags()
	o.flags(p, cmd)
	o.github.flags(f)
	f.BoolVar(&o.local, "local", false, "start a server for this run and use this host's devices")
	f.StringArrayVar(&o.serials, "device", nil, "with --local, use only the device of this `serial` (repeat for more)")
	f.IntVar(&o.phones, "phones", 0, "with --local, simulate so many phones and use only them")
	return command(cmd, func(ctx context.Context) error {
		o.keyGiven, o.costGiven = f.Changed("idempotency-key"), f.Changed("max-cost")
		if !o.local && (len(o.serials) > 0 || o.phones != 0) {
			return exitf(exitUsage, "--device and --phones are for --local: a server's workers choose theirs")
		}
		if o.local {
			return o.runLocal(ctx, p, f.Changed("url"))
		}
		if err := o.parseRun(p); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

func (o *runOptions) parseRun(p *program) error {
	if err := o.parse(); err != nil {
		return err
	}
	return o.github.parse(p, &o.connection, o.projectRoot)
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
	if o.orgID == "" {
		o.orgID = "local"
	}
	if o.appVersionID == "" {
		o.appVersionID = "local"
	}
	o.env, o.token = "", "" // of another server
	if p.logLevel == slog.LevelInfo {
		p.logLevel = slog.LevelWarn // what the server and the worker do is not asked for
	}
	return o.parseRun(p)
}

// runLocal runs the tests on a server and a worker that live as long as the run. What outlives it are the
// caches of this user's workers, which it shares.
func (o *runOptions) runLocal(ctx context.Context, p *program, urlGiven bool) (err error) {
	if err := o.parseLocal(p, urlGiven); err != nil {
		return err
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
	options.Out, options.Grace = io.Discard, devGrace
	o.url = s.url()
	return o.beside(ctx, p, s, options)
}

// beside runs the tests while the server serves and the worker works, and ends both.
func (o *runOptions) beside(ctx context.Context, p *program, s *openServer, options agent.Options) error {
	a, err := agent.New(options)
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	serverCtx, stopServer := context.WithCancel(ctx)
	defer stopServer()
	workerCtx, stopWorker := context.WithCancel(ctx)
	defer stopWorker()
	served, worked, looked := make(chan error, 1), make(chan error, 1), make(chan struct{})
	go func() {
		err := s.serve(serverCtx)
		fail(exitf(exitInfrastructure, "the run's server ended: %v", err))
		served <- err
	}()
	go func() {
		err := a.Run(workerCtx)
		fail(exitf(exitInfrastructure, "the run's worker ended: %v", err))
		worked <- err
	}()
	go func() {
		defer close(looked)
		o.lookForDevices(running, fail)
	}()
	verdict := o.run(running, p)
	fail(nil)
	<-looked
	stopWorker()
	workErr := <-worked
	stopServer()
	return withCleanup(verdict, errors.Join(workErr, <-served))
}

// lookForDevices ends a run that no device of this host can serve.
func (o *runOptions) lookForDevices(ctx context.Context, fail context.CancelCauseFunc) {
	client := o.client(-1)
	again := time.NewTicker(250 * time.Millisecond)
	defer again.Stop()
	limit := time.NewTimer(noDeviceTime)
	defer limit.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-limit.C:
			fail(exitf(exitNoDevice, "adb sees no phone and no emulator on this host: connect one, start one, or simulate some with --phones=2"))
			return
		case <-again.C:
		}
		if list, err := client.Devices(ctx); err == nil && len(list.Devices) > 0 {
			return
		}
	}
}

// withCleanup is how a command ends whose cleaning up may fail, too: its verdict counts before that.
func withCleanup(verdict, cleanup error) error {
	if verdict == nil {
		return cleanup
	}
	return verdict
}
