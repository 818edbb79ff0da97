package result

import (
	"strings"

	"qgjob/bench/internal/contest"
)

// aim is something that a contestant is to reach.
type aim struct {
	who, text string
	measured  measurement
	unit      string // "×", or a measure whose format the value has
	least     float64
	most      float64  // where least is zero
	beside    []string // contestants that show what bounds it
}

// measurement is how a contestant's value is found.
type measurement func(r *Results, who string) (value float64, ok bool)

// aims prints which aims are met. What was not measured is left out.
func (r *Results) aims() string {
	rows := [][]string{{"aim", "bound", "measured", "met", "beside it"}}
	for _, a := range allAims() {
		v, ok := a.measured(r, a.who)
		if !ok {
			continue
		}
		bound, met := "at least "+a.format(a.least), v >= a.least
		if a.least == 0 {
			bound, met = "at most "+a.format(a.most), v <= a.most
		}
		var beside []string
		for _, name := range a.beside {
			if v, ok := a.measured(r, name); ok {
				beside = append(beside, name+": "+a.format(v))
			}
		}
		rows = append(rows, []string{a.who + ": " + a.text, bound, a.format(v), map[bool]string{true: "yes", false: "**no**"}[met], strings.Join(beside, "; ")})
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
	for _, q := range []struct{ who, inside, alone string }{
		{contest.QgjobSQLite, contest.InsideSQLite, contest.SQLite},
		{contest.QgjobPostgres, contest.InsidePostgres, contest.Postgres},
	} {
		add := func(more ...aim) {
			for _, a := range more {
				a.who = q.who
				aims = append(aims, a)
			}
		}
		limits := []string{q.alone}
		if q.who == contest.QgjobSQLite {
			limits = []string{contest.Bare, q.alone}
		}
		for _, c := range []struct {
			clients string
			times   float64
		}{{"1 client", 1}, {"16 clients", 3}, {"64 clients", 3}} {
			add(aim{
				text: "submits by " + c.clients + ", times River's best over HTTP", unit: "×", least: c.times, beside: limits,
				measured: timesBest(Submit, c.clients, contest.RiverHTTPTuned, contest.RiverHTTP),
			})
		}
		if q.who == contest.QgjobSQLite {
			for _, c := range []string{"1 client", "16 clients", "64 clients"} {
				add(aim{text: "submits by " + c + ", times the bare server's", unit: "×", least: 0.5, measured: timesBest(Submit, c, contest.Bare)})
			}
		}
		for _, c := range []string{"16 workers", "64 workers", "256 workers"} {
			add(
				aim{text: "drain by " + c + ", times River's over HTTP", unit: "×", least: 1, measured: timesBest(Drain, c, contest.RiverHTTPTuned)},
				aim{text: "drain by " + c + ", times River's best", unit: "×", least: 1, beside: []string{q.inside}, measured: timesBest(Drain, c, contest.RiverTuned, contest.RiverHTTPTuned)},
			)
		}
		add(
			aim{text: "drain by workers of many devices", unit: Drain, least: 41_000, beside: []string{contest.RiverHTTPTuned, q.inside}, measured: func(r *Results, who string) (float64, bool) {
				return r.best(Drain, []string{who}, "4 × 20 devices", "2 × 100 devices")
			}},
			aim{text: "submit to start, p50", unit: Latency, most: 1.5, beside: append(limits, q.inside), measured: plainly(Latency, "p50")},
			aim{text: "submit to start, p99", unit: Latency, most: 3, beside: append(limits, q.inside), measured: plainly(Latency, "p99")},
			aim{text: "claims at a million queued, times those at a thousand", unit: "×", least: 0.85, measured: func(r *Results, who string) (float64, bool) {
				deep, ok := r.Median(Claim, who, "1 million queued")
				shallow, known := r.Median(Claim, who, "1 thousand queued")
				return deep / shallow, ok && known
			}},
			aim{text: "memory, idle", unit: Memory, most: 64 << 20, measured: plainly(Memory, "idle")},
			aim{text: "memory, a million queued", unit: Memory, most: 256 << 20, measured: plainly(Memory, "1 million queued")},
			aim{text: "qgjob status, whole process", unit: Depth, most: 50, measured: plainly(Depth, "qgjob status, whole process")},
			aim{text: "server start, a million queued", unit: Depth, most: 2000, measured: plainly(Depth, "server start until healthy")},
			aim{text: "slowest listing page, a million queued", unit: Depth, most: 20, measured: func(r *Results, who string) (slowest float64, ok bool) {
				for _, c := range r.cases(Depth) {
					if v, known := r.Median(Depth, who, c); known && strings.HasPrefix(c, "listing page") {
						slowest, ok = max(slowest, v), true
					}
				}
				return slowest, ok
			}},
		)
	}
	return aims
}

func plainly(measure, aCase string) measurement {
	return func(r *Results, who string) (float64, bool) { return r.Median(measure, who, aCase) }
}

// timesBest is a value as a multiple of the best of others.
func timesBest(measure, aCase string, others ...string) measurement {
	return func(r *Results, who string) (float64, bool) {
		v, ok := r.Median(measure, who, aCase)
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
