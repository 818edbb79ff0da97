package sched_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

// of gives a lane to another organization.
func of(org string, l sched.Lane) sched.Lane { l.OrgID = org; return l }

func work(l sched.Lane, each time.Duration) sched.Lane {
	l.Work = time.Duration(l.Queued) * each
	return l
}

func servingOf(d sched.Device, org, app string) sched.Device {
	d = serving(with(d, app), app)
	d.Installed.OrgID, d.Serving.OrgID = org, org
	return d
}

// count is how many devices of a plan went to each app version.
func count(s sched.Snapshot) map[string]int {
	n := map[string]int{}
	for _, a := range sched.Plan(s, now) {
		n[s.Lanes[a.Lane].AppVersionID]++
	}
	return n
}

// Twenty tests of 40 s are worth several devices although each installs for 45 s; two of 10 s are worth one.
func TestJoiningPaysOrNot(t *testing.T) {
	fleet := func() (devices []sched.Device) {
		for i := range 8 {
			d := phone(fmt.Sprintf("p%d", i))
			d.Install = 45 * time.Second
			devices = append(devices, d)
		}
		return devices
	}
	long := sched.Snapshot{Devices: fleet(), Lanes: []sched.Lane{work(lane("v1", 3, 20, 1), 40*time.Second)}}
	if n := count(long)["v1"]; n < 4 {
		t.Errorf("20 tests of 40 s got %d devices", n)
	}
	short := sched.Snapshot{Devices: fleet(), Lanes: []sched.Lane{work(lane("v1", 3, 2, 1), 10*time.Second)}}
	short.Devices[0] = serving(with(short.Devices[0], "v1"), "v1")
	short.Devices[0].Until = now.Add(10 * time.Second)
	if n := count(short)["v1"]; n != 0 {
		t.Errorf("2 tests of 10 s got %d more devices", n)
	}
	// What waits behind pays for the install, unless the group is the most urgent.
	busy := func(priority int) sched.Snapshot {
		s := sched.Snapshot{Devices: fleet()[:2], Lanes: []sched.Lane{work(lane("v1", priority, 4, 1), 40*time.Second)}}
		s.Devices[0] = serving(with(s.Devices[0], "v1"), "v1")
		for i := range 20 {
			s.Lanes = append(s.Lanes, lane(fmt.Sprintf("w%d", i), 9, 1, int64(i+100)))
		}
		return s
	}
	if n := count(busy(3)); n["v1"] != 0 {
		t.Errorf("20 groups wait behind, and a group of 4 took another device: %v", n)
	}
	if n := count(busy(0)); n["v1"] != 1 {
		t.Errorf("the most urgent group did not take the device: %v", n)
	}
}

func TestFairness(t *testing.T) {
	s := sched.Snapshot{
		Devices:       []sched.Device{phone("p1")},
		Lanes:         []sched.Lane{of("big", lane("v1", 1, 5, 1)), of("small", lane("v2", 1, 5, 2))},
		Organizations: []sched.Organization{{ID: "big", Used: time.Hour}, {ID: "small"}},
	}
	if n := count(s); n["v2"] != 1 {
		t.Errorf("an hour ahead: %v", n)
	}
	s.Organizations[0].Weight = 5 // an hour is 12 minutes of its share: within the grain
	if n := count(s); n["v1"] != 1 {
		t.Errorf("of a larger share: %v", n)
	}
	// A device leaves its batch only for who is far behind.
	s.Organizations[0].Weight = 1
	s.Devices[0] = with(s.Devices[0], "v1")
	s.Devices[0].Installed.OrgID = "big"
	if n := count(s); n["v2"] != 1 {
		t.Errorf("an hour ahead, own app installed: %v", n)
	}
	s.Organizations[0].Used = 10 * time.Minute
	if n := count(s); n["v1"] != 1 {
		t.Errorf("ten minutes ahead, own app installed: %v", n)
	}
}

