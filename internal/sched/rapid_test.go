package sched_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"qgjob"
	"qgjob/internal/sched"
)

const (
	bound = 4 * time.Hour
	never = 10_000 * time.Hour // a deadline that everything makes
)

// snapshots draws fleets and queues in which everything happens: all kinds of devices and requirements, several
// organizations with quotas and budgets, preferences, groups that break devices, jobs beyond the bound, runs that may overflow.
func snapshots(rt *rapid.T) sched.Snapshot {
	s := sched.Snapshot{Bound: bound}
	apps := []string{"v1", "v2", "v3"}
	orgs := []string{"acme", "bolt"}
	kinds := []qgjob.Target{qgjob.TargetDevice, qgjob.TargetEmulator, qgjob.TargetBrowserStack}
	groups := func(name string) sched.Group {
		return sched.Group{
			OrgID: rapid.SampledFrom(orgs).Draw(rt, name), AppVersionID: rapid.SampledFrom(apps).Draw(rt, "app"),
			Target:   rapid.SampledFrom(qgjob.Targets).Draw(rt, "target"),
			Requires: rapid.SampledFrom([]string{"", "", "os>=13", "tag=lab", "device=d1"}).Draw(rt, "requires"),
		}
	}
	few := []sched.Group{groups("one"), groups("another"), groups("a third")}
	for i := range rapid.IntRange(0, 8).Draw(rt, "devices") {
		d := sched.Device{Free: rapid.Bool().Draw(rt, "free")}
		d.ID, d.Kind = fmt.Sprintf("d%d", i), rapid.SampledFrom(kinds).Draw(rt, "kind")
		d.OSVersion = rapid.SampledFrom([]string{"12", "14"}).Draw(rt, "os")
		if d.Kind == qgjob.TargetBrowserStack {
			d.MinutePrice = rapid.SampledFrom([]float64{0, 0.2, 1}).Draw(rt, "price")
		}
		if rapid.Bool().Draw(rt, "tagged") {
			d.Tags = []string{"lab"}
		}
		if rapid.Bool().Draw(rt, "has an app") {
			d.Installed = &qgjob.App{OrgID: rapid.SampledFrom(orgs).Draw(rt, "its org"), AppVersionID: rapid.SampledFrom(apps).Draw(rt, "its app")}
		}
		switch rapid.IntRange(0, 4).Draw(rt, "does") {
		case 0:
			g := rapid.SampledFrom(few).Draw(rt, "served")
			d.Serving, d.Free = &g, false
			d.Until = now.Add(time.Duration(rapid.IntRange(-60, 300).Draw(rt, "until")) * time.Second)
		case 1:
			d.Unavailable = "quarantined"
		}
		s.Devices = append(s.Devices, d)
	}
	for _, id := range orgs {
		s.Organizations = append(s.Organizations, sched.Organization{
			ID: id, Weight: rapid.Float64Range(0.5, 4).Draw(rt, "weight"), MaxDevices: rapid.IntRange(0, 3).Draw(rt, "quota"),
			Used:   time.Duration(rapid.IntRange(0, 30_000).Draw(rt, "used")) * time.Second,
			Budget: rapid.SampledFrom([]float64{0, 0, 2}).Draw(rt, "budget"), Spent: 1,
		})
	}
	runs := map[string]*sched.Overflow{} // by organization: a run is one's
	for _, id := range orgs {
		runs[id] = &sched.Overflow{
			Run: "run of " + id, Deadline: now.Add(rapid.SampledFrom([]time.Duration{-time.Hour, 5 * time.Minute, never}).Draw(rt, "deadline")),
			MaxCost: rapid.SampledFrom([]float64{0, 1, 9}).Draw(rt, "max cost"), Spent: 0.5,
		}
	}
	seen := map[string]bool{}
	seq := int64(1)
	day := rapid.SampledFrom([]time.Duration{10 * time.Minute, bound, 2 * bound}).Draw(rt, "since")
	for range rapid.IntRange(0, 12).Draw(rt, "lanes") {
		l := sched.Lane{
			Group: rapid.SampledFrom(few).Draw(rt, "lane"), Priority: rapid.SampledFrom([]int{0, 1, 2, 9}).Draw(rt, "priority"),
			Queued: rapid.IntRange(1, 4).Draw(rt, "queued"), OldestSeq: seq,
		}
		l.Oldest = now.Add(-day + day*time.Duration(seq)/50) // later ones are younger
		run := func() time.Duration { return time.Duration(rapid.IntRange(1, 400).Draw(rt, "run")) * time.Second }
		l.OldestRun = run()
		l.Work = l.OldestRun
		for i := 1; i < l.Queued; i++ {
			l.Next = append(l.Next, sched.Entry{Seq: seq + int64(i), At: l.Oldest, Run: run()})
			l.Work += l.Next[i-1].Run
		}
		seq += 4
		device := fmt.Sprintf("d%d", rapid.IntRange(0, 8).Draw(rt, "device"))
		switch rapid.IntRange(0, 3).Draw(rt, "preference") {
		case 0:
			l.Prefer = device
		case 1:
			l.Avoid = device
		}
		if rapid.Bool().Draw(rt, "may overflow") {
			l.Overflow = runs[l.OrgID]
		}
		if key := fmt.Sprint(l.Group, l.Priority, l.Prefer, l.Avoid, l.Overflow != nil); !seen[key] {
			seen[key] = true
			s.Lanes = append(s.Lanes, l)
			if rapid.IntRange(0, 7).Draw(rt, "breaks") == 0 {
				s.Streaks = append(s.Streaks, sched.Streak{Group: l.Group, Devices: rapid.IntRange(1, 4).Draw(rt, "broken"), Last: now.Add(-time.Minute)})
			}
		}
	}
	return s
}

