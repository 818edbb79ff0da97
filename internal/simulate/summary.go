package simulate

import (
	"cmp"
	"slices"
)

// ETA says how well the expected starts, as predicted at submit, were calibrated.
type ETA struct {
	Jobs         int     `json:"jobs"`
	StartedByP50 float64 `json:"started_by_p50"` // share of jobs
	StartedByP90 float64 `json:"started_by_p90"`
}

// Summary is a simulation in numbers. Times are milliseconds.
type Summary struct {
	Policy             string               `json:"policy"`
	Jobs               int                  `json:"jobs"`
	Devices            int                  `json:"devices"`
	MakespanMS         int64                `json:"makespan_ms"` // from the first submit to the last end
	Installs           int                  `json:"installs"`
	DeviceUtilization  float64              `json:"device_utilization"` // share of the devices' time that installs, resets and tests took
	WaitMS             map[int]Distribution `json:"wait_ms"`            // from submit to start, by priority
	RunCompletionMS    Distribution         `json:"run_completion_ms"`  // from a run's first submit to its last end
	Orgs               map[string]OrgTotals `json:"orgs"`
	Cost               float64              `json:"cost,omitempty"` // of devices that have a price
	ETA                *ETA                 `json:"eta"`
	Decisions          int                  `json:"decisions"`
	DecisionsPerSecond float64              `json:"decisions_per_second"` // of real time; whoever has a clock fills it in
}

// Distribution is numbers of one kind.
type Distribution struct {
	Count int     `json:"count"`
	Mean  float64 `json:"mean"`
	P50   int64   `json:"p50"`
	P95   int64   `json:"p95"`
	Max   int64   `json:"max"`
}

// OrgTotals is what an organization got.
type OrgTotals struct {
	Jobs     int     `json:"jobs"`
	DeviceMS int64   `json:"device_ms"` // installs, resets and tests
	Slowdown float64 `json:"slowdown"`  // mean over its jobs of (end - submit) / (install + reset + duration)
}

// Summarize puts a result in numbers.
func Summarize(r *Result, fleet Fleet, policy string) Summary {
	s := Summary{
		Policy: policy, Jobs: len(r.Trace), Devices: len(fleet.Devices), WaitMS: map[int]Distribution{},
		Orgs: map[string]OrgTotals{}, Installs: r.Installs, Cost: r.Cost, ETA: r.ETA, Decisions: r.Decisions,
	}
	type extent struct{ first, last int64 }
	waits := map[int][]int64{}
	runs := map[submission]extent{}
	var busy int64
	whole := extent{-1, 0}
	for i, a := range r.Trace {
		j := r.Jobs[i]
		took := a.EndMS - a.StartMS
		busy += took
		waits[j.Priority] = append(waits[j.Priority], a.StartMS-j.AtMS)
		o := s.Orgs[j.Org]
		o.Jobs++
		o.DeviceMS += took
		o.Slowdown += float64(a.EndMS-j.AtMS) / float64(max(took, 1))
		s.Orgs[j.Org] = o
		key := j.submission()
		e, ok := runs[key]
		if !ok || j.AtMS < e.first {
			e.first = j.AtMS
		}
		e.last = max(e.last, a.EndMS)
		runs[key] = e
		if whole.first < 0 || j.AtMS < whole.first {
			whole.first = j.AtMS
		}
		whole.last = max(whole.last, a.EndMS)
	}
	if len(r.Trace) > 0 {
		s.MakespanMS = whole.last - whole.first
		s.DeviceUtilization = float64(busy) / float64(max(s.MakespanMS*int64(len(fleet.Devices)), 1))
	}
	for id, o := range s.Orgs {
		o.Slowdown /= float64(o.Jobs)
		s.Orgs[id] = o
	}
	for priority, w := range waits {
		s.WaitMS[priority] = distribution(w)
	}
	var completions []int64
	for _, e := range runs {
		completions = append(completions, e.last-e.first)
	}
	s.RunCompletionMS = distribution(completions)
	return s
}

func distribution(v []int64) Distribution {
	if len(v) == 0 {
		return Distribution{}
	}
	slices.SortFunc(v, cmp.Compare)
	var sum float64
	for _, x := range v {
		sum += float64(x)
	}
	rank := func(q float64) int64 { return v[max(0, int(q*float64(len(v))+0.999999)-1)] }
	return Distribution{Count: len(v), Mean: sum / float64(len(v)), P50: rank(0.5), P95: rank(0.95), Max: v[len(v)-1]}
}
