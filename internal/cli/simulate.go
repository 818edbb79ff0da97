package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"qgjob/internal/simulate"
)

type simulateOptions struct {
	workload, fleet string
	policy          string
	devices         string
	more            int // devices
	trace, chart    string
	json            bool
}

func (p *program) simulateCommand() *cobra.Command {
	var o simulateOptions
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Run the scheduler over a workload in virtual time",
		Long: `simulate runs the scheduler of the server over a workload and a fleet, in virtual time: a hundred thousand jobs
take seconds. It needs no server. It prints a table on a terminal; otherwise the table goes to stderr and a summary
in JSON to stdout.

Workload, a line a job; the scheduler does not look at duration_ms before the job has ended:
  {"id":"j1","at_ms":0,"org":"a","app_version":"v1","test":"tests/x.spec.ts","priority":3,"target":"device","run":"r1","duration_ms":41000}
Fleet (max_devices 0 is no limit):
  {"devices":[{"id":"d1","target":"device","install_ms":45000,"reset_ms":1500}],"orgs":[{"id":"a","weight":1,"max_devices":0}]}
Trace, a line an assignment:
  {"job":"j1","device":"d1","start_ms":0,"install_ms":45000,"reset_ms":0,"end_ms":86000,"reason":"..."}

Policies: ours; fifo (by submission); priority (priority, then submission); version-sort (app version, then priority,
then submission); affinity (own app first, whatever the priority). A lower priority is more urgent.`,
		Example: `  qgjob simulate --workload w.jsonl --fleet f.json
  qgjob simulate --workload w.jsonl --fleet f.json --devices +2
  qgjob simulate --workload w.jsonl --fleet f.json --policy fifo --trace t.jsonl --chart gantt.svg`,
	}
	f := cmd.Flags()
	f.StringVar(&o.workload, "workload", "", "`file` of jobs, a JSON object a line; - is stdin")
	f.StringVar(&o.fleet, "fleet", "", "`file` of devices and organizations, JSON")
	f.StringVar(&o.policy, "policy", simulate.Policies[0], "who decides: "+strings.Join(simulate.Policies, ", "))
	f.StringVar(&o.devices, "devices", "", "change the fleet by so many devices, +2 or -1, and print the difference that it makes")
	f.StringVar(&o.trace, "trace", "", "write each assignment to this `file`")
	f.StringVar(&o.chart, "chart", "", "draw what each device did into this SVG `file`, installs dark")
	f.BoolVar(&o.json, "json", false, "print JSON, also on a terminal")
	completeWords(cmd, "policy", simulate.Policies...)
	return command(cmd, func(context.Context) error {
		if err := o.parse(); err != nil {
			return err
		}
		return o.run(p)
	})
}

var change = regexp.MustCompile(`^[+-][0-9]{1,5}$`)

func (o *simulateOptions) parse() error {
	switch {
	case o.workload == "":
		return exitf(exitUsage, "--workload is missing: name a file with a job a line (see --help for its form)")
	case o.fleet == "":
		return exitf(exitUsage, "--fleet is missing: name a file with the devices (see --help for its form)")
	case !slices.Contains(simulate.Policies, o.policy):
		return exitf(exitUsage, "--policy %q is unknown: use one of %s", o.policy, strings.Join(simulate.Policies, ", "))
	case o.devices == "":
		return nil
	case !change.MatchString(o.devices):
		return exitf(exitUsage, "--devices %q is no change: write +2 for two more, -1 for one fewer", o.devices)
	}
	var err error
	o.more, err = strconv.Atoi(o.devices)
	return err
}

// simulation is what simulate prints.
type simulation struct {
	simulate.Summary
	Before     *simulate.Summary    `json:"before,omitempty"` // of the fleet as it is, with --devices
	Difference *simulate.Difference `json:"difference,omitempty"`
}

func (o *simulateOptions) run(p *program) error {
	workload, err := readFile(p, o.workload, simulate.ReadWorkload)
	if err != nil {
		return err
	}
	fleet, err := readFile(p, o.fleet, simulate.ReadFleet)
	if err != nil {
		return err
	}
	var out simulation
	if o.more != 0 {
		_, before, err := o.simulate(workload, fleet)
		if err != nil {
			return err
		}
		out.Before = &before
		if fleet, err = fleet.Resize(o.more); err != nil {
			return err
		}
	}
	result, summary, err := o.simulate(workload, fleet)
	if err != nil {
		return err
	}
	out.Summary = summary
	if out.Before != nil {
		d := summary.Since(*out.Before)
		out.Difference = &d
	}
	if err := o.write(result, fleet); err != nil {
		return err
	}
	return o.print(p, out)
}

func (o *simulateOptions) simulate(workload []simulate.Job, fleet simulate.Fleet) (*simulate.Result, simulate.Summary, error) {
	start := time.Now()
	result, err := simulate.Run(workload, fleet, o.policy)
	if err != nil {
		return nil, simulate.Summary{}, err
	}
	took := time.Since(start)
	s := simulate.Summarize(result, fleet, o.policy)
	s.DecisionsPerSecond = float64(s.Decisions) / max(took.Seconds(), 1e-9)
	return result, s, nil
}