func TestQuotas(t *testing.T) {
	s := sched.Snapshot{
		Devices:       []sched.Device{servingOf(phone("p1"), "acme", "v1"), phone("p2"), phone("p3")},
		Lanes:         []sched.Lane{lane("v1", 0, 50, 1), of("bolt", lane("v2", 5, 1, 2))},
		Organizations: []sched.Organization{{ID: "acme", MaxDevices: 2}},
	}
	if n := count(s); n["v1"] != 1 || n["v2"] != 1 {
		t.Errorf("%v", n)
	}
	if e := sched.Explain(s, now, 0, 0, ""); !holds(e, sched.ConstraintQuota, "acme has 2 of at most 2 devices") {
		t.Errorf("%+v", e.Constraints)
	}
}

func TestBreaker(t *testing.T) {
	s := sched.Snapshot{
		Devices: []sched.Device{phone("p1"), phone("p2")}, Lanes: []sched.Lane{lane("v1", 0, 9, 1)},
		Streaks: []sched.Streak{{Group: group("v1"), Devices: 3, Last: now.Add(-time.Minute)}},
	}
	if n := count(s); n["v1"] != 0 {
		t.Errorf("it goes on breaking devices: %v", n)
	}
	if e := sched.Explain(s, now, 0, 0, ""); !holds(e, sched.ConstraintBreaker, "stopped: broke 3 devices one after another; one tries it again in 540 s") {
		t.Errorf("%+v", e.Constraints)
	}
	s.Streaks[0].Last = now.Add(-sched.BreakRest)
	if n := count(s); n["v1"] != 1 {
		t.Errorf("rested, one device is to try: %v", n)
	}
	s.Streaks[0].Devices = 2
	if n := count(s); n["v1"] != 2 {
		t.Errorf("two devices may be chance: %v", n)
	}
}

func TestAgingAndTheBound(t *testing.T) {
	for _, c := range []struct {
		priority int
		age      time.Duration
		want     int
	}{
		{5, 0, 5},
		{5, time.Hour - 1, 5},
		{5, time.Hour, 4},
		{5, 2 * time.Hour, 3},
		{5, 4 * time.Hour, 1},
		{5, 400 * time.Hour, 1},
		{1000, 2 * time.Hour, 501},
		{1, 9 * time.Hour, 1},
		{0, 9 * time.Hour, 0},
		{3, -time.Hour, 3},
	} {
		if got := sched.Level(c.priority, c.age, sched.DefaultBound); got != c.want {
			t.Errorf("priority %d after %v is level %d, want %d", c.priority, c.age, got, c.want)
		}
	}
	old := func(age time.Duration) sched.Snapshot {
		s := sched.Snapshot{Devices: []sched.Device{phone("p1")}, Lanes: []sched.Lane{lane("v1", 5, 1, 1), lane("v2", 3, 1, 2), lane("v3", 0, 1, 3)}}
		s.Lanes[0].Oldest = now.Add(-age)
		return s
	}
	if n := count(old(3 * time.Hour)); n["v3"] != 1 {
		t.Errorf("age reached the most urgent level: %v", n)
	}
	s := old(3 * time.Hour)
	s.Lanes = s.Lanes[:2]
	if n := count(s); n["v1"] != 1 {
		t.Errorf("age did not raise it from 5 to 2: %v", n)
	}
	if n := count(old(5 * time.Hour)); n["v1"] != 1 {
		t.Errorf("beyond the bound: %v", n)
	}
}

func TestRequirementsAreKept(t *testing.T) {
	newer, older := phone("p1"), phone("p2")
	newer.OSVersion, older.OSVersion = "14", "11"
	s := sched.Snapshot{Devices: []sched.Device{newer, older}, Lanes: []sched.Lane{lane("v1", 1, 9, 1)}}
	s.Lanes[0].Requires = "os>=12"
	if got := told(s, sched.Plan(s, now)); got != "p1:v1" {
		t.Error(got)
	}
	s.Lanes[0].Requires = "os>=15"
	if e := sched.Explain(s, now, 0, 0, ""); !e.Unserved || !holds(e, sched.ConstraintDevices, "no device can run it: p1 has os 14, not os>=15, p2 has os 11, not os>=15") {
		t.Errorf("%+v", e.Constraints)
	}
}

