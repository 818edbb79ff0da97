// Package result keeps what was measured, and turns it into what people read: medians, tables with ratios, the
// aims and whether they are met. Numbers are never written by hand: the README's tables come from here, too.
package result

import (
	"encoding/json"
	"os"
	"slices"

	"qgjob/bench/internal/contest"
)

// The measures.
const (
	Submit  = "submit"  // submits a second, one job each, by clients
	Bulk    = "bulk"    // jobs submitted a second, a hundred a request
	Drain   = "drain"   // jobs done a second, by crews
	Latency = "latency" // milliseconds from submit to start
	Claim   = "claim"   // jobs claimed and done a second, by depth of the queue
	Servers = "servers" // submits a second, by how many servers share a database
	Memory  = "memory"  // bytes of a server
	Depth   = "depth"   // milliseconds, with the deepest queue
	CPU     = "cpu"     // microseconds of a server, and of its database, for a job
)

// Sample is one measured value.
type Sample struct {
	Measure    string  `json:"measure"`
	Contestant string  `json:"contestant"`
	Case       string  `json:"case"`
	Round      int     `json:"round"`
	Value      float64 `json:"value"`
}

// Results is a whole run.
type Results struct {
	Machine  Machine  `json:"machine"`
	Versions []string `json:"versions"`
	Rounds   int      `json:"rounds"`
	Short    bool     `json:"short,omitempty"` // a smoke run: its numbers mean nothing
	Samples  []Sample `json:"samples"`
}

// Load reads results from a file.
func Load(path string) (*Results, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Results{}
	return r, json.Unmarshal(data, r)
}

// Save writes results to a file.
func (r *Results) Save(path string) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// Median is the median of a case over the rounds; ok is false when it was not measured.
func (r *Results) Median(measure, contestant, aCase string) (value float64, ok bool) {
	var values []float64
	for _, s := range r.Samples {
		if s.Measure == measure && s.Contestant == contestant && s.Case == aCase {
			values = append(values, s.Value)
		}
	}
	if len(values) == 0 {
		return 0, false
	}
	return Quantile(values, 0.5), true
}

// Quantile is the value below which a share q of the values lies, the mean of the two nearest in between.
func Quantile(values []float64, q float64) float64 {
	values = slices.Sorted(slices.Values(values))
	at := q * float64(len(values)-1)
	low := int(at)
	high := min(low+1, len(values)-1)
	return values[low] + (at-float64(low))*(values[high]-values[low])
}

// names lists the contestants of a measure, in the order of the tables.
func (r *Results) names(measure string) []string {
	return slices.DeleteFunc(slices.Clone(contest.Names), func(name string) bool {
		return !slices.ContainsFunc(r.Samples, func(s Sample) bool { return s.Measure == measure && s.Contestant == name })
	})
}

// cases lists the cases of a measure as they were first met.
func (r *Results) cases(measure string) []string {
	var cases []string
	for _, s := range r.Samples {
		if s.Measure == measure && !slices.Contains(cases, s.Case) {
			cases = append(cases, s.Case)
		}
	}
	return cases
}
