package simulate

import (
	"fmt"
	"slices"

	"qgjob"
)

// Resize returns the fleet with so many devices more, copies of its own in turn, or, below 0, with so many of the last
// ones fewer.
func (f Fleet) Resize(by int) (Fleet, error) {
	n := len(f.Devices)
	if n+by < 1 {
		return f, qgjob.Errorf(qgjob.CodeInvalid, "the fleet has %d devices: %d fewer leaves none", n, -by)
	}
	if by < 0 {
		f.Devices = slices.Clone(f.Devices[:n+by])
		return f, nil
	}
	taken := map[string]bool{}
	for _, d := range f.Devices {
		taken[d.ID] = true
	}
	f.Devices = slices.Clone(f.Devices)
	for i := range by {
		d := f.Devices[i%n]
		for copies := 1; ; copies++ {
			if id := fmt.Sprintf("%s+%d", d.ID, copies); !taken[id] {
				d.ID = id
				break
			}
		}
		taken[d.ID] = true
		f.Devices = append(f.Devices, d)
	}
	return f, nil
}

// Difference is what changed from one summary to another: the second minus the first.
type Difference struct {
	Devices           int             `json:"devices"`
	MakespanMS        int64           `json:"makespan_ms"`
	Installs          int             `json:"installs"`
	DeviceUtilization float64         `json:"device_utilization"`
	WaitMeanMS        map[int]float64 `json:"wait_mean_ms"` // by priority
	WaitP95MS         map[int]int64   `json:"wait_p95_ms"`
	RunCompletionMean float64         `json:"run_completion_mean_ms"`
	RunCompletionP95  int64           `json:"run_completion_p95_ms"`
}

// Since is what changed from another summary of the same workload to this one.
func (s Summary) Since(before Summary) Difference {
	d := Difference{
		Devices: s.Devices - before.Devices, MakespanMS: s.MakespanMS - before.MakespanMS, Installs: s.Installs - before.Installs,
		DeviceUtilization: s.DeviceUtilization - before.DeviceUtilization, WaitMeanMS: map[int]float64{}, WaitP95MS: map[int]int64{},
		RunCompletionMean: s.RunCompletionMS.Mean - before.RunCompletionMS.Mean, RunCompletionP95: s.RunCompletionMS.P95 - before.RunCompletionMS.P95,
	}
	for priority, w := range s.WaitMS {
		d.WaitMeanMS[priority] = w.Mean - before.WaitMS[priority].Mean
		d.WaitP95MS[priority] = w.P95 - before.WaitMS[priority].P95
	}
	return d
}
