package result

import (
	"fmt"
	"strings"

	"qgjob/bench/internal/contest"
)

// aim is something that the queue is to reach.
type aim struct {
	text     string
	measured func(*Results) (value float64, ok bool)
	unit     string // "×", or a measure whose format the value has
	least    float64
	most     float64 // where least is zero
}

// aims prints which aims are met. What was not measured is left out.
func (r *Results) aims() string {
	rows := [][]string{{"aim", "bound", "measured", "met"}}
	for _, a := range allAims() {
		v, ok := a.measured(r)
		if !ok {
			continue
		}
		bound, met := "at least "+a.format(a.least), v >= a.least
		if a.least == 0 {
			bound, met = "at most "+a.format(a.most), v <= a.most
		}
		rows = append(rows, []string{a.text, bound, a.format(v), map[bool]string{true: "yes", false: "**no**"}[met]})
	}
	if len(rows) == 1 {
		return ""
	}
	return "### Aims\n\n" + Markdown(rows)
}

func (a aim) format(v float64) string {
	if a.unit == "×" {
		return ratio(v) + "×"
	}
	return Format(a.unit, v)
}

func allAims() []aim {
	var aims []aim
	for _, q := range []string{contest.QgjobSQLite, contest.QgjobPostgres} {
		aims = append(aims,
			submitAim(q, "1 client", 1), submitAim(q, "16 clients", 3), submitAim(q, "64 clients", 3))
		if q == contest.QgjobSQLite {
			for _, c := range []string{"1 client", "16 clients", "64 clients"} {
				aims = append(aims, aim{text: q + ": submits by " + c + ", times the bare server's", unit: "×", least: 0.5, measured: timesBest(Submit, q, c, contest.Bare)})
			}
		}
		for _, c := range []string{"16 workers", "64 workers", "256 workers"} {
			aims = append(aims, aim{text: q + ": drain by " + c + ", times River's best", unit: "×", least: 1, measured: timesBest(Drain, q, c, contest.RiverTuned, contest.RiverHTTPTuned)})
		}
		aims = append(aims,
			aim{text: q + ": drain by workers of many devices", unit: Drain, least: 41_000, measured: func(r *Results) (float64, bool) {
				return r.best(Drain, []string{q}, "4 × 20 devices", "2 × 100 devices")
			}},
			aim{text: q + ": submit to start, p50", unit: Latency, most: 1.5, measured: plainly(Latency, q, "p50")},
			aim{text: q + ": submit to start, p99", unit: Latency, most: 3, measured: plainly(Latency, q, "p99")},
			aim{text: q + ": claims at a million queued, times those at a thousand", unit: "×", least: 0.85, measured: func(r *Results) (float64, bool) {
				deep, ok := r.Median(Claim, q, "1 million queued")
				shallow, known := r.Median(Claim, q, "1 thousand queued")
				return deep / shallow, ok && known
			}},
			aim{text: q + ": memory, idle", unit: Memory, most: 64 << 20, measured: plainly(Memory, q, "idle")},
			aim{text: q + ": memory, a million queued", unit: Memory, most: 256 << 20, measured: plainly(Memory, q, "1 million queued")},
			aim{text: q + ": qgjob status, whole process", unit: Depth, most: 50, measured: plainly(Depth, q, "qgjob status, whole process")},
			aim{text: q + ": server start, a million queued", unit: Depth, most: 2000, measured: plainly(Depth, q, "server start until healthy")},
			aim{text: q + ": slowest listing page, a million queued", unit: Depth, most: 20, measured: func(r *Results) (slowest float64, ok bool) {
				for _, c := range r.cases(Depth) {
					if v, known := r.Median(Depth, q, c); known && strings.HasPrefix(c, "listing page") {
						slowest, ok = max(slowest, v), true
					}
				}
				return slowest, ok
			}},
		)
	}
	return aims
}

func submitAim(q, clients string, times float64) aim {
	return aim{
		text: fmt.Sprintf("%s: submits by %s, times River's best over HTTP", q, clients), unit: "×", least: times,
		measured: timesBest(Submit, q, clients, contest.RiverHTTPTuned, contest.RiverHTTP),
	}
}

func plainly(measure, q, aCase string) func(*Results) (float64, bool) {
	return func(r *Results) (float64, bool) { return r.Median(measure, q, aCase) }
}

// timesBest is q's value as a multiple of the best of others.
func timesBest(measure, q, aCase string, others ...string) func(*Results) (float64, bool) {
	return func(r *Results) (float64, bool) {
		v, ok := r.Median(measure, q, aCase)
		base, known := r.best(measure, others, aCase)
		return v / base, ok && known
	}
}

// best is the highest median of contestants and cases.
func (r *Results) best(measure string, names []string, cases ...string) (best float64, ok bool) {
	for _, name := range names {
		for _, c := range cases {
			if v, known := r.Median(measure, name, c); known {
				best, ok = max(best, v), true
			}
		}
	}
	return best, ok
}
