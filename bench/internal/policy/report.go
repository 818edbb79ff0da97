package policy

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"qgjob/internal/simulate"
)

// aim is one of what the scheduler is to reach.
type aim struct {
	text string
	miss []string // where it is missed
}

// met compares with a per cent of tolerance: seeds differ by more.
func met(got, limit float64) bool { return got <= limit*1.01 }

// aims says what is met.
func (r *Results) aims() []*aim {
	urgent := &aim{text: "mean wait of the most urgent level: no worse than `priority`'s"}
	completion := &aim{text: "mean completion of the most urgent runs: no worse than `priority`'s"}
	installs := &aim{text: "installs: at most two thirds of `priority`'s at 90 % load, at most half at 130 %, never more than `fifo`'s"}
	runs := &aim{text: "mean run completion: at least 10 % below `priority`'s at 90 % load and above"}
	for _, row := range r.Rows {
		ours, priority := row.Of["ours"], row.Of["priority"]
		note := func(a *aim, got, limit float64) {
			if !met(got, limit) {
				a.miss = append(a.miss, fmt.Sprintf("%s: %.2f times the limit", row.Cell, got/limit))
			}
		}
		note(urgent, ours.UrgentMean, priority.UrgentMean)
		note(completion, ours.UrgentCompletion, priority.UrgentCompletion)
		note(installs, ours.InstallsOfJob, row.Of["fifo"].InstallsOfJob)
		switch {
		case row.Load > 1:
			note(installs, ours.InstallsOfJob, priority.InstallsOfJob/2)
			note(runs, ours.Completion, 0.9*priority.Completion)
		case row.Load >= 0.9:
			note(installs, ours.InstallsOfJob, priority.InstallsOfJob*2/3)
			note(runs, ours.Completion, 0.9*priority.Completion)
		}
	}
	makespan := &aim{text: "makespan of a closed burst: within 5 % of its lower bound, on average"}
	for _, c := range r.Closed {
		if !met(c.Mean["ours"], 1.05) {
			makespan.miss = append(makespan.miss, fmt.Sprintf("%s: %.3f", c, c.Mean["ours"]))
		}
	}
	decision := &aim{text: "one decision for 1,000 devices and 10,000 groups: under 5 ms"}
	for _, d := range r.Decisions {
		if d.Devices == 1_000 && d.Groups == 10_000 && d.Took > 5*time.Millisecond {
			decision.miss = append(decision.miss, fmt.Sprintf("%s: %s", d.kind(), d.Took.Round(10*time.Microsecond)))
		}
	}
	return []*aim{urgent, completion, installs, runs, makespan, decision}
}

func (c ClosedRow) String() string {
	sizes := "of random sizes"
	if c.Equal {
		sizes = "alike"
	}
	return fmt.Sprintf("%d devices, %d jobs a device, %d versions %s", c.Devices, c.JobsOfDevice, c.Versions, sizes)
}

func (d Decision) kind() string {
	if d.Fresh {
		return "over a new snapshot"
	}
	return "by a planner that follows"
}

// Report is everything as Markdown.
func (r *Results) Report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d seeds, %v virtual hours of pushes each.\n\n| aim | |\n| --- | --- |\n", r.Seeds, r.Hours)
	for _, a := range r.aims() {
		verdict := "met"
		if len(a.miss) > 0 {
			verdict = "missed: " + strings.Join(a.miss, "; ")
		}
		fmt.Fprintf(&b, "| %s | %s |\n", a.text, verdict)
	}
	table := func(title string, of func(Numbers) float64, format string) {
		fmt.Fprintf(&b, "\n### %s\n\n| | %s |\n| --- |%s\n", title, strings.Join(simulate.Policies, " | "), strings.Repeat(" ---: |", len(simulate.Policies)))
		for _, row := range r.Rows {
			fmt.Fprintf(&b, "| %s |", row.Cell)
			base := of(row.Of["priority"])
			for _, p := range simulate.Policies {
				fmt.Fprintf(&b, " "+format+" (%.2f) |", of(row.Of[p]), of(row.Of[p])/base)
			}
			b.WriteString("\n")
		}
	}
	table("Mean wait of the most urgent level, seconds (of `priority`'s)", func(n Numbers) float64 { return n.UrgentMean }, "%.1f")
	table("P95 of the wait of the most urgent level, seconds (of `priority`'s)", func(n Numbers) float64 { return n.UrgentP95 }, "%.1f")
	table("Mean completion of the most urgent runs, seconds (of `priority`'s)", func(n Numbers) float64 { return n.UrgentCompletion }, "%.0f")
	table("Installs a job (of `priority`'s)", func(n Numbers) float64 { return n.InstallsOfJob }, "%.3f")
	table("Mean run completion, seconds (of `priority`'s)", func(n Numbers) float64 { return n.Completion }, "%.0f")
	fmt.Fprintf(&b, "\n### Makespan of a closed burst by its lower bound, on average (at worst)\n\n| | %s |\n| --- |%s\n", strings.Join(simulate.Policies, " | "), strings.Repeat(" ---: |", len(simulate.Policies)))
	for _, c := range r.Closed {
		fmt.Fprintf(&b, "| %s |", c)
		for _, p := range simulate.Policies {
			fmt.Fprintf(&b, " %.3f (%.3f) |", c.Mean[p], c.Worst[p])
		}
		b.WriteString("\n")
	}
	b.WriteString("\n### One decision\n\n| devices | groups | | |\n| ---: | ---: | --- | ---: |\n")
	for _, d := range r.Decisions {
		fmt.Fprintf(&b, "| %d | %d | %s | %.3f ms |\n", d.Devices, d.Groups, d.kind(), d.Took.Seconds()*1000)
	}
	b.WriteString("\n### Jobs that started by the P90 that was predicted when they were submitted\n\n| | |\n| --- | ---: |\n")
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "| %s | %.1f %% |\n", row.Cell, 100*row.Of["ours"].StartedByP90)
	}
	return b.String()
}

// The markers of the part of a page that is the report.
const (
	begin = "<!-- results: written by schedbench -page, not by hand -->\n"
	end   = "<!-- end of results -->\n"
)

// WritePage replaces what is between the markers of a page by the report.
func (r *Results) WritePage(path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := bytes.Cut(page, []byte(begin))
	_, after, ended := bytes.Cut(rest, []byte(end))
	if !found || !ended {
		return fmt.Errorf("%s has no part between %q and %q", path, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%s%s\n%s\n%s%s", before, begin, r.Report(), end, after), 0o644)
}
