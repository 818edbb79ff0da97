package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
)

type flakyOptions struct {
	connection
	orgID               string
	all, json           bool
	quarantine, release bool
	test, title, reason string
}

func (p *program) flakyCommand() *cobra.Command {
	var o flakyOptions
	cmd := &cobra.Command{
		Use:   "flaky",
		Short: "List flaky and broken tests; quarantine one, or let it count again",
		Long: `Flaky lists the tests of an organization that passed and failed on one code state (a test project and a
build), with the probability that an execution fails by chance and its 95 % interval, and those that are
broken: they failed at every execution on the newest code state.

A quarantined test (--quarantine) still runs and is reported; its failure fails no job. It returns by itself
after twenty executions in a row that passed, or by --release. 'qgjob server --quarantine-flaky' quarantines
by rule: tests that were flaky on two code states or more, and never a broken one.`,
		Example: `  qgjob flaky --org-id=qualgent
  qgjob flaky --org-id=qualgent --quarantine --test=tests/cart.spec.ts --title="cart > keeps its items" --reason="see QG-17"
  qgjob flaky --org-id=qualgent --release --test=tests/cart.spec.ts --title="cart > keeps its items"`,
	}
	f := cmd.Flags()
	f.StringVar(&o.orgID, "org-id", p.env("QGJOB_ORG"), "organization (required); also QGJOB_ORG")
	f.BoolVar(&o.all, "all", false, "list stable tests, too")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.BoolVar(&o.quarantine, "quarantine", false, "quarantine the test of --test and --title")
	f.BoolVar(&o.release, "release", false, "let the test of --test and --title count again")
	f.StringVar(&o.test, "test", "", "spec `file` of the test")
	f.StringVar(&o.title, "title", "", "the test's title, with its describe blocks, as the list shows it")
	f.StringVar(&o.reason, "reason", "", "why it is quarantined")
	p.connectionFlags(f, &o.connection)
	cmd.MarkFlagsMutuallyExclusive("quarantine", "release")
	return command(cmd, func(ctx context.Context) error {
		if err := o.parse(); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

func (o *flakyOptions) parse() (err error) {
	if err := qgjob.CheckID("--org-id", o.orgID); err != nil {
		return err
	}
	if o.quarantine || o.release {
		if o.test, err = qgjob.CleanTestPath(o.test); err != nil {
			return exitf(exitUsage, "--test: %v", err)
		}
		if o.title == "" {
			return exitf(exitUsage, "--title is missing: give the test's title as 'qgjob flaky --all' shows it")
		}
	} else if o.test != "" || o.title != "" {
		return exitf(exitUsage, "--test and --title name the test to --quarantine or to --release: add one of them")
	}
	return o.check()
}

func (o *flakyOptions) run(ctx context.Context, p *program) error {
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	if o.quarantine || o.release {
		return o.change(ctx, p)
	}
	list, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.TestHistories, error) { return c.Flaky(ctx, o.orgID) })
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(p.stdout, list)
	}
	o.print(p, list)
	return nil
}

// change quarantines the named test or lets it count again.
func (o *flakyOptions) change(ctx context.Context, p *program) error {
	done, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (string, error) {
		if o.release {
			return "Counts again", c.Release(ctx, api.ReleaseRequest{OrgID: o.orgID, TestPath: o.test, Title: o.title})
		}
		return "Quarantined", c.Quarantine(ctx, api.QuarantineRequest{OrgID: o.orgID, TestPath: o.test, Title: o.title, Reason: o.reason})
	})
	if err == nil {
		fmt.Fprintf(p.stdout, "%s: %s | %s\n", done, o.test, printable(o.title))
	}
	return err
}

// print shows the tests that are worth a look, and the quarantined ones whatever they are.
func (o *flakyOptions) print(p *program, list api.TestHistories) {
	type name struct{ test, title string }
	quarantined := map[name]qgjob.Quarantine{}
	for _, q := range list.Quarantine {
		quarantined[name{q.TestPath, q.Title}] = q
	}
	var rows [][]string
	for _, t := range list.Tests {
		q, in := quarantined[name{t.TestPath, t.Title}]
		delete(quarantined, name{t.TestPath, t.Title})
		if t.Kind == qgjob.Stable && !in && !o.all {
			continue
		}
		rows = append(rows, []string{
			string(t.Kind), fmt.Sprintf("%.1f %%", 100*t.Probability), fmt.Sprintf("%.1f-%.1f %%", 100*t.Low, 100*t.High),
			fmt.Sprintf("%d/%d", t.Failures, t.Executions), fmt.Sprint(t.Mixed), quarantineWord(q, in), t.TestPath, t.Title,
		})
	}
	for _, q := range list.Quarantine {
		if _, unseen := quarantined[name{q.TestPath, q.Title}]; unseen {
			rows = append(rows, []string{"unknown", "-", "-", "0/0", "0", quarantineWord(q, true), q.TestPath, q.Title})
		}
	}
	if len(rows) == 0 {
		fmt.Fprintln(p.stderr, "No flaky, broken or quarantined tests.")
		return
	}
	p.printTable([]string{"KIND", "PROBABILITY", "INTERVAL", "FAILED", "FLAKY ON", "QUARANTINE", "TEST", "TITLE"}, rows)
}

// quarantineWord is how and why a test is quarantined, if it is.
func quarantineWord(q qgjob.Quarantine, in bool) string {
	switch {
	case !in:
		return "-"
	case q.ByRule:
		return "by rule"
	case q.Reason != "":
		return "by hand: " + oneLine(q.Reason)
	}
	return "by hand"
}
