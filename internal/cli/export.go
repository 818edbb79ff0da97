package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/simulate"
)

type exportOptions struct {
	connection
	orgID           string
	since           age
	workload, fleet string
}

func (p *program) exportCommand() *cobra.Command {
	o := exportOptions{since: age(7 * day)}
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the server's own history as a workload and a fleet for simulate",
		Long: `Export writes what was submitted lately, and how long it ran, as the workload that 'qgjob simulate' reads, and the
devices of live workers and the organizations as its fleet: what would two more phones have changed, or another policy?

A job's duration is its run in the attempt that decided its verdict. Jobs without a verdict, and those that were
canceled before any attempt, are left out and counted on stderr. Retries, and what a job requires beyond its target
(--requires), have no place in a workload. A device's install and reset times are those that were learned of its kind.`,
		Example: `  qgjob export --since 7d --workload w.jsonl --fleet f.json
  qgjob simulate --workload w.jsonl --fleet f.json --devices +2
  qgjob export --since 36h --org-id=qualgent --workload - --fleet f.json | qgjob simulate --workload - --fleet f.json --policy fifo`,
	}
	f := cmd.Flags()
	f.Var(&o.since, "since", "how far back to go, such as 7d or 36h")
	f.StringVar(&o.orgID, "org-id", p.env("QGJOB_ORG"), "only this organization's; also QGJOB_ORG")
	f.StringVar(&o.workload, "workload", "", "`file` to write the jobs to, a JSON object a line; - is stdout (required)")
	f.StringVar(&o.fleet, "fleet", "", "`file` to write the devices and organizations to, JSON (required)")
	p.connectionFlags(f, &o.connection)
	return command(cmd, func(ctx context.Context) error {
		if err := o.parse(); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

func (o *exportOptions) parse() error {
	switch {
	case o.workload == "":
		return exitf(exitUsage, "--workload is missing: name the file to write the jobs to, such as w.jsonl")
	case o.fleet == "" || o.fleet == "-":
		return exitf(exitUsage, "--fleet is missing: name the file to write the devices to, such as f.json")
	}
	if o.orgID != "" {
		if err := qgjob.CheckID("--org-id", o.orgID); err != nil {
			return err
		}
	}
	return o.check()
}

func (o *exportOptions) run(ctx context.Context, p *program) error {
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	fleet, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.Fleet, error) { return c.ExportFleet(ctx, o.orgID) })
	if err != nil {
		return err
	}
	var jobs, leftOut int
	write := func(w io.Writer) (err error) {
		jobs, leftOut, err = o.writeWorkload(ctx, w)
		return err
	}
	if o.workload == "-" {
		err = write(p.stdout)
	} else {
		err = writeFile(o.workload, write)
	}
	if leftOut > 0 {
		fmt.Fprintf(p.stderr, "Jobs left out, because no attempt has brought them to a verdict: %d\n", leftOut)
	}
	if err != nil {
		return err
	}
	if err := writeFile(o.fleet, func(w io.Writer) error { return printJSON(w, simulated(fleet)) }); err != nil {
		return err
	}
	if len(fleet.Devices) == 0 {
		fmt.Fprintf(p.stderr, "No worker is alive: %s has no devices, and simulate needs one. Start a worker, or write them by hand.\n", o.fleet)
	}
	fmt.Fprintf(p.stderr, "Jobs: %d, devices: %d\n", jobs, len(fleet.Devices))
	return nil
}

// writeWorkload writes the jobs page by page, and counts those that it wrote and those that were left out.
func (o *exportOptions) writeWorkload(ctx context.Context, w io.Writer) (jobs, leftOut int, err error) {
	buffer := bufio.NewWriter(w)
	lines := json.NewEncoder(buffer)
	lines.SetEscapeHTML(false)
	query := api.WorkloadQuery{OrgID: o.orgID, Since: time.Now().Add(-time.Duration(o.since))}
	var first int64
	for {
		page, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.Workload, error) { return c.ExportWorkload(ctx, query) })
		if err != nil {
			return jobs, leftOut, err
		}
		leftOut += page.LeftOut
		for _, line := range page.Jobs {
			if jobs == 0 {
				first = line.AtMS
			}
			j := simulate.Job(line)
			j.AtMS = max(j.AtMS-first, 0) // the server's clock may have been set back
			if err := lines.Encode(j); err != nil {
				return jobs, leftOut, err
			}
			jobs++
		}
		if query.Cursor = page.Next; query.Cursor == "" {
			break
		}
	}
	if jobs == 0 {
		return 0, leftOut, exitf(exitUsage, "no job that was submitted in the last %v has run to its verdict: go further back with --since", &o.since)
	}
	return jobs, leftOut, buffer.Flush()
}

// simulated is a fleet as simulate reads it.
func simulated(f api.Fleet) simulate.Fleet {
	out := simulate.Fleet{Devices: make([]simulate.Device, len(f.Devices)), Orgs: make([]simulate.Org, len(f.Orgs))}
	for i, d := range f.Devices {
		out.Devices[i] = simulate.Device(d)
	}
	for i, o := range f.Orgs {
		out.Orgs[i] = simulate.Org(o)
	}
	return out
}

const day = 24 * time.Hour

// age is a flag that takes days, too: 7d, 36h, 1d12h.
type age time.Duration

var ageForm = regexp.MustCompile(`^(?:([0-9]{1,5})d)?(.*)$`)

// Set reads the flag.
func (a *age) Set(text string) error {
	parts := ageForm.FindStringSubmatch(text)
	var total time.Duration
	if parts != nil && parts[1] != "" {
		days, err := strconv.Atoi(parts[1])
		if err != nil {
			return err
		}
		total = time.Duration(days) * day
	}
	if parts != nil && parts[2] != "" {
		rest, err := time.ParseDuration(parts[2])
		if err != nil || rest < 0 {
			return fmt.Errorf("%q is no time: write 7d, 36h or 1d12h", text)
		}
		total += rest
	}
	if total <= 0 {
		return fmt.Errorf("%q is no time: write 7d, 36h or 1d12h", text)
	}
	*a = age(total)
	return nil
}

// String shows whole days as days.
func (a *age) String() string {
	if d := time.Duration(*a); d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return time.Duration(*a).String()
}

// Type names the flag's value in help texts.
func (a *age) Type() string { return "time" }
