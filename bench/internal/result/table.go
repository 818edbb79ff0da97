package result

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"qgjob/bench/internal/contest"
)

// tables are the tables of a report. Ratios are to the reference's value of the same case, or, where the reference
// is empty, to the contestant's own first case; none has neither.
var tables = []struct {
	measure, title, reference string
	none                      bool
}{
	{measure: Submit, title: "Durable submits a second, one job each (times River over HTTP, tuned)", reference: contest.RiverHTTPTuned},
	{measure: Bulk, title: "Jobs submitted a second, a hundred a request (times River over HTTP, tuned)", reference: contest.RiverHTTPTuned},
	{measure: Drain, title: "No-op jobs done a second (times River in process, tuned)", reference: contest.RiverTuned},
	{measure: Latency, title: "From submit to start on an idle queue, of the bare server to the answer (times River in process, tuned)", reference: contest.RiverTuned},
	{measure: Claim, title: "Jobs claimed and done a second by 64 workers, in bursts of 500 (times the first column)"},
	{measure: Servers, title: "Durable submits a second by 16 clients to servers of one PostgreSQL (times the first column)"},
	{measure: Memory, title: "Resident memory of the server", none: true},
	{measure: Depth, title: "With the deepest queue", none: true},
	{measure: CPU, title: "Processor time for a job, server and database together", none: true},
}

// Report is everything as Markdown.
func (r *Results) Report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. %s. Medians of %d rounds.\n", r.Machine, strings.Join(r.Versions, ", "), r.Rounds)
	if r.Short {
		b.WriteString("\nA short run: these numbers mean nothing.\n")
	}
	b.WriteString("\n" + r.aims())
	for _, t := range tables {
		names := r.names(t.measure)
		if len(names) == 0 {
			continue
		}
		cases := r.cases(t.measure)
		rows := [][]string{append([]string{""}, cases...)}
		for _, name := range names {
			row := []string{name}
			for _, c := range cases {
				row = append(row, r.cell(t.measure, name, c, t.reference, t.none))
			}
			rows = append(rows, row)
		}
		if len(names) < len(cases) && t.none {
			rows = transpose(rows)
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s", t.title, Markdown(rows))
	}
	return b.String()
}

func (r *Results) cell(measure, name, aCase, reference string, none bool) string {
	v, ok := r.Median(measure, name, aCase)
	if !ok {
		return ""
	}
	text := Format(measure, v)
	base, known := r.Median(measure, reference, aCase)
	if reference == "" {
		base, known = r.Median(measure, name, r.cases(measure)[0])
	}
	if none || !known || name == reference {
		return text
	}
	return fmt.Sprintf("%s (%s×)", text, ratio(v/base))
}

func ratio(v float64) string { return fmt.Sprintf("%.*f", decimals(v), v) }

// Format is a value of a measure as people read it.
func Format(measure string, v float64) string {
	switch measure {
	case Latency, Depth:
		return fmt.Sprintf("%.*f ms", decimals(v), v)
	case CPU:
		return fmt.Sprintf("%.0f µs", v)
	case Memory:
		if v < 1<<20 {
			return fmt.Sprintf("%.0f KiB", v/(1<<10))
		}
		return fmt.Sprintf("%.0f MiB", v/(1<<20))
	}
	return thousands(v)
}

// decimals leaves a number three digits.
func decimals(v float64) int { return max(0, 2-int(math.Log10(max(v, 1)))) }

// thousands is a number of three digits that count, grouped.
func thousands(v float64) string {
	step := math.Pow(10, max(0, math.Floor(math.Log10(max(v, 1)))-2))
	digits := fmt.Sprintf("%.0f", math.Round(v/step)*step)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func transpose(rows [][]string) [][]string {
	turned := make([][]string, len(rows[0]))
	for i := range turned {
		for _, row := range rows {
			turned[i] = append(turned[i], row[i])
		}
	}
	return turned
}

// Markdown is a table whose columns are aligned in the text, too: the first to the left, numbers to the right.
func Markdown(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)), 3)
		}
	}
	line := func(row []string) string {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-len([]rune(cell)))
			if i == 0 {
				b.WriteString("| " + cell + pad + " |")
			} else {
				b.WriteString(" " + pad + cell + " |")
			}
		}
		return b.String() + "\n"
	}
	rule := make([]string, len(widths))
	for i, w := range widths {
		rule[i] = strings.Repeat("-", w-1) + ":"
	}
	rule[0] = strings.Repeat("-", widths[0])
	out := line(rows[0]) + line(rule)
	for _, row := range rows[1:] {
		out += line(row)
	}
	return out
}

// The markers around the part of a README that is generated.
const (
	begin = "<!-- results: written by queuebench -readme, not by hand -->\n"
	end   = "<!-- end of results -->\n"
)

// WriteReadme replaces what is between the markers of a README by the report.
func (r *Results) WriteReadme(path string) error { return WriteBetween(path, begin, end, r.Report()) }

// WriteBetween replaces what is between two marker lines of a file.
func WriteBetween(path, begin, end, text string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(data, []byte(begin))
	_, after, ended := bytes.Cut(rest, []byte(end))
	if !ok || !ended {
		return fmt.Errorf("%s has no lines %q and %q to write the results between", path, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return os.WriteFile(path, slices.Concat(before, []byte(begin+"\n"+text+"\n"+end), after), 0o644)
}