// world follows a plan by what the properties say, not by how the planner does it.
type world struct {
	sched.Snapshot
	left  []int // jobs by lane
	taken []int
	busy  map[string]sched.Group // by device
}

func newWorld(s sched.Snapshot) *world {
	w := &world{Snapshot: s, left: make([]int, len(s.Lanes)), taken: make([]int, len(s.Lanes)), busy: map[string]sched.Group{}}
	for i, l := range s.Lanes {
		w.left[i] = l.Queued
	}
	for _, d := range s.Devices {
		if d.Serving != nil {
			w.busy[d.ID] = *d.Serving
		}
	}
	return w
}

func (w *world) device(id string) sched.Device {
	return w.Devices[slices.IndexFunc(w.Devices, func(d sched.Device) bool { return d.ID == id })]
}

func (w *world) free(d sched.Device) bool {
	_, busy := w.busy[d.ID]
	return d.Free && !busy && d.Unavailable == ""
}

func matches(d sched.Device, g sched.Group) bool {
	r, err := qgjob.ParseRequirement(g.Requires)
	return err == nil && g.Target.Accepts(d.Kind) && r.Mismatch(d.Traits) == ""
}

// canRun says whether a device may run a lane's jobs: an avoided one only when no other device can.
func (w *world) canRun(d sched.Device, l sched.Lane) bool {
	return matches(d, l.Group) && (l.Avoid != d.ID || !slices.ContainsFunc(w.Devices, func(o sched.Device) bool {
		return o.ID != d.ID && o.Unavailable == "" && matches(o, l.Group)
	}))
}

func (w *world) atQuota(org string) bool {
	n := 0
	for _, g := range w.busy {
		if g.OrgID == org {
			n++
		}
	}
	i := slices.IndexFunc(w.Organizations, func(o sched.Organization) bool { return o.ID == org })
	return i >= 0 && w.Organizations[i].MaxDevices > 0 && n >= w.Organizations[i].MaxDevices
}

