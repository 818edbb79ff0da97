package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
)

type listOptions struct {
	connection
	orgID, appVersionID string
	runID               runID
	state               string
	limit               int
	json                bool
}

func (p *program) listCommand() *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List jobs, newest first",
		Example: `  qgjob list
  qgjob list --org-id=qualgent --state=queued
  qgjob list --run-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804
  qgjob list --app-version-id=xyz123 --limit=500 --json | jq -r '.jobs[].id'`,
	}
	f := cmd.Flags()
	f.StringVar(&o.orgID, "org-id", p.env("QGJOB_ORG"), "only this organization's; also QGJOB_ORG")
	f.StringVar(&o.appVersionID, "app-version-id", "", "only this app version's")
	o.runID.flag(f)
	f.Lookup("run-id").Usage = "only the jobs of this run, by its `id`"
	f.StringVar(&o.state, "state", "", "only these: queued, running, canceling, passed, failed, errored or canceled")
	f.IntVar(&o.limit, "limit", 50, "at most so many")
	f.BoolVar(&o.json, "json", false, "print JSON")
	p.connectionFlags(f, &o.connection)
	completeWords(cmd, "state", qgjob.JobStates...)
	return command(cmd, func(ctx context.Context) error {
		if err := o.parse(); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

func (o *listOptions) parse() error {
	for _, id := range []struct{ flag, value string }{{"--org-id", o.orgID}, {"--app-version-id", o.appVersionID}} {
		if id.value == "" {
			continue
		}
		if err := qgjob.CheckID(id.flag, id.value); err != nil {
			return err
		}
	}
	if o.runID != "" {
		if err := o.runID.check(); err != nil {
			return err
		}
	}
	if o.state != "" && !slices.Contains(qgjob.JobStates, qgjob.JobState(o.state)) {
		return exitf(exitUsage, "--state %q is unknown: use one of %v", o.state, qgjob.JobStates)
	}
	if o.limit < 1 {
		return exitf(exitUsage, "--limit must be at least 1")
	}
	return o.check()
}

// listPage is how many jobs are asked for at once.
const listPage = 200

func (o *listOptions) run(ctx context.Context, p *program) error {
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	all := api.JobList{Jobs: []qgjob.Job{}}
	for len(all.Jobs) < o.limit {
		page, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.JobList, error) {
			return c.Jobs(ctx, api.JobQuery{
				OrgID: o.orgID, AppVersionID: o.appVersionID, RunID: string(o.runID), State: qgjob.JobState(o.state),
				Cursor: all.Next, Limit: min(listPage, o.limit-len(all.Jobs)),
			})
		})
		if err != nil {
			return err
		}
		all.Jobs, all.Next = append(all.Jobs, page.Jobs...), page.Next
		if page.Next == "" {
			break
		}
	}
	if o.json {
		return printJSON(p.stdout, all)
	}
	now := time.Now()
	rows := make([][]string, 0, len(all.Jobs))
	for _, j := range all.Jobs {
		rows = append(rows, []string{
			j.ID, string(j.State), strconv.Itoa(j.Priority), j.AppVersionID, j.TestPath,
			string(j.Target), strconv.Itoa(j.Attempts), roughly(now.Sub(j.SubmittedAt)) + " ago", j.OrgID,
		})
	}
	if len(rows) == 0 {
		fmt.Fprintln(p.stderr, "No jobs.")
		return nil
	}
	p.printTable([]string{"JOB", "STATE", "PRIORITY", "APP VERSION", "TEST", "TARGET", "ATTEMPTS", "SUBMITTED", "ORGANIZATION"}, rows)
	if all.Next != "" {
		fmt.Fprintf(p.stderr, "There are more: raise --limit (now %d).\n", o.limit)
	}
	return nil
}
