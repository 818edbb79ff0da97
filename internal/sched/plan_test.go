package sched_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

var now = time.UnixMilli(1_700_000_000_000)

func group(app string) sched.Group {
	return sched.Group{OrgID: "acme", AppVersionID: app, Target: qgjob.TargetAny}
}

func lane(app string, priority, queued int, oldest int64) sched.Lane {
	return sched.Lane{Group: group(app), Priority: priority, Queued: queued, OldestSeq: oldest, Oldest: now}
}

func phone(id string) sched.Device {
	return sched.Device{Traits: qgjob.Traits{ID: id, Kind: qgjob.TargetDevice}, Free: true}
}

func with(d sched.Device, app string) sched.Device {
	d.Installed = &qgjob.App{OrgID: "acme", AppVersionID: app, BuildSHA256: "b"}
	return d
}

func serving(d sched.Device, app string) sched.Device {
	g := group(app)
	d.Free, d.Serving = false, &g
	return d
}

// told is a plan in short: "p1:v1 p2:v2", in the order of the devices.
func told(s sched.Snapshot, plan []sched.Assignment) string {
	var out []string
	for _, a := range plan {
		out = append(out, a.DeviceID+":"+s.Lanes[a.Lane].AppVersionID)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestPlan(t *testing.T) {
	prefer := func(l sched.Lane, device string) sched.Lane { l.Prefer = device; return l }
	avoid := func(l sched.Lane, device string) sched.Lane { l.Avoid = device; return l }
	target := func(l sched.Lane, t qgjob.Target) sched.Lane { l.Target = t; return l }
	emulator := sched.Device{Traits: qgjob.Traits{ID: "e1", Kind: qgjob.TargetEmulator}, Free: true}
	cloud := sched.Device{Traits: qgjob.Traits{ID: "c1", Kind: qgjob.TargetBrowserStack}, Free: true}
	for name, c := range map[string]struct {
		devices []sched.Device
		lanes   []sched.Lane
		want    string
	}{
		"nothing waits":                        {[]sched.Device{phone("p1")}, nil, ""},
		"no device":                            {nil, []sched.Lane{lane("v1", 1, 1, 1)}, ""},
		"more urgent first, whatever is older": {[]sched.Device{phone("p1")}, []sched.Lane{lane("v1", 1, 1, 1), lane("v2", 0, 1, 2)}, "p1:v2"},
		"urgent before its own app":            {[]sched.Device{with(phone("p1"), "v1")}, []sched.Lane{lane("v1", 1, 5, 1), lane("v2", 0, 1, 2)}, "p1:v2"},
		"its own app before an older group":    {[]sched.Device{with(phone("p1"), "v2")}, []sched.Lane{lane("v1", 1, 1, 1), lane("v2", 1, 1, 2)}, "p1:v2"},
		"an unserved group before joining":     {[]sched.Device{serving(phone("p1"), "v1"), phone("p2")}, []sched.Lane{lane("v1", 1, 9, 1), lane("v2", 1, 1, 2)}, "p2:v2"},
		"the oldest unserved group first":      {[]sched.Device{phone("p1")}, []sched.Lane{lane("v2", 1, 1, 7), lane("v1", 1, 1, 3)}, "p1:v1"},
		"two waiting are worth a second phone": {[]sched.Device{serving(phone("p1"), "v1"), phone("p2")}, []sched.Lane{lane("v1", 1, 2, 1)}, "p2:v1"},
		"one waiting is not":                   {[]sched.Device{serving(phone("p1"), "v1"), phone("p2")}, []sched.Lane{lane("v1", 1, 1, 1)}, ""},
		"one waiting is, without an install":   {[]sched.Device{serving(phone("p1"), "v1"), with(phone("p2"), "v1")}, []sched.Lane{lane("v1", 1, 1, 1)}, "p2:v1"},
		"less urgent work before none": {
			[]sched.Device{serving(phone("p1"), "v1"), phone("p2")},
			[]sched.Lane{lane("v1", 0, 1, 1), lane("v2", 5, 1, 2)},
			"p2:v2",
		},
		"three idle phones share a long group": {[]sched.Device{phone("p1"), phone("p2"), phone("p3")}, []sched.Lane{lane("v1", 1, 30, 1)}, "p1:v1 p2:v1 p3:v1"},
		"no more devices than jobs":            {[]sched.Device{phone("p1"), phone("p2"), phone("p3")}, []sched.Lane{lane("v1", 1, 2, 1)}, "p1:v1 p2:v1"},
		"tried again on the same device":       {[]sched.Device{phone("p1"), phone("p2")}, []sched.Lane{prefer(lane("v1", 1, 1, 1), "p2")}, "p2:v1"},
		"or on another when it is not free":    {[]sched.Device{phone("p1")}, []sched.Lane{prefer(lane("v1", 1, 1, 1), "p2")}, "p1:v1"},
		"another device after an error":        {[]sched.Device{with(phone("p1"), "v1"), phone("p2")}, []sched.Lane{avoid(lane("v1", 1, 1, 1), "p1")}, "p2:v1"},
		"waiting for a busy one":               {[]sched.Device{phone("p1"), serving(phone("p2"), "v2")}, []sched.Lane{avoid(lane("v1", 1, 1, 1), "p1")}, ""},
		"not behind the one it avoids":         {[]sched.Device{serving(phone("p1"), "v1"), phone("p2")}, []sched.Lane{avoid(lane("v1", 1, 1, 1), "p1")}, "p2:v1"},
		"behind a third that serves it":        {[]sched.Device{serving(phone("p1"), "v1"), phone("p2"), serving(phone("p3"), "v1")}, []sched.Lane{avoid(lane("v1", 1, 1, 1), "p1")}, ""},
		"the same when there is no other":      {[]sched.Device{phone("p1"), cloud}, []sched.Lane{avoid(lane("v1", 1, 1, 1), "p1")}, "p1:v1"},
		"any is never a cloud":                 {[]sched.Device{cloud}, []sched.Lane{lane("v1", 1, 1, 1)}, ""},
		"a cloud when asked for":               {[]sched.Device{cloud, phone("p1")}, []sched.Lane{target(lane("v1", 1, 1, 1), qgjob.TargetBrowserStack)}, "c1:v1"},
		"any leaves the phone to who needs it": {
			[]sched.Device{phone("a1"), emulator},
			[]sched.Lane{lane("v1", 1, 1, 1), target(lane("v2", 1, 1, 2), qgjob.TargetDevice)},
			"a1:v2 e1:v1",
		},
		"a new group leaves an installed app alone": {
			[]sched.Device{with(phone("p1"), "v1"), phone("p2")},
			[]sched.Lane{lane("v2", 0, 1, 2), lane("v1", 1, 1, 1)},
			"p1:v1 p2:v2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := sched.Snapshot{Devices: c.devices, Lanes: c.lanes}
			plan := sched.Plan(s, now)
			if got := told(s, plan); got != c.want {
				t.Fatalf("plan %q, want %q", got, c.want)
			}
			for _, a := range plan {
				if a.Reason == "" {
					t.Fatalf("%+v has no reason", a)
				}
			}
		})
	}
}

func TestReasons(t *testing.T) {
	s := sched.Snapshot{
		Devices: []sched.Device{with(phone("p1"), "v1"), phone("p2"), phone("p3")},
		Lanes:   []sched.Lane{lane("v1", 1, 7, 1), lane("v2", 1, 1, 2)},
	}
	got := map[string]string{}
	for _, a := range sched.Plan(s, now) {
		got[a.DeviceID] = a.Reason
	}
	for device, want := range map[string]string{
		"p1": "own app installed: no install", "p2": "no device serves this group", "p3": "joins: 6 waiting on 1 device, the last one starts 111 s sooner",
	} {
		if got[device] != want {
			t.Errorf("%s: %q, want %q", device, got[device], want)
		}
	}
}

// A decision is to stay quick with a large fleet and a deep queue: of one device that has come free, and of a whole
// fleet that has.
func BenchmarkPlan(b *testing.B) {
	for _, c := range []struct{ devices, free, groups, orgs int }{
		{100, 1, 1_000, 10},
		{1_000, 1, 1_000, 10},
		{1_000, 1, 10_000, 10},
		{1_000, 1, 10_000, 1_000},
		{1_000, 500, 10_000, 10},
		{1_000, 1_000, 10_000, 100},
	} {
		b.Run(fmt.Sprintf("devices=%d/free=%d/groups=%d/orgs=%d", c.devices, c.free, c.groups, c.orgs), func(b *testing.B) {
			s := large(c.devices, c.free, c.groups, c.orgs)
			least := time.Hour
			for b.Loop() {
				start := time.Now()
				if plan := sched.Plan(s, now); len(plan) == 0 {
					b.Fatal("nothing was planned")
				}
				least = min(least, time.Since(start))
			}
			b.ReportMetric(least.Seconds()*1e3, "ms-at-best")
		})
	}
}

// large is a queue in the middle of a busy day: every device has an app, and those that are not free serve one.
func large(devices, free, groups, orgs int) sched.Snapshot {
	var s sched.Snapshot
	at := func(i int) (g sched.Group) {
		return sched.Group{OrgID: fmt.Sprintf("org%d", i%orgs), AppVersionID: fmt.Sprintf("v%d", i), Target: qgjob.Targets[i%2]}
	}
	for i := range devices {
		d := phone(fmt.Sprintf("p%04d", i))
		g := at(i * 7 % groups)
		d.Installed = &qgjob.App{OrgID: g.OrgID, AppVersionID: g.AppVersionID}
		if i >= free {
			d.Free, d.Serving, d.Until = false, &g, now.Add(time.Duration(i%60)*time.Second)
		}
		s.Devices = append(s.Devices, d)
	}
	for i := range groups {
		age := time.Duration(groups-i) * time.Second
		s.Lanes = append(s.Lanes, sched.Lane{
			Group: at(i), Priority: []int{0, 1, 3, 10, 100}[i*13%5], Queued: 1 + i%40, OldestSeq: int64(100 * i), Oldest: now.Add(-age),
		})
	}
	return s
}