func (w *world) serves(g sched.Group) bool {
	for _, of := range w.busy {
		if of == g {
			return true
		}
	}
	return false
}

func (w *world) stopped(g sched.Group) bool {
	n := 0
	for _, st := range w.Streaks {
		if st.Group == g {
			n = st.Devices // the last one counts, as in the planner
		}
	}
	return n >= sched.BreakAfter
}

// head is a lane's next entry.
func (w *world) head(i int) sched.Entry {
	l := w.Lanes[i]
	if w.taken[i] == 0 {
		return sched.Entry{Seq: l.OldestSeq, At: l.Oldest}
	}
	return l.Next[w.taken[i]-1]
}

func (w *world) give(a sched.Assignment) {
	w.left[a.Lane]--
	w.taken[a.Lane]++
	w.busy[a.DeviceID] = w.Lanes[a.Lane].Group
}

func (w *world) overdue(i int) bool { return now.Sub(w.head(i).At) > bound }

func TestPlansAreSafe(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(snapshots(rt))
		for _, a := range sched.Plan(w.Snapshot, now) {
			d, l := w.device(a.DeviceID), w.Lanes[a.Lane]
			switch {
			case !w.free(d):
				rt.Fatalf("%s is not free for %+v", d.ID, l)
			case a.Why.Rule == sched.RuleOverflow && !sells(d, l), a.Why.Rule != sched.RuleOverflow && !w.canRun(d, l):
				rt.Fatalf("%s may not run %+v (%s)", d.ID, l, a.Reason)
			case w.left[a.Lane] == 0:
				rt.Fatalf("%+v gave more jobs than it has", l)
			case w.atQuota(l.OrgID):
				rt.Fatalf("%s is at its quota", l.OrgID)
			case w.stopped(l.Group):
				rt.Fatalf("%+v broke device after device", l.Group)
			case a.Reason == "" || a.Why.Rule == "":
				rt.Fatalf("%+v has no reason", a)
			}
			w.give(a)
		}
	})
}

// Within a group the jobs go by priority, then by submission, but for what waited beyond the bound.
func TestGroupsGoInTheOrderOfTheContract(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(snapshots(rt))
		for _, a := range sched.Plan(w.Snapshot, now) {
			d, l := w.device(a.DeviceID), w.Lanes[a.Lane]
			for i, other := range w.Lanes {
				if w.left[i] == 0 {
					continue
				}
				before := other.Priority < l.Priority || other.Priority == l.Priority && w.head(i).Seq < w.head(a.Lane).Seq
				if before && other.Group == l.Group && w.canRun(d, other) && !w.overdue(a.Lane) {
					rt.Fatalf("%s got %+v before %+v", d.ID, l, other)
				}
			}
			w.give(a)
		}
	})
}

// Once a job has waited beyond the bound, nothing that was submitted later starts before it on a device that it
// could use, quota permitting.
func TestTheBoundHolds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(snapshots(rt))
		for _, a := range sched.Plan(w.Snapshot, now) {
			d := w.device(a.DeviceID)
			for i, other := range w.Lanes {
				if w.left[i] > 0 && w.overdue(i) && w.canRun(d, other) && !w.atQuota(other.OrgID) && !w.stopped(other.Group) && w.head(i).Seq < w.head(a.Lane).Seq {
					rt.Fatalf("%s got %+v, %v after the overdue %+v", d.ID, w.Lanes[a.Lane], w.head(a.Lane).Seq-w.head(i).Seq, other)
				}
			}
			w.give(a)
		}
	})
}

// sells says whether a device may run a lane's jobs for money.
func sells(d sched.Device, l sched.Lane) bool {
	r, err := qgjob.ParseRequirement(l.Requires)
	return err == nil && l.Overflow != nil && d.Kind == qgjob.TargetBrowserStack && !l.Target.Accepts(d.Kind) && d.MinutePrice > 0 &&
		r.Mismatch(d.Traits) == "" && l.Avoid != d.ID
}