// readFile reads a file in one of simulate's formats, and says which fields of it nobody reads.
func readFile[T any](p *program, name string, read func(io.Reader, string) (T, []string, error)) (v T, err error) {
	in := p.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return v, exitf(exitUsage, "%v", err)
		}
		defer f.Close()
		in = f
	}
	v, unknown, err := read(in, name)
	if err == nil && len(unknown) > 0 {
		fmt.Fprintf(p.stderr, "%s: fields that simulate does not know are ignored: %s\n", name, strings.Join(unknown, ", "))
	}
	return v, err
}

// write writes the files that were asked for.
func (o *simulateOptions) write(r *simulate.Result, fleet simulate.Fleet) error {
	if o.trace != "" {
		err := writeFile(o.trace, func(w io.Writer) error {
			buffer := bufio.NewWriter(w)
			lines := json.NewEncoder(buffer)
			lines.SetEscapeHTML(false)
			for _, a := range r.Trace {
				if err := lines.Encode(a); err != nil {
					return err
				}
			}
			return buffer.Flush()
		})
		if err != nil {
			return err
		}
	}
	if o.chart == "" {
		return nil
	}
	title := fmt.Sprintf("%d jobs on %d devices, policy %s: %d installs", len(r.Trace), len(fleet.Devices), o.policy, r.Installs)
	return writeFile(o.chart, func(w io.Writer) error { return simulate.Chart(w, r, fleet, title) })
}

// print shows a table on a terminal; elsewhere JSON on stdout, for programs, and the table on stderr, for people.
func (o *simulateOptions) print(p *program, s simulation) error {
	if _, _, terminal := p.styled(); terminal && !o.json {
		p.printTable(s.table())
		return nil
	}
	if !o.json {
		plain := *p
		plain.stdout, plain.plain = p.stderr, true
		plain.printTable(s.table())
	}
	return printJSON(p.stdout, s)
}

// table is a simulation for people: a row a number, with --devices also what it was and what changed.
func (s simulation) table() (headers []string, rows [][]string) {
	headers = []string{"", strings.ToUpper(s.Policy)}
	if s.Before != nil {
		headers = []string{"", fmt.Sprintf("%d DEVICES", s.Before.Devices), fmt.Sprintf("%d DEVICES", s.Devices), "DIFFERENCE"}
	}
	add := func(name string, of func(simulate.Summary) float64, show func(float64) string) {
		row := []string{name}
		if s.Before != nil {
			row = append(row, show(of(*s.Before)))
		}
		row = append(row, show(of(s.Summary)))
		if s.Before != nil {
			d := of(s.Summary) - of(*s.Before)
			row = append(row, signed(d, show))
		}
		rows = append(rows, row)
	}
	count := func(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) }
	share := func(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }
	spell := func(v float64) string { return roughly(time.Duration(v * float64(time.Millisecond))) }
	add("jobs", func(s simulate.Summary) float64 { return float64(s.Jobs) }, count)
	add("makespan", func(s simulate.Summary) float64 { return float64(s.MakespanMS) }, spell)
	add("installs", func(s simulate.Summary) float64 { return float64(s.Installs) }, count)
	if s.Cost > 0 || s.Before != nil && s.Before.Cost > 0 {
		add("cost", func(s simulate.Summary) float64 { return s.Cost }, func(v float64) string { return fmt.Sprintf("%.2f", v) })
	}
	add("devices in use", func(s simulate.Summary) float64 { return s.DeviceUtilization }, share)
	for _, priority := range slices.Sorted(maps.Keys(s.WaitMS)) {
		name := fmt.Sprintf("priority %d: wait ", priority)
		add(name+"mean", func(s simulate.Summary) float64 { return s.WaitMS[priority].Mean }, spell)
		add(name+"P50", func(s simulate.Summary) float64 { return float64(s.WaitMS[priority].P50) }, spell)
		add(name+"P95", func(s simulate.Summary) float64 { return float64(s.WaitMS[priority].P95) }, spell)
		add(name+"max", func(s simulate.Summary) float64 { return float64(s.WaitMS[priority].Max) }, spell)
	}
	add("run completion mean", func(s simulate.Summary) float64 { return s.RunCompletionMS.Mean }, spell)
	add("run completion P95", func(s simulate.Summary) float64 { return float64(s.RunCompletionMS.P95) }, spell)
	for _, id := range slices.Sorted(maps.Keys(s.Orgs)) {
		add(id+": slowdown", func(s simulate.Summary) float64 { return s.Orgs[id].Slowdown }, func(v float64) string { return fmt.Sprintf("%.2f", v) })
	}
	if s.ETA != nil {
		add("started by their P50", func(s simulate.Summary) float64 { return s.ETA.StartedByP50 }, share)
		add("started by their P90", func(s simulate.Summary) float64 { return s.ETA.StartedByP90 }, share)
	}
	add("decisions a second", func(s simulate.Summary) float64 { return s.DecisionsPerSecond }, count)
	return headers, rows
}

// signed shows a difference.
func signed(v float64, show func(float64) string) string {
	if v < 0 {
		return "-" + show(-v)
	}
	return "+" + show(v)
}