// A build that two app versions of an organization share is installed once; another organization's is another's.
func TestBuildsAreInstalledOnce(t *testing.T) {
	s := sched.Snapshot{Devices: []sched.Device{with(phone("p1"), "v1"), phone("p2")}, Lanes: []sched.Lane{lane("v2", 1, 1, 1)}}
	s.Lanes[0].BuildSHA256 = "b" // what is on p1
	a := sched.Plan(s, now)[0]
	if a.DeviceID != "p1" || a.Why.Rule != sched.RuleInstalled || a.Why.Install != 0 || a.Why.Saved != sched.PriorInstall {
		t.Errorf("%+v", a)
	}
	s.Lanes[0].OrgID = "bolt"
	if a := sched.Plan(s, now)[0]; a.Why.Rule != sched.RuleUnserved || a.Why.Install == 0 {
		t.Errorf("another organization's: %+v", a)
	}
}

func TestExpectedStarts(t *testing.T) {
	s := sched.Snapshot{Devices: []sched.Device{serving(with(phone("p1"), "v1"), "v1"), serving(with(phone("p2"), "v9"), "v9")}}
	s.Devices[0].Until, s.Devices[1].Until = now.Add(30*time.Second), now.Add(30*time.Second)
	s.Lanes = []sched.Lane{work(lane("v1", 1, 5, 1), 40*time.Second), work(lane("v2", 2, 1, 2), 40*time.Second)}
	near, far := sched.Explain(s, now, 0, 0, ""), sched.Explain(s, now, 1, 0, "")
	if near.Expected != (4*40+60)*time.Second/2 || far.Expected != (5*40+60)*time.Second/2 {
		t.Errorf("expected in %v and %v", near.Expected, far.Expected)
	}
	if !holds(far, sched.ConstraintPriority, "priority 2: 5 jobs more urgent") || !holds(far, sched.ConstraintDevices, "2 devices can run it: p1 runs v1 of acme for 30 s more, p2 runs v9") {
		t.Errorf("%+v", far.Constraints)
	}
}

// Of what other organizations do, an organization reads that they do it.
func TestAnExplanationNamesNoOtherOrganizationToOne(t *testing.T) {
	s := sched.Snapshot{Devices: []sched.Device{serving(with(phone("p1"), "v1"), "v1"), serving(with(phone("p2"), "v9"), "v9")}}
	s.Devices[0].Until, s.Devices[1].Until = now.Add(30*time.Second), now.Add(30*time.Second)
	s.Lanes = []sched.Lane{lane("v2", 2, 1, 2)}
	s.Devices[1].Serving.OrgID = "zeta"
	for to, text := range map[string]string{
		"":     "2 devices can run it: p1 runs v1 of acme for 30 s more, p2 runs v9 of zeta for 30 s more",
		"acme": "2 devices can run it: p1 runs v1 of acme for 30 s more, p2 runs a job of another organization for 30 s more",
	} {
		if e := sched.Explain(s, now, 0, 0, to); !holds(e, sched.ConstraintDevices, text) {
			t.Errorf("to %q: %+v", to, e.Constraints)
		}
	}
	s.Devices = s.Devices[:1]
	s.Devices[0] = with(phone("p1"), "v9")
	s.Devices[0].Installed.OrgID = "zeta"
	theirs := lane("v9", 3, 1, 1)
	theirs.OrgID = "zeta"
	s.Lanes = append(s.Lanes, theirs)
	if why := sched.Plan(s, now)[0].Why; why.Leaves != "another organization's app" {
		t.Errorf("%+v: %s", why, why.Text())
	}
}

func holds(e sched.Explanation, kind sched.ConstraintKind, text string) bool {
	for _, c := range e.Held() {
		if c.Kind == kind && strings.HasPrefix(c.Text, text) {
			return true
		}
	}
	return false
}

