package cli

import (
	"context"

	"github.com/spf13/cobra"

	"qgjob"
)

type runOptions struct {
	submitOptions
	onHost    bool // --local
	serials   []string
	phones    int
	artifacts string
}

func (p *program) runCommand() *cobra.Command {
	o := runOptions{submitOptions: submitOptions{priority: qgjob.DefaultPriority, wait: true}}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Submit tests, wait for their verdict, write the reports, exit by the verdict",
		Long: `Run is submit --wait with the reports that were asked for: one command from a test project to a verdict.

With --local it needs no server: it starts one for the run, uses the phones and emulators that adb sees on
this host (on a Mac with Xcode also its iPhones and simulators; or --phones simulated ones), and leaves no process
and no queue behind. What attempts left of jobs that did not pass at once, and with --video=on of all, it keeps in
the --artifacts directory: their logs, Playwright's reports, the screen. Organization and app version are then
"local" unless they are given.

` + exitHelp(),
		Example: `  qgjob run --org-id=qualgent --app-version-id=xyz123 --app=app.apk --test=tests --junit=results.xml
  qgjob run --local --app=app.apk --test=tests/onboarding.spec.ts
  qgjob run --local --phones=2 --app=app.apk --test=tests --fail-fast`,
	}
	f := cmd.Flags()
	o.flags(p, cmd)
	o.github.flags(f)
	f.Lookup("wait-timeout").Usage += " (with --local they end)"
	f.BoolVar(&o.onHost, "local", false, "start a server for this run and use this host's devices")
	f.StringArrayVar(&o.serials, "device", nil, "with --local, use only the device of this `serial` (repeat for more)")
	f.IntVar(&o.phones, "phones", 0, "with --local, simulate so many phones and use only them")
	f.StringVar(&o.artifacts, "artifacts", "qgjob-results", "with --local, `directory` for what jobs left that did not pass at once, in place of an earlier run's")
	return command(cmd, func(ctx context.Context) error {
		o.keyGiven, o.costGiven = f.Changed("idempotency-key"), f.Changed("max-cost")
		if !o.onHost && (len(o.serials) > 0 || o.phones != 0) {
			return exitf(exitUsage, "--device and --phones are for --local: a server's workers choose theirs")
		}
		if !o.onHost && f.Changed("artifacts") {
			return exitf(exitUsage, "--artifacts is for --local: a server keeps them for qgjob artifacts --job-id=ID --output=DIR")
		}
		if o.onHost {
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

// withCleanup is how a command ends whose cleaning up may fail, too: its verdict counts before that.
func withCleanup(verdict, cleanup error) error {
	if verdict == nil {
		return cleanup
	}
	return verdict
}
