package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
)

type statusOptions struct {
	connection
	job         jobID
	runID       runID
	reports     reportOptions
	json        bool
	wait        bool
	waitTimeout time.Duration
	exitStatus  bool
}

func (p *program) statusCommand() *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show a job or a run: its state, its attempts and its whole life",
		Long: `Status shows a job (--job-id) or a run (--run-id). It exits 0 for any that it could read, whatever its state, 20 when the
server could not be asked, and 2 for an id that is malformed or unknown.

With --exit-status it exits by the verdict, and with 21 while there is none. With --wait (or --watch) it
shows the states until the verdict and then exits by it, as submit --wait does; it never cancels anything.

` + exitHelp(),
		Example: `  qgjob status --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804
  qgjob status --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804 --wait
  qgjob status --run-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804 --wait --junit=results.xml
  qgjob status --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804 --json | jq .state
  qgjob status --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804 --exit-status && echo green`,
	}
	f := cmd.Flags()
	o.job.flag(f)
	o.runID.flag(f)
	f.BoolVar(&o.json, "json", false, "print JSON: the job, its attempts and its events; or the run, its jobs, attempts and tests")
	f.BoolVar(&o.wait, "wait", false, "wait for the verdict and exit by it")
	f.BoolVar(&o.wait, "watch", false, "the same as --wait")
	f.DurationVar(&o.waitTimeout, "wait-timeout", defaultWait, "how long --wait waits")
	f.BoolVar(&o.exitStatus, "exit-status", false, "exit by the verdict; 21 while there is none")
	o.reports.flags(f)
	p.connectionFlags(f, &o.connection)
	return command(cmd, func(ctx context.Context) error {
		if err := o.parse(); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

func (o *statusOptions) parse() error {
	if err := checkOneOf(&o.job, &o.runID); err != nil {
		return err
	}
	if o.waitTimeout <= 0 {
		return exitf(exitUsage, "--wait-timeout must be longer than 0, for example 30m")
	}
	if err := o.reports.html.parse(""); err != nil {
		return err
	}
	return o.check()
}

func (o *statusOptions) run(ctx context.Context, p *program) error {
	stopped, interruption := p.interruptible(ctx)
	defer interruption.stop()
	if o.runID != "" {
		return o.showRun(ctx, stopped, interruption, p)
	}
	detail, err := readJob(stopped, &o.connection, o.job)
	if err != nil {
		return err
	}
	if o.wait {
		return o.await(ctx, interruption, p, newWaitedJob(detail.Job))
	}
	err = o.showJob(p, detail)
	return o.reports.write(stopped, p, &o.connection, detail.RunID, err)
}

// await waits for a verdict. It never cancels.
func (o *statusOptions) await(ctx context.Context, interruption *interruption, p *program, s subject) error {
	if interruption.stop() != nil {
		return exitWith(exitNotFinished)
	}
	w := p.newWaiting(&o.connection, s, o.waitTimeout, o.json)
	w.reports = &o.reports
	return w.run(ctx)
}

// showRun shows a run, or waits for its verdict.
func (o *statusOptions) showRun(ctx, stopped context.Context, interruption *interruption, p *program) error {
	full, err := readReport(stopped, &o.connection, string(o.runID), reachTime)
	if err != nil {
		return o.explainMissing(stopped, err, "run "+string(o.runID))
	}
	if o.wait {
		return o.await(ctx, interruption, p, newWaitedRun(full.Run))
	}
	if o.json {
		err = full.JSON(p.stdout)
	} else {
		fmt.Fprintf(p.stdout, "Run status: %s\n", full.Run.State)
		err = p.printRun(full)
		fmt.Fprintf(p.stdout, "Tests: %s\n", full.Totals)
	}
	if err == nil && o.exitStatus {
		err = exitWith(runExit(full.Run))
	}
	return o.reports.write(stopped, p, &o.connection, string(o.runID), err)
}

func (o *statusOptions) showJob(p *program, detail api.JobDetail) (err error) {
	if o.json {
		err = printJSON(p.stdout, detail)
	} else {
		err = p.printJob(detail, time.Now())
	}
	if err == nil && o.exitStatus {
		return exitWith(verdictExit(detail.State, detail.Cause))
	}
	return err
}

// readJob asks for a job; an id that the server does not know is named in the error.
func readJob(ctx context.Context, conn *connection, id jobID) (api.JobDetail, error) {
	detail, err := within(ctx, conn, func(ctx context.Context, c *api.Client) (api.JobDetail, error) { return c.Job(ctx, string(id)) })
	return detail, conn.explainMissing(ctx, err, "job "+string(id))
}

// printJob shows a job to a person.
func (p *program) printJob(d api.JobDetail, now time.Time) error {
	out, _, styled := p.styled()
	if !styled {
		out = p.stdout
	}
	word := func(s string) string {
		if styled {
			return wordStyle(s).Render(s)
		}
		return s
	}
	fmt.Fprintf(out, "Job status: %s\n", word(string(d.State)))
	if d.Cause != "" || d.Message != "" {
		fmt.Fprintf(out, "Reason: %s\n", because(d.Cause, d.Message))
		if advice := d.Cause.Advice(); advice != "" {
			fmt.Fprintf(out, "Advice: %s\n", advice)
		}
	}
	fmt.Fprintln(out)
	facts := [][2]string{
		{"Job", d.ID},
		{"Run", d.RunID},
		{"Organization", d.OrgID},
		{"App Version", d.AppVersionID},
		{"Test", d.TestPath},
		{"Priority", fmt.Sprintf("%d (0 is the most urgent, 1000 the least)", d.Priority)},
		{"Target", string(d.Target)},
		{"Requires", d.Requires},
		{"Submitted", clockTime(d.SubmittedAt)},
		{"Waited", roughly(waited(d.Job, now))},
	}
	if d.EndedAt != nil {
		facts = append(facts, [2]string{"Ended", clockTime(*d.EndedAt)})
	}
	if d.Flaky {
		facts = append(facts, [2]string{"Flaky", "passed only at a retry"})
	}
	if cost := cloudCost(d.AttemptList); cost > 0 {
		facts = append(facts, [2]string{"Cost", fmt.Sprintf("%.2f, on BrowserStack", cost)})
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range facts {
		if f[1] != "" {
			fmt.Fprintf(w, "%s:\t%s\n", f[0], printable(f[1]))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	printAttempts(out, d.AttemptList, now, word)
	if d.State == qgjob.Failed {
		fmt.Fprintf(out, "\n%s\n", strings.Join(append(failures(d)[1:], logOf(d.ID)), "\n"))
	}
	return nil
}

// printAttempts shows one line an attempt.
func printAttempts(out io.Writer, attempts []qgjob.Attempt, now time.Time, word func(string) string) {
	if len(attempts) == 0 {
		return
	}
	fmt.Fprintln(out, "\nAttempts:")
	for _, a := range attempts {
		outcome, took := string(a.Outcome), now.Sub(a.AssignedAt)
		if a.EndedAt != nil {
			took = a.EndedAt.Sub(a.AssignedAt)
		}
		if a.Outcome == "" {
			outcome = string(qgjob.Running)
		}
		line := fmt.Sprintf("  %d. %s on %s, %s", a.Number, word(outcome), printable(a.DeviceID), roughly(took))
		switch {
		case a.Report.Installed:
			line += ", app installed"
		case a.Report.InstallSaved:
			line += ", install saved"
		}
		if a.Cause != "" || a.Message != "" {
			line += ": " + because(a.Cause, a.Message)
		}
		fmt.Fprintln(out, line)
		if a.Reason != "" {
			fmt.Fprintf(out, "     chosen because: %s\n", printable(a.Reason))
		}
		printCloud(out, a.Report.CloudSessions)
	}
}

// cloudCost is what the attempts cost so far.
func cloudCost(attempts []qgjob.Attempt) (sum float64) {
	for _, a := range attempts {
		for _, s := range a.Report.CloudSessions {
			sum += s.Cost
		}
	}
	return sum
}

// printCloud shows where to look at what ran in a cloud, and what it cost.
func printCloud(out io.Writer, sessions []qgjob.CloudSession) {
	for _, s := range sessions {
		line := roughly(time.Duration(s.Seconds) * time.Second)
		if s.Cost > 0 {
			line += fmt.Sprintf(", cost %.2f", s.Cost)
		}
		fmt.Fprintf(out, "     BrowserStack session %s: %s\n", printable(s.ID), line)
		if s.URL != "" {
			fmt.Fprintf(out, "       page:  %s\n", printable(s.URL))
		}
		if s.VideoURL != "" {
			fmt.Fprintf(out, "       video: %s\n", printable(s.VideoURL))
		}
	}
}

// waited is how long a job waited for its first attempt, so far.
func waited(j qgjob.Job, now time.Time) time.Duration {
	switch {
	case j.StartedAt != nil:
		return j.StartedAt.Sub(j.SubmittedAt)
	case j.EndedAt != nil:
		return j.EndedAt.Sub(j.SubmittedAt)
	}
	return now.Sub(j.SubmittedAt)
}

// waitCommand is status --wait as a command of its own.
func (p *program) waitCommand() *cobra.Command {
	o := statusOptions{wait: true}
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Wait for the verdict of a job or a run and exit by it",
		Long: `Wait shows the states of a job (--job-id) or a run (--run-id) until the verdict, and exits by it. It never
cancels anything: an interrupt ends the wait only, with exit code 21.

` + exitHelp(),
		Example: `  qgjob wait --run-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804 --junit=results.xml
  qgjob wait --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804 --wait-timeout=30m`,
	}
	f := cmd.Flags()
	o.job.flag(f)
	o.runID.flag(f)
	f.BoolVar(&o.json, "json", false, "print JSON, as status --json does, when there is a verdict")
	f.DurationVar(&o.waitTimeout, "wait-timeout", defaultWait, "how long to wait")
	o.reports.flags(f)
	p.connectionFlags(f, &o.connection)
	return command(cmd, func(ctx context.Context) error {
		if err := o.parse(); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}
