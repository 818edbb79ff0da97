package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/agent"
	"qgjob/internal/device"
	"qgjob/internal/device/android"
	"qgjob/internal/device/appium"
)

type workerOptions struct {
	connection
	forever    bool
	serials    []string
	projectDir string
	project    string
	dataDir    string
	tags       []string

	emulators    emulatorOptions
	ios          iosOptions
	browserstack browserstackOptions
	healthEvery  time.Duration
	minFree      float64 // GB
	limits       agent.Limits
}

func (p *program) workerCommand() *cobra.Command {
	var o workerOptions
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Run tests on the devices of this host",
		Long: `Worker takes jobs for all phones and emulators that adb sees on this host, one job a device at a time. On a Mac with Xcode it
takes jobs of --requires=platform=ios, too, for the iPhones and booted simulators that Xcode sees.
With --emulators it boots emulators when jobs need them and stops them when none does; one that somebody else
has started is used and never stopped. With BROWSERSTACK_USERNAME and BROWSERSTACK_ACCESS_KEY in its environment it takes jobs of
--target=browserstack, too, one for each parallel of the account that others leave free. No other job goes there.

It stops when there is nothing to do for a while (exit 0), and after a job's third failure (exit 1: what
its other devices run is finished or handed back). With --forever it goes on in both cases: the mode of a
permanent device host. The first Ctrl-C or SIGTERM lets running jobs end or hands them back, a second one
ends them at once.

Jobs that came without a bundle run in the test project of the current directory.`,
		Example: `  qgjob worker
  qgjob worker --forever --url=http://queue.example.com:8000
  qgjob worker --device=R58M12ABCDE --device=127.0.0.1:5555
  qgjob worker --forever --emulators=4
  qgjob worker --avd=Pixel_8_API_34 --avd=Pixel_8_API_34_2
  qgjob worker --ios-team=ABCDE12345 --simulator="iPhone 16"
  BROWSERSTACK_USERNAME=… BROWSERSTACK_ACCESS_KEY=… qgjob worker --browserstack-parallels=2 --browserstack-minute-price=0.10`,
	}
	f := cmd.Flags()
	f.BoolVar(&o.forever, "forever", false, "go on when idle and after third failures")
	f.StringArrayVar(&o.serials, "device", nil, "use only the device of this `serial` or UDID (repeat for more); host:port is connected to")
	f.StringVar(&o.projectDir, "project-dir", "", "`directory` of the test project for jobs without a bundle (default: the current one, where it is one)")
	f.StringVar(&o.project, "project", "", "Playwright project to run (default: the one whose provider fits the device)")
	f.StringVar(&o.dataDir, "data-dir", "", "`directory` for caches and undelivered results (default: worker in XDG_DATA_HOME/qgjob or ~/.local/share/qgjob)")
	f.StringArrayVar(&o.tags, "tag", nil, "a `word` for the devices of this worker, which jobs can ask for with --requires=tag=WORD (repeat for more)")
	o.emulators.flags(f)
	o.ios.flags(f)
	o.browserstack.flags(f)
	f.Float64Var(&o.minFree, "min-free", 2, "`GB` of free disk space below which no job is taken")
	f.DurationVar(&o.healthEvery, "health-every", time.Hour, "check a phone or emulator that had nothing to do for so long; 0 for never")
	f.DurationVar(&o.limits.Setup, "setup-timeout", 10*time.Minute, "limit of an attempt's setup: packages, install, Appium")
	f.DurationVar(&o.limits.Test, "test-timeout", 5*time.Minute, "limit of one test, its session included; it outweighs the config's timeout, and test.setTimeout in a spec outweighs it")
	f.DurationVar(&o.limits.Silence, "silence-timeout", 10*time.Minute, "limit of the time in which a run prints nothing and asks nothing of its device")
	f.DurationVar(&o.limits.Deadline, "run-timeout", 30*time.Minute, "limit of a spec's run as a whole")
	p.connectionFlags(f, &o.connection)
	return command(cmd, func(ctx context.Context) error {
		if err := o.parse(p); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

func (o *workerOptions) parse(p *program) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	if err := o.emulators.check(); err != nil {
		return err
	}
	if err := o.browserstack.check(); err != nil {
		return err
	}
	for _, tag := range o.tags {
		if r, err := qgjob.ParseRequirement("tag=" + tag); err != nil || len(r.Tags) != 1 || r.Tags[0] != tag {
			return exitf(exitUsage, "--tag %q is no word: no commas, no comparisons, no space at its ends", tag)
		}
	}
	if o.healthEvery != 0 && o.healthEvery < time.Minute {
		return exitf(exitUsage, "--health-every must be at least 1m, or 0 for never")
	}
	if o.minFree < 0 || o.limits.Setup < 0 || o.limits.Test < 0 || o.limits.Silence < 0 || o.limits.Deadline < 0 {
		return exitf(exitUsage, "--min-free and the time-outs cannot be negative")
	}
	given := o.dataDir != ""
	if o.dataDir, err = p.dataDir(o.dataDir); err != nil {
		return err
	}
	if !given {
		o.dataDir = filepath.Join(o.dataDir, "worker")
	}
	o.projectDir, err = chooseProject(o.projectDir, "")
	return err
}

func (o *workerOptions) run(ctx context.Context, p *program) error {
	options, err := o.agent(ctx, p, 0)
	if err != nil {
		return err
	}
	return p.runAgent(ctx, options)
}

// agent is the worker as package agent wants it, on the adb server of a port; 0 is the host's own.
func (o *workerOptions) agent(ctx context.Context, p *program, adbPort int) (agent.Options, error) {
	log := p.logger()
	if err := os.MkdirAll(o.dataDir, 0o700); err != nil {
		return agent.Options{}, exitf(exitInfrastructure, "--data-dir: %v", err)
	}
	cache, err := p.cacheDir()
	if err != nil {
		return agent.Options{}, err
	}
	if err := appium.CheckHost(ctx); err != nil { // it may be mended while the worker runs
		log.Warn("tests cannot run on this host", "error", err)
	}
	iosSerials, serials := splitSerials(o.serials)
	var drivers []device.Driver
	iPhones, err := o.ios.driver(p, iosSerials, len(o.serials) > 0, o.dataDir, filepath.Join(cache, "appium"))
	if err != nil {
		return agent.Options{}, err
	}
	if iPhones != nil {
		drivers = append(drivers, iPhones)
	}
	// A Mac may be there for iPhones only, and a worker for those that are named.
	wanted := iPhones == nil || len(serials) > 0 || o.emulators.count > 0 || len(o.serials) == 0 && android.Available()
	if wanted {
		phones, err := android.New(android.Options{
			Serials: serials, DataDir: o.dataDir, AppiumDir: filepath.Join(cache, "appium"), AdbPort: adbPort, Log: log,
		})
		if err != nil {
			return agent.Options{}, fmt.Errorf("devices of this host: %w", err)
		}
		own, err := o.emulators.driver(ctx, phones)
		if err != nil {
			return agent.Options{}, err
		}
		drivers = append(drivers, own)
	}
	cloud, err := o.browserstack.driver(p, o.dataDir)
	if err != nil {
		return agent.Options{}, err
	}
	if cloud != nil {
		drivers = append(drivers, cloud)
	}
	return agent.Options{
		Client: o.client(reachTime), Drivers: drivers, DataDir: o.dataDir,
		ProjectDir: o.projectDir, Project: o.project, Version: versionString(), Forever: o.forever, Tags: o.tags, Secrets: []string{p.env("QGJOB_TOKEN"), p.env("BROWSERSTACK_ACCESS_KEY"), p.env("NPM_TOKEN"), p.env("NODE_AUTH_TOKEN")},
		MinFree: int64(o.minFree * 1e9), HealthEvery: o.healthEvery, Limits: o.limits, Out: p.stdout, Logger: log,
	}, nil
}

// runAgent works until the worker has reason to end. The first signal lets it end in order, the second at once.
func (p *program) runAgent(ctx context.Context, o agent.Options) error {
	a, err := agent.New(o)
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	ended, obeyed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(obeyed)
		for {
			select {
			case <-p.signals:
				if ctx.Err() != nil {
					a.Kill()
				}
				stop()
			case <-ended:
				return
			}
		}
	}()
	err = a.Run(ctx)
	close(ended)
	<-obeyed
	stop()
	if errors.Is(err, agent.ErrThirdFailure) {
		return exitWith(exitTestFailed)
	}
	return err
}