func TestEstimates(t *testing.T) {
	var e sched.Estimate
	if e.Typical(sched.PriorRun) != sched.PriorRun {
		t.Errorf("nothing is known, but %v", e.Typical(sched.PriorRun))
	}
	for range 5 {
		e = e.Observe(10*time.Second, sched.PriorRun)
	}
	e = e.Observe(time.Hour, sched.PriorRun)
	if got := e.Typical(sched.PriorRun); got != 10*time.Second {
		t.Errorf("one outlier moved it to %v", got)
	}
	if e.Error <= 0 || e.Error >= 0.5 {
		t.Errorf("its error is %v", e.Error)
	}
	for range 5 {
		e = e.Observe(20*time.Second, sched.PriorRun)
	}
	if got := e.Typical(sched.PriorRun); got != 20*time.Second {
		t.Errorf("five of another length left it at %v", got)
	}
	if len(e.RecentMS) > 9 {
		t.Errorf("it keeps %d numbers", len(e.RecentMS))
	}
	known := sched.Estimate{RecentMS: []int64{5000, 5000, 5000}}
	if got := sched.Learned(sched.PriorRun, sched.Estimate{}, known); got != 5*time.Second {
		t.Errorf("of what is known of others: %v", got)
	}
}

// Whatever the waits, nine in ten jobs start by their P90 once enough of them were seen.
func TestCalibration(t *testing.T) {
	var c sched.Calibration
	kept := 0
	for i := range 4000 {
		waited := time.Duration(i%20) * time.Minute
		p50, p90 := c.Waits(time.Minute)
		if i >= 1000 && waited <= p90 {
			kept++
		}
		c = c.Observe(waited, p50, p90)
	}
	if share := float64(kept) / 3000; share < 0.85 || share > 0.95 {
		t.Errorf("%.3f started by their P90", share)
	}
}

// late is a run of n jobs of two minutes that may overflow, one phone of its own and two of BrowserStack.
func late(n int, deadline time.Duration, maxCost float64) sched.Snapshot {
	l := work(lane("v1", 3, n, 1), 2*time.Minute)
	l.Overflow = &sched.Overflow{Run: "r1", Deadline: now.Add(deadline), MaxCost: maxCost}
	s := sched.Snapshot{Devices: []sched.Device{phone("p1"), phone("bs1"), phone("bs2")}, Lanes: []sched.Lane{l}}
	for i := range 2 {
		s.Devices[1+i].Kind, s.Devices[1+i].MinutePrice = qgjob.TargetBrowserStack, 0.5
	}
	return s
}

func TestOverflow(t *testing.T) {
	rules := func(s sched.Snapshot) (text string) {
		for _, a := range sched.Plan(s, now) {
			text += a.DeviceID + " " + string(a.Why.Rule) + "; "
		}
		return text
	}
	org := func(budget, spent float64) sched.Organization {
		return sched.Organization{ID: "acme", Budget: budget, Spent: spent}
	}
	for _, c := range []struct {
		name  string
		s     sched.Snapshot
		org   sched.Organization
		wants string
	}{
		{"own devices make it", late(4, 30*time.Minute, 10), org(0, 0), "p1 unserved; "},
		{"they do not", late(9, 10*time.Minute, 10), org(0, 0), "p1 unserved; bs1 overflow; bs2 overflow; "},
		{"one more device is enough", late(6, 11*time.Minute, 10), org(0, 0), "p1 unserved; bs1 overflow; "},
		{"the budget is for one job", late(9, 10*time.Minute, 2), org(0, 0), "p1 unserved; bs1 overflow; "},
		{"a deadline alone spends nothing", late(9, 10*time.Minute, 0), org(0, 0), "p1 unserved; "},
		{"the organization's budget", late(9, 10*time.Minute, 0), org(100, 0), "p1 unserved; bs1 overflow; bs2 overflow; "},
		{"is used up", late(9, 10*time.Minute, 10), org(100, 99.5), "p1 unserved; "},
	} {
		c.s.Organizations = []sched.Organization{c.org}
		if got := rules(c.s); got != c.wants {
			t.Errorf("%s: %s, want %s", c.name, got, c.wants)
		}
	}
	s := late(9, 10*time.Minute, 2)
	if e := sched.Explain(s, now, 0, 0, ""); !holds(e, sched.ConstraintBudget, "a job on bs1 costs about 1.25, and 0.75 of the budget is left") {
		t.Errorf("%+v", e.Constraints)
	}
	s.Devices[1].MinutePrice, s.Devices[2].MinutePrice = 0, 0
	if e := sched.Explain(s, now, 0, 0, ""); !holds(e, sched.ConstraintBudget, "2 devices of BrowserStack without a price: start its worker with --browserstack-minute-price") {
		t.Errorf("%+v", e.Constraints)
	}
	s = late(9, 10*time.Minute, 10)
	s.Devices = s.Devices[1:]
	if got := rules(s); got != "bs1 overflow; bs2 overflow; " {
		t.Errorf("without a device of its own: %s", got)
	}
	s.Lanes[0].Requires = "device=p1"
	if got := rules(s); got != "" {
		t.Errorf("a job for one phone went elsewhere: %s", got)
	}
	s = late(9, time.Hour, 10)
	if s.Devices = s.Devices[1:]; rules(s) != "" {
		t.Errorf("its own devices are away for a moment, and the cloud can make it later: %s", rules(s))
	}
	if e := sched.Explain(s, now, 0, 0, ""); !holds(e, sched.ConstraintBudget, "bs1 can still make it: its own devices may come back before") {
		t.Errorf("%+v", e.Constraints)
	}
}

