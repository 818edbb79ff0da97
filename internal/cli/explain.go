package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
)

type explainOptions struct {
	connection
	job  jobID
	json bool
}

func (p *program) explainCommand() *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain JOB_ID",
		Short: "Say why a job waits and until when, or why it ran where it did",
		Long: `Explain makes the scheduler's plan of this moment, without carrying it out. Of a job that waits it says, constraint
by constraint, what holds it back and when it is expected to start. Of a job that ran it says why it got that
device, what it was chosen over, and what the install cost or saved.`,
		Example: "  qgjob explain 02c57c1a-2f47-4e3e-b264-b30a7e92e804",
	}
	f := cmd.Flags()
	o.job.flag(f)
	f.BoolVar(&o.json, "json", false, "print JSON")
	p.connectionFlags(f, &o.connection)
	c := command(cmd, func(ctx context.Context) error {
		if arg := cmd.Flags().Arg(0); arg != "" {
			o.job = jobID(arg)
		}
		if err := o.job.check(); err != nil {
			return err
		}
		if err := o.check(); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
	c.Args = cobra.MaximumNArgs(1)
	return c
}

func (o *explainOptions) run(ctx context.Context, p *program) error {
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	e, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.Explanation, error) {
		return c.Explain(ctx, string(o.job))
	})
	if err != nil {
		return o.explainMissing(ctx, err, "job "+string(o.job))
	}
	if o.json {
		return printJSON(p.stdout, e)
	}
	j := e.Job
	fmt.Fprintf(p.stdout, "Job %s is %s: %s of %s, priority %d, target %s", j.ID, j.State, j.TestPath, j.AppVersionID, j.Priority, j.Target)
	if j.Requires != "" {
		fmt.Fprintf(p.stdout, ", %s", j.Requires)
	}
	fmt.Fprintln(p.stdout)
	if w := e.Waiting; w != nil {
		fmt.Fprintf(p.stdout, "It is number %d of its group and priority.\n", w.Position)
		for _, c := range w.Constraints {
			mark := "  "
			if c.Holds {
				mark = "! "
			}
			fmt.Fprintf(p.stdout, "%s%-8s  %s\n", mark, c.Kind, c.Text)
		}
		if w.Unserved {
			fmt.Fprintln(p.stdout, "When it starts is not known: no device that is available can run it.")
		} else {
			fmt.Fprintf(p.stdout, "Expected to start in %s (in nine of ten cases within %s), if nothing more urgent is submitted.\n",
				roughly(milliseconds(w.ExpectedP50MS)), roughly(milliseconds(w.ExpectedP90MS)))
		}
	}
	for _, c := range e.Choices {
		fmt.Fprintf(p.stdout, "Attempt %d ran on %s: %s.\n", c.Attempt, c.DeviceID, c.Reason)
		switch {
		case c.SavedMS > 0:
			fmt.Fprintf(p.stdout, "  It saved an install of about %s.\n", roughly(milliseconds(c.SavedMS)))
		case c.InstallMS > 0:
			fmt.Fprintf(p.stdout, "  The install was expected to take %s.\n", roughly(milliseconds(c.InstallMS)))
		}
		if len(c.Over) > 0 {
			fmt.Fprintf(p.stdout, "  Chosen over %s.\n", strings.Join(c.Over, ", "))
		}
	}
	return nil
}

