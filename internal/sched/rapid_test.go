package sched

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"qgjob"
)

func snapshots(rt *rapid.T) Snapshot {
	var s Snapshot
	apps := []string{"v1", "v2", "v3", "v4"}
	kinds := []qgjob.Target{qgjob.TargetDevice, qgjob.TargetEmulator, qgjob.TargetBrowserStack}
	for i := range rapid.IntRange(0, 8).Draw(rt, "devices") {
		d := Device{ID: fmt.Sprintf("d%d", i), Kind: rapid.SampledFrom(kinds).Draw(rt, "kind"), Free: rapid.Bool().Draw(rt, "free")}
		if rapid.Bool().Draw(rt, "has an app") {
			d = with(d, rapid.SampledFrom(apps).Draw(rt, "app"))
		}
		if rapid.IntRange(0, 2).Draw(rt, "serves") == 0 {
			g := group(rapid.SampledFrom(apps).Draw(rt, "served"))
			d.Serving, d.Free = &g, false
		}
		s.Devices = append(s.Devices, d)
	}
	seen := map[string]bool{}
	for i := range rapid.IntRange(0, 10).Draw(rt, "lanes") {
		l := Lane{
			Group:    Group{OrgID: "acme", AppVersionID: rapid.SampledFrom(apps).Draw(rt, "lane's app"), Target: rapid.SampledFrom(qgjob.Targets).Draw(rt, "target")},
			Priority: rapid.IntRange(0, 2).Draw(rt, "priority"), Queued: rapid.IntRange(1, 4).Draw(rt, "queued"), OldestSeq: int64(10*i + 1),
		}
		device := fmt.Sprintf("d%d", rapid.IntRange(0, 8).Draw(rt, "device"))
		switch rapid.IntRange(0, 3).Draw(rt, "preference") {
		case 0:
			l.Prefer = device
		case 1:
			l.Avoid = device
		}
		key := fmt.Sprint(l.Group, l.Priority, l.Prefer, l.Avoid)
		if !seen[key] {
			seen[key] = true
			s.Lanes = append(s.Lanes, l)
		}
	}
	return s
}

// canRun says whether a device may run a lane's jobs: an avoided one only when no other device can.
func canRun(s Snapshot, d Device, l Lane) bool {
	if !l.Target.Accepts(d.Kind) {
		return false
	}
	others := slices.ContainsFunc(s.Devices, func(o Device) bool { return o.ID != d.ID && l.Target.Accepts(o.Kind) })
	return l.Avoid != d.ID || !others
}

func TestPlansAreSafeAndGreedy(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := snapshots(rt)
		plan := Plan(s, now)
		left := make([]int, len(s.Lanes))
		for i, l := range s.Lanes {
			left[i] = l.Queued
		}
		served := map[Group]bool{}
		for _, d := range s.Devices {
			if d.Serving != nil {
				served[*d.Serving] = true
			}
		}
		given := map[string]int{}
		for _, a := range plan {
			i := slices.IndexFunc(s.Devices, func(d Device) bool { return d.ID == a.DeviceID })
			if i < 0 || !s.Devices[i].Free || s.Devices[i].Serving != nil {
				rt.Fatalf("%+v: the device is not free", a)
			}
			if _, twice := given[a.DeviceID]; twice {
				rt.Fatalf("%s got two jobs", a.DeviceID)
			}
			if !canRun(s, s.Devices[i], s.Lanes[a.Lane]) {
				rt.Fatalf("%s may not run %+v", a.DeviceID, s.Lanes[a.Lane])
			}
			given[a.DeviceID] = a.Lane
			served[s.Lanes[a.Lane].Group] = true
			if left[a.Lane]--; left[a.Lane] < 0 {
				rt.Fatalf("lane %+v gave more jobs than it has", s.Lanes[a.Lane])
			}
		}
		for _, d := range s.Devices {
			if !d.Free || d.Serving != nil {
				continue
			}
			mine, busy := given[d.ID]
			for i, l := range s.Lanes {
				if left[i] == 0 || !canRun(s, d, l) || (busy && l.Priority >= s.Lanes[mine].Priority) {
					continue
				}
				// Something more urgent than what it got was left: only a group that others serve may be,
				// and not where its app is on the device or the device ran it before.
				if !served[l.Group] || has(d, l.Group) || l.Prefer == d.ID {
					rt.Fatalf("%s got %v, but %+v was left\nplan %+v", d.ID, busy, l, plan)
				}
			}
		}
	})
}

func TestPlansDoNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := snapshots(rt)
		shuffled := Snapshot{
			Devices: rapid.Permutation(s.Devices).Draw(rt, "devices"),
			Lanes:   rapid.Permutation(s.Lanes).Draw(rt, "lanes"),
		}
		describe := func(s Snapshot) (out []string) {
			for _, a := range Plan(s, now) {
				out = append(out, fmt.Sprintf("%s %+v %s", a.DeviceID, s.Lanes[a.Lane], a.Reason))
			}
			return out
		}
		if a, b := describe(s), describe(shuffled); !slices.Equal(a, b) {
			rt.Fatalf("plans differ:\n%q\n%q", a, b)
		}
	})
}

// Within a group and priority the oldest job goes first.
func TestLanesOfALevelGoInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := snapshots(rt)
		taken := make([]int, len(s.Lanes))
		for _, a := range Plan(s, now) {
			l := s.Lanes[a.Lane]
			d := s.Devices[slices.IndexFunc(s.Devices, func(d Device) bool { return d.ID == a.DeviceID })]
			for i, other := range s.Lanes {
				older := other.OldestSeq+int64(taken[i]) < l.OldestSeq+int64(taken[a.Lane])
				if older && taken[i] < other.Queued && other.Group == l.Group && other.Priority == l.Priority && canRun(s, d, other) && l.Prefer != d.ID {
					rt.Fatalf("%s got %+v before the older %+v", d.ID, l, other)
				}
			}
			taken[a.Lane]++
		}
	})
}
