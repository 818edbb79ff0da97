// Package policy runs qgjob's scheduler and its baselines over generated workloads and says which aims are met.
package policy

import (
	"fmt"
	"io"
	"slices"
	"time"

	"qgjob/bench/internal/pushes"
	"qgjob/internal/simulate"
)

// Plan is how much to run.
type Plan struct {
	Seeds int
	Hours float64
}

// Cell is one kind of workload.
type Cell struct {
	Least, Most int // jobs a push
	Load        float64
	Devices     int
}

func (c Cell) String() string {
	return fmt.Sprintf("%d-%d jobs a push, %.0f %% load, %d devices", c.Least, c.Most, 100*c.Load, c.Devices)
}

// cells are the workloads of bursts.
func cells() (all []Cell) {
	for _, size := range [][2]int{{1, 8}, {10, 80}} {
		for _, load := range []float64{0.75, 0.9, 1.3} {
			for _, devices := range []int{8, 64} {
				all = append(all, Cell{size[0], size[1], load, devices})
			}
		}
	}
	return all
}

// Numbers is what came of one policy, on average over the seeds. Times are seconds.
type Numbers struct {
	UrgentMean, UrgentP95 float64 // waits of the most urgent level
	UrgentCompletion      float64 // mean, of its runs
	InstallsOfJob         float64
	Completion            float64 // mean, of all runs
	StartedByP90          float64
}

// Row is one cell under all policies.
type Row struct {
	Cell
	Of map[string]Numbers
}

// ClosedRow is a closed burst: the makespan by its lower bound, on average and at worst.
type ClosedRow struct {
	Devices, JobsOfDevice, Versions int
	Equal                           bool
	Mean, Worst                     map[string]float64
}

// Results is everything.
type Results struct {
	Plan
	Rows      []Row
	Closed    []ClosedRow
	Decisions []Decision
}

// Measure runs everything and tells of its progress.
func Measure(p Plan, log io.Writer) (*Results, error) {
	r := &Results{Plan: p}
	for _, c := range cells() {
		fmt.Fprintf(log, "%s\n", c)
		row, err := bursts(c, p)
		if err != nil {
			return nil, err
		}
		r.Rows = append(r.Rows, row)
	}
	for _, devices := range []int{8, 64} {
		for _, jobs := range []int{20, 60} {
			for _, equal := range []bool{true, false} {
				for _, versions := range []int{1, 4} {
					row, err := closed(devices, jobs, devices*versions, equal, p)
					if err != nil {
						return nil, err
					}
					r.Closed = append(r.Closed, row)
				}
			}
		}
	}
	r.Decisions = decisions()
	return r, nil
}

func bursts(c Cell, p Plan) (Row, error) {
	row := Row{Cell: c, Of: map[string]Numbers{}}
	fleet := pushes.Fleet(c.Devices)
	for seed := range p.Seeds {
		workload := pushes.Bursts(pushes.Plan{Devices: c.Devices, Load: c.Load, Least: c.Least, Most: c.Most, Hours: p.Hours, Seed: uint64(seed)})
		for _, policy := range simulate.Policies {
			result, err := simulate.Run(workload, fleet, policy)
			if err != nil {
				return row, err
			}
			s := simulate.Summarize(result, fleet, policy)
			share := 1 / float64(p.Seeds)
			n := row.Of[policy]
			n.UrgentMean += share * s.WaitMS[0].Mean / 1000
			n.UrgentP95 += share * float64(s.WaitMS[0].P95) / 1000
			n.UrgentCompletion += share * urgentCompletion(result)
			n.InstallsOfJob += share * float64(s.Installs) / float64(s.Jobs)
			n.Completion += share * s.RunCompletionMS.Mean / 1000
			if s.ETA != nil {
				n.StartedByP90 += share * s.ETA.StartedByP90
			}
			row.Of[policy] = n
		}
	}
	return row, nil
}

// urgentCompletion is the mean time in seconds from submit to the last end of the most urgent runs.
func urgentCompletion(r *simulate.Result) float64 {
	ends := map[string]int64{}
	for i, a := range r.Trace {
		if j := r.Jobs[i]; j.Priority == 0 {
			ends[j.Run] = max(ends[j.Run], a.EndMS-j.AtMS)
		}
	}
	var sum float64
	for _, ms := range ends {
		sum += float64(ms) / 1000
	}
	return sum / float64(max(len(ends), 1))
}

func closed(devices, jobs, versions int, equal bool, p Plan) (ClosedRow, error) {
	row := ClosedRow{Devices: devices, JobsOfDevice: jobs, Versions: versions, Equal: equal, Mean: map[string]float64{}, Worst: map[string]float64{}}
	fleet := pushes.Fleet(devices)
	for seed := range p.Seeds {
		workload := pushes.Closed(devices, jobs, versions, uint64(seed), equal)
		for _, policy := range simulate.Policies {
			result, err := simulate.Run(workload, fleet, policy)
			if err != nil {
				return row, err
			}
			ratio := float64(simulate.Summarize(result, fleet, policy).MakespanMS) / leastMakespan(workload, devices)
			row.Mean[policy] += ratio / float64(p.Seeds)
			row.Worst[policy] = max(row.Worst[policy], ratio)
		}
	}
	return row, nil
}

// leastMakespan is what no schedule is below: the longest job with its install, and all work with one install a version
// and one reset for every other job, spread evenly.
func leastMakespan(workload []simulate.Job, devices int) float64 {
	var longest, work float64
	versions := map[[2]string]bool{}
	for _, j := range workload {
		work += float64(j.DurationMS)
		longest = max(longest, float64(j.DurationMS)+pushes.InstallMS)
		versions[[2]string{j.Org, j.AppVersion}] = true
	}
	work += float64(len(versions))*pushes.InstallMS + float64(len(workload)-len(versions))*pushes.ResetMS
	return max(longest, work/float64(devices))
}

// Decision is the time of one decision.
type Decision struct {
	Devices, Groups int
	Fresh           bool // over a new snapshot; otherwise by a planner that follows what happens
	Took            time.Duration
}

// least is the shortest time of many: what the decision costs, without what else the machine did.
func least(times int, f func() time.Duration) time.Duration {
	took := make([]time.Duration, times)
	for i := range took {
		took[i] = f()
	}
	return slices.Min(took)
}
