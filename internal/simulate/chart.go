package simulate

import (
	"bufio"
	"cmp"
	"fmt"
	"hash/fnv"
	"html"
	"io"
	"slices"
)

// Sizes of a chart, in pixels.
const (
	chartWidth  = 1600
	chartLabel  = 110
	chartRow    = 18
	chartTop    = 44
	chartBottom = 14
	chartLegend = 30
	leastBar    = 0.6 // bars that are narrower become one with the next of their app
)

// bar is a stretch of a device's time.
type bar struct {
	from, to int64
	app      app
	install  bool
	jobs     int
	title    string
}

// Chart writes a result as a Gantt chart in SVG: a row a device, a colour an app version, installs dark.
func Chart(w io.Writer, r *Result, fleet Fleet, title string) error {
	b := bufio.NewWriter(w)
	first, last := extentOf(r)
	scale := float64(chartWidth-chartLabel-10) / float64(max(last-first, 1))
	x := func(ms int64) float64 { return chartLabel + float64(ms-first)*scale }
	bottom := chartTop + chartRow*len(fleet.Devices)
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", chartWidth, bottom+chartBottom+chartLegend)
	fmt.Fprintf(b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="8" y="16" font-size="13">%s</text>`+"\n", html.EscapeString(title))
	for _, ms := range ticks(first, last) {
		fmt.Fprintf(b, `<path d="M%.1f %dV%d" stroke="#ddd"/><text x="%.1f" y="%d" fill="#777" text-anchor="middle">%s</text>`+"\n",
			x(ms), chartTop-4, bottom, x(ms), chartTop-8, clock(ms-first))
	}
	bars := barsOf(r, leastBar/scale)
	for i, d := range fleet.Devices {
		y := chartTop + chartRow*i
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", chartLabel-6, y+chartRow-5, html.EscapeString(d.ID))
		for _, s := range bars[d.ID] {
			fill := colour(s.app)
			if s.install {
				fill = "#333"
			}
			fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" stroke="#fff" stroke-width=".3"><title>%s</title></rect>`+"\n",
				x(s.from), y+1, float64(s.to-s.from)*scale, chartRow-2, fill, html.EscapeString(s.title))
		}
	}
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="14" height="12" fill="#333"/><text x="%d" y="%d">install (%d)</text>`+"\n",
		chartLabel, bottom+chartBottom, chartLabel+20, bottom+chartBottom+10, r.Installs)
	fmt.Fprintln(b, "</svg>")
	return b.Flush()
}

func extentOf(r *Result) (first, last int64) {
	for i, j := range r.Jobs {
		if i == 0 || j.AtMS < first {
			first = j.AtMS
		}
		last = max(last, r.Trace[i].EndMS)
	}
	return first, last
}

// barsOf is what each device did, in order. Bars of one app that are shorter than least become one.
func barsOf(r *Result, least float64) map[string][]bar {
	bars := map[string][]bar{}
	for i, a := range r.Trace {
		j := r.Jobs[i]
		on := app{j.Org, j.AppVersion}
		row := bars[a.Device]
		if a.InstallMS > 0 {
			row = append(row, bar{from: a.StartMS, to: a.StartMS + a.InstallMS, install: true, app: on, title: fmt.Sprintf("install of %s of %s", j.AppVersion, j.Org)})
		}
		next := bar{from: a.StartMS + a.InstallMS, to: a.EndMS, app: on, jobs: 1, title: fmt.Sprintf("%s: %s of %s, priority %d, %s. %s", j.ID, j.AppVersion, j.Org, j.Priority, j.Test, a.Reason)}
		if n := len(row) - 1; n >= 0 && !row[n].install && row[n].app == on && row[n].to == next.from && float64(min(row[n].to-row[n].from, next.to-next.from)) < least {
			row[n].to = next.to
			row[n].jobs++
			row[n].title = fmt.Sprintf("%d jobs: %s of %s", row[n].jobs, j.AppVersion, j.Org)
		} else {
			row = append(row, next)
		}
		bars[a.Device] = row
	}
	for _, row := range bars {
		slices.SortFunc(row, func(a, b bar) int { return cmp.Compare(a.from, b.from) })
	}
	return bars
}

// ticks are round moments, about ten of them.
func ticks(first, last int64) []int64 {
	step := int64(1000)
	for _, s := range []int64{1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600, 30 * 24 * 3600} {
		step = s * 1000
		if (last-first)/step <= 12 {
			break
		}
	}
	step = max(step, (last-first)/12)
	var at []int64
	for ms := first; ms <= last; ms += step {
		at = append(at, ms)
	}
	return at
}

func clock(ms int64) string {
	s := ms / 1000
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// colour is an app version's, the same in every chart.
func colour(a app) string {
	h := fnv.New32a()
	h.Write([]byte(a.org + "\x00" + a.version))
	n := h.Sum32()
	return fmt.Sprintf("hsl(%d %d%% %d%%)", n%360, 55+n/360%30, 55+n/10800%20)
}