// Money is spent only where own devices miss a deadline, and never beyond a budget.
func TestOverflowKeepsItsBudgets(t *testing.T) {
	overflowed := false
	check := func(rt *rapid.T) {
		w := newWorld(snapshots(rt))
		ofRun, ofOrg := map[string]float64{}, map[string]float64{}
		given := make([]int, len(w.Lanes))
		for _, a := range sched.Plan(w.Snapshot, now) {
			// What a job costs by its own run time, whatever the plan says of it.
			run := w.Lanes[a.Lane].OldestRun
			if given[a.Lane] > 0 {
				run = w.Lanes[a.Lane].Next[given[a.Lane]-1].Run
			}
			given[a.Lane]++
			cost := run.Minutes() * w.Devices[slices.IndexFunc(w.Devices, func(d sched.Device) bool { return d.ID == a.DeviceID })].MinutePrice
			ofOrg[w.Lanes[a.Lane].OrgID] += cost
			if a.Why.Rule != sched.RuleOverflow {
				if a.Why.Cost != 0 {
					rt.Fatalf("%s costs %v by rule %s", a.DeviceID, a.Why.Cost, a.Why.Rule)
				}
				continue
			}
			overflowed = true
			l := w.Lanes[a.Lane]
			has := slices.ContainsFunc(w.Devices, func(d sched.Device) bool { return d.Unavailable == "" && matches(d, l.Group) })
			if has && l.Overflow.Deadline.Equal(now.Add(never)) {
				rt.Fatalf("%+v would have made its deadline on its own devices", l)
			}
			if a.Why.Cost < cost {
				rt.Fatalf("%s is taken to cost %v, which its run of %v exceeds", a.DeviceID, a.Why.Cost, run)
			}
			ofRun[l.Overflow.Run] += cost
			o := w.Organizations[slices.IndexFunc(w.Organizations, func(o sched.Organization) bool { return o.ID == l.OrgID })]
			switch most := l.Overflow.MaxCost; {
			case most == 0 && o.Budget == 0:
				rt.Fatalf("%+v spends without any budget", l)
			case most > 0 && l.Overflow.Spent+ofRun[l.Overflow.Run] > most:
				rt.Fatalf("%+v spends %v more", l, ofRun[l.Overflow.Run])
			case o.Budget > 0 && o.Spent+ofOrg[l.OrgID] > o.Budget:
				rt.Fatalf("%s spends %v more of its %v", o.ID, ofOrg[l.OrgID], o.Budget)
			}
		}
	}
	for try := 0; try < 10 && !overflowed; try++ { // it is rare
		rapid.Check(t, check)
	}
	if !overflowed {
		t.Fatal("nothing ever overflowed")
	}
}

// More urgent levels go first: a device takes less urgent work only where what is more urgent is held back.
func TestUrgentFirst(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(snapshots(rt))
		plan := sched.Plan(w.Snapshot, now)
		for _, a := range plan {
			w.give(a)
		}
		for _, a := range plan {
			d := w.device(a.DeviceID)
			for i, other := range w.Lanes {
				// What is left at the end of the plan was there when this one was given.
				if w.left[i] == 0 || !w.canRun(d, other) || w.stopped(other.Group) || w.atQuota(other.OrgID) || a.Why.Rule == sched.RuleOverdue {
					continue
				}
				if other.Priority < a.Why.Level && !w.serves(other.Group) {
					rt.Fatalf("%s got %+v at level %d, but %+v was left, which nothing serves", d.ID, w.Lanes[a.Lane], a.Why.Level, other)
				}
			}
		}
	})
}