// Jobs of a run are given the longest first: each counts as what it takes itself, not as the mean of what waits.
func TestOverflowPricesEachJob(t *testing.T) {
	s := late(3, 10*time.Minute, 5)
	l := &s.Lanes[0]
	l.OldestRun, l.Work = 12*time.Minute, 20*time.Minute
	l.Next = []sched.Entry{{Seq: 2, At: now, Run: time.Minute}, {Seq: 3, At: now, Run: time.Minute}}
	s.Devices = s.Devices[1:]
	if plan := sched.Plan(s, now); len(plan) != 0 {
		t.Errorf("a job of 6.25 went beyond a budget of 5: %+v", plan)
	}
	if e := sched.Explain(s, now, 0, 0, ""); !holds(e, sched.ConstraintBudget, "a job on bs1 costs about 6.25, and 5.00 of the budget is left") {
		t.Errorf("%+v", e.Constraints)
	}
	s.Lanes[0].Overflow.MaxCost = 6.5
	plan := sched.Plan(s, now)
	if len(plan) != 1 || plan[0].Why.Cost != 6.25 {
		t.Errorf("planned %+v", plan)
	}
}

// A quota divides an organization's own work, not what others run.
func TestAQuotaIsNotEverybodys(t *testing.T) {
	s := late(4, 15*time.Minute, 100)
	s.Devices = s.Devices[1:]
	other := sched.Group{OrgID: "bolt", AppVersionID: "z", Target: qgjob.TargetAny}
	for i := range 100 {
		d := phone(fmt.Sprintf("p%d", i))
		d.Free, d.Serving, d.Until = false, &other, now.Add(time.Duration(i+1)*time.Second)
		s.Devices = append(s.Devices, d)
	}
	s.Organizations = []sched.Organization{{ID: "acme", MaxDevices: 4}}
	if plan := sched.Plan(s, now); len(plan) != 0 {
		t.Errorf("a hundred phones are free within two minutes, and it bought %+v", plan)
	}
	if e := sched.Explain(s, now, 0, 0, ""); e.Expected > 5*time.Minute {
		t.Errorf("expected in %v", e.Expected)
	}
}

// What a lane avoids is none of the devices that it waits for.
func TestADeviceToAvoidIsNotWaitedFor(t *testing.T) {
	s := late(1, 5*time.Minute, 100)
	busy := phone("p2")
	busy.Free, busy.Serving, busy.Until = false, &s.Lanes[0].Group, now.Add(time.Hour)
	s.Devices = append(s.Devices, busy)
	s.Lanes[0].Avoid = "p1"
	if plan := sched.Plan(s, now); len(plan) != 1 || plan[0].Why.Rule != sched.RuleOverflow {
		t.Errorf("planned %+v", plan)
	}
}

// Predictions that turned out too short are not believed: the deadline goes by what explain says.
func TestOverflowGoesByWhatWaitsWere(t *testing.T) {
	s := late(4, 9*time.Minute, 100)
	if plan := sched.Plan(s, now); len(plan) != 1 {
		t.Fatalf("planned %+v", plan)
	}
	for range 60 {
		s.Calibration = s.Calibration.Observe(time.Hour, time.Minute, 2*time.Hour)
	}
	if plan := sched.Plan(s, now); len(plan) < 2 {
		t.Errorf("waits were longer than expected, and nothing overflowed: %+v", plan)
	}
}
