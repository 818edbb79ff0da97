package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
)

type cancelOptions struct {
	connection
	job         jobID
	runID       runID
	noWait      bool
	waitTimeout time.Duration
	json        bool
}

func (p *program) cancelCommand() *cobra.Command {
	var o cancelOptions
	cmd := &cobra.Command{
		Use:   "cancel",
		Short: "Cancel a job or a whole run, also while it runs",
		Long: `Cancel takes a queued job (--job-id) out of the queue and ends the test of a running one. It waits until the
device has stopped and exits 0 when the job is canceled. A job that has its verdict keeps it: exit code 2.

With --run-id it cancels every job of a run that has no verdict, and exits 0 when they all are; a run that
has its verdict keeps it: exit code 2.`,
		Example: `  qgjob cancel --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804
  qgjob cancel --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804 --no-wait
  qgjob cancel --run-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804`,
	}
	f := cmd.Flags()
	o.job.flag(f)
	o.runID.flag(f)
	f.BoolVar(&o.noWait, "no-wait", false, "only request it")
	f.DurationVar(&o.waitTimeout, "wait-timeout", 2*time.Minute, "how long to wait for the device to stop; exit code 21 after it")
	f.BoolVar(&o.json, "json", false, "print the job as JSON")
	p.connectionFlags(f, &o.connection)
	return command(cmd, func(ctx context.Context) error {
		if err := o.parse(); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

func (o *cancelOptions) parse() error {
	if err := checkOneOf(&o.job, &o.runID); err != nil {
		return err
	}
	if o.waitTimeout <= 0 {
		return exitf(exitUsage, "--wait-timeout must be longer than 0, for example 30s")
	}
	return o.check()
}

func (o *cancelOptions) run(ctx context.Context, p *program) error {
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	if o.runID != "" {
		return o.cancelRun(ctx, p)
	}
	job, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (qgjob.Job, error) { return c.Cancel(ctx, string(o.job)) })
	if err != nil {
		return o.explainMissing(ctx, err, "job "+string(o.job))
	}
	if job.State == qgjob.Canceling && !o.noWait {
		if job, err = o.await(ctx, p, job); err != nil {
			return err
		}
	}
	if o.json {
		if err := printJSON(p.stdout, job); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(p.stdout, "Job status: %s\n", job.State)
	}
	switch job.State {
	case qgjob.Canceled:
		return nil
	case qgjob.Canceling:
		if o.noWait {
			return nil
		}
		return exitf(exitNotFinished, "the device of job %s has not stopped within %s; the cancel stays requested", o.job, roughly(o.waitTimeout))
	}
	return exitf(exitUsage, "job %s has its verdict already, %s: there is nothing to cancel", o.job, job.State)
}

// await follows a job that is being canceled to its end. When the time ends first, it returns the job as it was.
func (o *cancelOptions) await(ctx context.Context, p *program, job qgjob.Job) (qgjob.Job, error) {
	fmt.Fprintf(p.stderr, "Canceling job %s...\n", job.ID)
	limited, end := context.WithTimeout(ctx, o.waitTimeout)
	defer end()
	err := o.client(o.waitTimeout).WatchJob(limited, job.ID, 0, func(e qgjob.Event) error {
		job.State, job.Cause, job.Message = e.State, e.Cause, e.Message
		return nil
	})
	switch {
	case context.Cause(ctx) != nil:
		return job, context.Cause(ctx)
	case limited.Err() != nil:
		job.State = qgjob.Canceling
		return job, nil
	case err != nil:
		return job, exitf(exitInfrastructure, "the cancel of job %s was requested, but its end cannot be seen: %v", job.ID, err)
	}
	return within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (qgjob.Job, error) {
		d, err := c.Job(ctx, job.ID)
		return d.Job, err
	})
}

// cancelRun cancels the jobs of a run and waits until their devices have stopped.
func (o *cancelOptions) cancelRun(ctx context.Context, p *program) error {
	before, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (qgjob.Run, error) { return c.Run(ctx, string(o.runID)) })
	if err != nil {
		return o.explainMissing(ctx, err, "run "+string(o.runID))
	}
	if before.State.IsVerdict() {
		return exitf(exitUsage, "run %s has its verdict already, %s: there is nothing to cancel", o.runID, before.State)
	}
	run, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (qgjob.Run, error) { return c.CancelRun(ctx, string(o.runID)) })
	if err != nil {
		return err
	}
	if !run.State.IsVerdict() && !o.noWait {
		fmt.Fprintf(p.stderr, "Canceling run %s...\n", run.ID)
		limited, end := context.WithTimeout(ctx, o.waitTimeout)
		defer end()
		err := o.client(o.waitTimeout).WatchRun(limited, run.ID, func(change api.RunChange) error {
			run.State = change.State
			return nil
		})
		switch {
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case limited.Err() != nil:
			return exitf(exitNotFinished, "the devices of run %s have not stopped within %s; the cancel stays requested", o.runID, roughly(o.waitTimeout))
		case err != nil:
			return exitf(exitInfrastructure, "the cancel of run %s was requested, but its end cannot be seen: %v", run.ID, err)
		}
	}
	if o.json {
		return printJSON(p.stdout, run)
	}
	fmt.Fprintf(p.stdout, "Run status: %s\n", run.State)
	return nil
}
