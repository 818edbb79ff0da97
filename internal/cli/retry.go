package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
)

type retryOptions struct {
	connection
	run         runID
	failed      bool
	wait        bool
	waitTimeout time.Duration
	json        bool
	reports     reportOptions
}

func (p *program) retryCommand() *cobra.Command {
	var o retryOptions
	cmd := &cobra.Command{
		Use:   "retry",
		Short: "Run the jobs of a run again, as a new run",
		Long: `Retry makes a new run of the jobs of one that has its verdict, with the same test project, build and
devices asked for. With --failed it takes the jobs only that did not pass.

` + exitHelp(),
		Example: `  qgjob retry --failed --run-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804 --wait
  qgjob retry --run-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804`,
	}
	f := cmd.Flags()
	o.run.flag(f)
	f.BoolVar(&o.failed, "failed", false, "only the jobs that did not pass")
	f.BoolVar(&o.wait, "wait", false, "wait for the verdict and exit by it")
	f.DurationVar(&o.waitTimeout, "wait-timeout", defaultWait, "how long --wait waits; the jobs go on after it")
	f.BoolVar(&o.json, "json", false, "print the new run as JSON")
	o.reports.flags(f)
	p.connectionFlags(f, &o.connection)
	return command(cmd, func(ctx context.Context) error {
		if err := o.parse(); err != nil {
			return err
		}
		return o.retry(ctx, p)
	})
}

func (o *retryOptions) parse() error {
	if o.run == "" {
		return exitf(exitUsage, "--run-id is missing: give the id that submit printed")
	}
	if err := o.run.check(); err != nil {
		return err
	}
	if o.waitTimeout <= 0 {
		return exitf(exitUsage, "--wait-timeout must be longer than 0, for example 30m")
	}
	if o.reports.wanted() && !o.wait {
		return exitf(exitUsage, "reports are made of results: add --wait")
	}
	if err := o.reports.html.parse(""); err != nil {
		return err
	}
	return o.check()
}

func (o *retryOptions) retry(ctx context.Context, p *program) error {
	stopped, interruption := p.interruptible(ctx)
	defer interruption.stop()
	request := api.RetryRequest{Failed: o.failed, IdempotencyKey: randomKey()}
	run, err := within(stopped, &o.connection, func(ctx context.Context, c *api.Client) (qgjob.Run, error) {
		return c.RetryRun(ctx, string(o.run), request)
	})
	if err != nil {
		return o.explainMissing(stopped, err, "run "+string(o.run))
	}
	signal := interruption.stop()
	if !o.json {
		p.printSubmitted(run)
	}
	if !o.wait {
		if o.json {
			return printJSON(p.stdout, run)
		}
		fmt.Fprintf(p.stderr, "Follow it with: qgjob status --run-id=%s --wait\n", run.ID)
		return nil
	}
	w := p.newWaiting(&o.connection, subjectOf(run), o.waitTimeout, o.json)
	w.cancels, w.early, w.reports = true, signal, &o.reports
	return w.run(ctx)
}