func milliseconds(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

type queueOptions struct {
	connection
	json bool
}

func (p *program) queueCommand() *cobra.Command {
	var o queueOptions
	cmd := &cobra.Command{
		Use:     "queue",
		Short:   "Show what waits, in the order in which it is served",
		Example: "  qgjob queue\n  qgjob queue --json | jq '.entries[0]'",
	}
	f := cmd.Flags()
	f.BoolVar(&o.json, "json", false, "print JSON")
	p.connectionFlags(f, &o.connection)
	return command(cmd, func(ctx context.Context) error {
		if err := o.check(); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

func (o *queueOptions) run(ctx context.Context, p *program) error {
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	q, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.Queue, error) { return c.Queue(ctx) })
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(p.stdout, q)
	}
	if len(q.Entries) == 0 {
		fmt.Fprintf(p.stderr, "Nothing waits; %d jobs run.\n", q.Running)
		return nil
	}
	rows := make([][]string, len(q.Entries))
	for i, e := range q.Entries {
		requires := e.Requires
		if requires == "" {
			requires = "-"
		}
		rows[i] = []string{
			strconv.Itoa(e.Level), strconv.Itoa(e.Priority), e.OrgID, e.AppVersionID, string(e.Target), requires,
			strconv.Itoa(e.Queued), roughly(milliseconds(e.OldestMS)),
		}
	}
	p.printTable([]string{"LEVEL", "PRIORITY", "ORG", "APP VERSION", "TARGET", "REQUIRES", "QUEUED", "OLDEST"}, rows)
	return nil
}

type orgOptions struct {
	connection
	orgID string
	set   api.Organization
	json  bool
}

func (p *program) orgCommand() *cobra.Command {
	var o orgOptions
	cmd := &cobra.Command{
		Use:   "org",
		Short: "Show or set an organization's share of the devices, its quota and its budget",
		Long: `Org sets what the scheduler goes by between organizations, and shows it. What no flag names stays as it is. At
equal priority, device time is shared by weight: an organization of weight 2 gets twice what one of weight 1 gets, as
long as both have work. --max-devices bounds how many devices it uses at once. --max-cost is what its jobs may cost in
a month that overflow to BrowserStack (see --deadline of qgjob submit); jobs that ask for BrowserStack count, too, and
are not held back by it.`,
		Example: "  qgjob org --org-id=qualgent\n  qgjob org --org-id=qualgent --weight=2\n  qgjob org --org-id=nightly --max-devices=3 --max-cost=50",
	}
	f := cmd.Flags()
	f.StringVar(&o.orgID, "org-id", p.env("QGJOB_ORG"), "organization (required); also QGJOB_ORG")
	f.Float64Var(&o.set.Weight, "weight", 1, "share of device time beside others of the same priority")
	f.IntVar(&o.set.MaxDevices, "max-devices", 0, "most devices at once; 0: no limit")
	f.Float64Var(&o.set.MaxCost, "max-cost", 0, "budget of a month for jobs that overflow to BrowserStack; 0: none do without --max-cost of their own")
	f.BoolVar(&o.json, "json", false, "print JSON")
	p.connectionFlags(f, &o.connection)
	return command(cmd, func(ctx context.Context) error {
		if err := qgjob.CheckID("--org-id", o.orgID); err != nil {
			return err
		}
		if !(o.set.Weight >= 0.001 && o.set.Weight <= 1000) || o.set.MaxDevices < 0 {
			return exitf(exitUsage, "--weight goes from 0.001 to 1000, --max-devices is not negative (0: none)")
		}
		if o.set.MaxCost != 0 && !qgjob.IsBudget(o.set.MaxCost) {
			return exitf(exitUsage, "--max-cost goes from 0.01 to 1000000000 (0: none)")
		}
		if err := o.check(); err != nil {
			return err
		}
		ctx, interruption := p.interruptible(ctx)
		defer interruption.stop()
		org, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.Organization, error) {
			org, err := c.Organization(ctx, o.orgID)
			if err != nil {
				return org, err
			}
			changed := false
			for flag, set := range map[string]func(){
				"weight":      func() { org.Weight = o.set.Weight },
				"max-devices": func() { org.MaxDevices = o.set.MaxDevices },
				"max-cost":    func() { org.MaxCost = o.set.MaxCost },
			} {
				if f.Changed(flag) {
					changed = true
					set()
				}
			}
			if changed {
				err = c.SetOrganization(ctx, o.orgID, org)
			}
			return org, err
		})
		if err != nil {
			return err
		}
		if o.json {
			return printJSON(p.stdout, org)
		}
		p.printOrganization(o.orgID, org)
		return nil
	})
}

func (p *program) printOrganization(id string, o api.Organization) {
	devices, budget := "no limit", "none"
	if o.MaxDevices > 0 {
		devices = strconv.Itoa(o.MaxDevices)
	}
	if o.MaxCost > 0 {
		budget = fmt.Sprintf("%.2f a month", o.MaxCost)
	}
	p.printTable([]string{"ORG", "WEIGHT", "MAX DEVICES", "BUDGET", "COST THIS MONTH"},
		[][]string{{id, strconv.FormatFloat(o.Weight, 'g', -1, 64), devices, budget, fmt.Sprintf("%.2f", o.Cost)}})
}
