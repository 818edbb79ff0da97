package policy

import (
	"fmt"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

// decisions measures what one decision costs: a device has come free in the middle of a busy day.
func decisions() (all []Decision) {
	for _, c := range [][2]int{{100, 1_000}, {1_000, 1_000}, {1_000, 10_000}} {
		s, now := busyDay(c[0], c[1])
		all = append(all, Decision{Devices: c[0], Groups: c[1], Fresh: true, Took: least(150, func() time.Duration {
			start := time.Now()
			sched.Plan(s, now)
			return time.Since(start)
		})})
		planner := sched.New(s, now)
		planner.Plan(now)
		next := 0
		all = append(all, Decision{Devices: c[0], Groups: c[1], Took: least(200, func() time.Duration {
			now = now.Add(100 * time.Millisecond)
			next = (next + 1) % c[0]
			start := time.Now()
			planner.Release(s.Devices[next].ID, now)
			planner.Plan(now)
			return time.Since(start)
		})})
	}
	return all
}

// busyDay is a fleet of which one device is free, and groups of five priorities and ten organizations.
func busyDay(devices, groups int) (sched.Snapshot, time.Time) {
	now := time.UnixMilli(1_700_000_000_000)
	group := func(i int) sched.Group {
		return sched.Group{OrgID: fmt.Sprintf("org%d", i%10), AppVersionID: fmt.Sprintf("v%d", i), Target: qgjob.Targets[i%2]}
	}
	var s sched.Snapshot
	for i := range devices {
		d := sched.Device{Traits: qgjob.Traits{ID: fmt.Sprintf("p%04d", i), Kind: qgjob.TargetDevice}, Free: i == 0}
		g := group(i * 7 % groups)
		d.Installed = &qgjob.App{OrgID: g.OrgID, AppVersionID: g.AppVersionID}
		if i > 0 {
			d.Serving, d.Until = &g, now.Add(time.Duration(i%60)*time.Second)
		}
		s.Devices = append(s.Devices, d)
	}
	for i := range groups {
		s.Lanes = append(s.Lanes, sched.Lane{
			Group: group(i), Priority: []int{0, 1, 3, 10, 100}[i*13%5], Queued: 1 + i%40, OldestSeq: int64(100 * i),
			Oldest: now.Add(-time.Duration(groups-i) * time.Second),
		})
	}
	return s, now
}
