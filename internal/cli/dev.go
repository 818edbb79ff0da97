package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"qgjob/internal/phonesim"
	"qgjob/internal/store"
)

// devGrace is how long running jobs may go on after Ctrl-C: those that do not end are handed back, and run
// again at the next start.
const devGrace = time.Second

type devOptions struct {
	server      serverOptions
	worker      workerOptions
	phones      int
	installTime time.Duration
}

func (p *program) devCommand() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run server and worker in one process, with simulated phones if asked",
		Long: `Dev runs a server and a worker that goes on for ever, for daily use on one machine. With --phones it
simulates so many Android phones and uses them only: nothing that is plugged in is touched. Without, it
uses the devices that adb sees, on a Mac with Xcode also iPhones and simulators, and for --target=browserstack the account that BROWSERSTACK_USERNAME and
BROWSERSTACK_ACCESS_KEY name. Ctrl-C ends all of it; queued jobs are kept for the next start.`,
		Example: `  qgjob dev
  qgjob dev --phones=2
  qgjob dev --phones=2 --install-time=5s --data-dir=/tmp/qgjob-demo`,
	}
	f := cmd.Flags()
	f.StringVar(&o.server.listen, "listen", defaultListen, "`address` to serve on; port 0 takes a free one")
	f.StringVar(&o.server.dataDir, "data-dir", "", "`directory` of the queue and of caches (default XDG_DATA_HOME/qgjob or ~/.local/share/qgjob)")
	f.IntVar(&o.phones, "phones", 0, "how many phones to simulate")
	f.DurationVar(&o.installTime, "install-time", 0, "how long the install of an app takes on a simulated phone")
	f.StringArrayVar(&o.worker.serials, "device", nil, "use only the device of this `serial` (repeat for more)")
	o.worker.ios.flags(f)
	f.StringVar(&o.worker.projectDir, "project-dir", "", "`directory` of the test project for jobs without a bundle (default: the current one, where it is one)")
	f.StringVar(&o.worker.project, "project", "", "Playwright project to run (default: the one whose provider fits the device)")
	return command(cmd, func(ctx context.Context) error {
		if err := o.parse(p); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

func (o *devOptions) parse(p *program) (err error) {
	switch {
	case o.phones < 0 || o.phones > 100:
		return exitf(exitUsage, "--phones must be between 1 and 100, or left out to use real devices")
	case o.installTime < 0:
		return exitf(exitUsage, "--install-time cannot be negative")
	case o.installTime > 0 && o.phones == 0:
		return exitf(exitUsage, "--install-time is for simulated phones: add --phones")
	case o.phones > 0 && len(o.worker.serials) > 0:
		return exitf(exitUsage, "--phones and --device contradict each other: simulated phones are used alone")
	}
	o.server.lease, o.server.keepDays, o.server.keepSize = store.DefaultLease, 30, 20
	if err := o.server.parse(p); err != nil {
		return err
	}
	o.server.databaseURL = "" // dev keeps to its own directory, whatever QGJOB_DATABASE_URL says
	o.worker.forever = true
	o.worker.browserstack.parallels = allParallels
	if o.phones > 0 {
		o.worker.browserstack.parallels = 0
	}
	o.worker.dataDir = filepath.Join(o.server.dataDir, "worker")
	o.worker.projectDir, err = chooseProject(o.worker.projectDir, "")
	return err
}

func (o *devOptions) run(ctx context.Context, p *program) (err error) {
	s, err := o.server.open(ctx, p.logger())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	adbPort := 0
	if o.phones > 0 {
		fleet, err := startFleet(ctx, o.phones, filepath.Join(o.server.dataDir, "adb"), phonesim.Options{InstallTime: o.installTime, Logger: p.logger()})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, fleet.close()) }()
		adbPort = fleet.adb.port
		for _, phone := range fleet.phones {
			fmt.Fprintln(p.stdout, phone)
			o.worker.serials = append(o.worker.serials, phone.phone.Addr())
		}
	}
	o.worker.url = s.url()
	options, err := o.worker.agent(ctx, p, adbPort)
	if err != nil {
		return err
	}
	options.Grace = devGrace
	fmt.Fprintf(p.stdout, "qgjob server listens on %s (documentation: %s/docs)\n", s.url(), s.url())

	// The server outlives the worker, so that what it hands back is recorded. Either one's end ends both.
	serverCtx, stopServer := context.WithCancel(ctx)
	defer stopServer()
	workerCtx, stopWorker := context.WithCancel(ctx)
	defer stopWorker()
	served := make(chan error, 1)
	go func() {
		served <- s.serve(serverCtx)
		stopWorker()
	}()
	worked := p.runAgent(workerCtx, options)
	stopServer()
	return errors.Join(worked, <-served)
}

// fleet is a number of simulated phones on an adb server of their own.
type fleet struct {
	adb    *adbServer
	phones []*simulatedPhone
}

// startFleet switches n phones on. adbHome is where their adb server may keep its keys.
func startFleet(ctx context.Context, n int, adbHome string, o phonesim.Options) (_ *fleet, err error) {
	f := &fleet{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	for i := range n {
		o.Serial, o.Model = fmt.Sprintf("SIM%04d", i+1), fmt.Sprintf("SimPhone %d", i+1)
		phone, err := startPhone(o, "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		f.phones = append(f.phones, phone)
	}
	if f.adb, err = startADB(ctx, adbHome); err != nil {
		return nil, err
	}
	return f, nil
}

// close switches the phones off and ends the adb server.
func (f *fleet) close() error {
	var errs []error
	if f.adb != nil {
		errs = append(errs, f.adb.close())
	}
	for _, phone := range f.phones {
		errs = append(errs, phone.close())
	}
	return errors.Join(errs...)
}