// A device that stays free while a job waits that it could run always has a reason that is true.
func TestNothingIdlesWithoutAReason(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(snapshots(rt))
		for _, a := range sched.Plan(w.Snapshot, now) {
			w.give(a)
		}
		for i, l := range w.Lanes {
			e := sched.Explain(w.Snapshot, now, i, 0, "")
			if e.Waiting != w.left[i] {
				rt.Fatalf("%+v: %d wait, it says %d", l, w.left[i], e.Waiting)
			}
			if w.left[i] == 0 {
				continue
			}
			held := e.Held()
			if len(held) == 0 {
				rt.Fatalf("%+v waits for no reason: %+v", l, e)
			}
			for _, d := range w.Devices {
				if !w.free(d) || !w.canRun(d, l) {
					continue
				}
				if !slices.ContainsFunc(held, func(c sched.Constraint) bool { return w.isTrue(c, i, d) }) {
					rt.Fatalf("%s is free, %+v waits, and none of this is true: %+v", d.ID, l, held)
				}
			}
		}
	})
}

// isTrue says whether a constraint really holds a lane back from a device.
func (w *world) isTrue(c sched.Constraint, lane int, d sched.Device) bool {
	l := w.Lanes[lane]
	switch c.Kind {
	case sched.ConstraintBreaker:
		return w.stopped(l.Group)
	case sched.ConstraintQuota:
		return w.atQuota(l.OrgID)
	case sched.ConstraintJoin: // it is served, and its app is not on the device
		has := d.Installed != nil && d.Installed.OrgID == l.OrgID && d.Installed.AppVersionID == l.AppVersionID
		return w.serves(l.Group) && !has
	case sched.ConstraintOrder: // another lane of the group goes first
		return slices.ContainsFunc(w.Lanes, func(o sched.Lane) bool { return o.Group == l.Group && o.Priority <= l.Priority && w.canRun(d, o) })
	}
	return false
}

func TestPlansAreDeterministic(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := snapshots(rt)
		shuffled := s
		shuffled.Devices = rapid.Permutation(s.Devices).Draw(rt, "devices")
		shuffled.Lanes = rapid.Permutation(s.Lanes).Draw(rt, "lanes")
		shuffled.Organizations = rapid.Permutation(s.Organizations).Draw(rt, "organizations")
		describe := func(s sched.Snapshot) (out []string) {
			for _, a := range sched.Plan(s, now) {
				out = append(out, fmt.Sprintf("%s %+v %s %+v", a.DeviceID, s.Lanes[a.Lane], a.Reason, a.Why))
			}
			return out
		}
		first := describe(s)
		if again := describe(s); !slices.Equal(first, again) {
			rt.Fatalf("two plans of one snapshot differ:\n%q\n%q", first, again)
		}
		if other := describe(shuffled); !slices.Equal(first, other) {
			rt.Fatalf("the order of the snapshot changes the plan:\n%q\n%q", first, other)
		}
	})
}

// A planner that follows what happens plans what a new one plans of the same moment.
func TestPlannersFollow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := snapshots(rt)
		s.Organizations = nil // what organizations used is charged as time goes by: not part of this
		early := now.Add(-time.Duration(rapid.IntRange(0, 20).Draw(rt, "earlier")) * time.Minute * 30)
		waiting := s
		waiting.Lanes = nil
		p := sched.New(waiting, early)
		numbers := map[int]int{}
		for i, l := range s.Lanes {
			if l.Oldest.Before(early) {
				early = l.Oldest
			}
			numbers[p.Queue(l, early)] = i
		}
		var live, once []string
		for _, a := range p.Plan(now) {
			live = append(live, fmt.Sprintf("%s %d %s", a.DeviceID, numbers[a.Lane], a.Reason))
		}
		for _, a := range sched.Plan(s, now) {
			once = append(once, fmt.Sprintf("%s %d %s", a.DeviceID, a.Lane, a.Reason))
		}
		if !slices.Equal(live, once) {
			rt.Fatalf("a planner that followed plans\n%q, a new one\n%q", live, once)
		}
	})
}
