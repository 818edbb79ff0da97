package sched

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
)

var now = time.UnixMilli(1_700_000_000_000)

func group(app string) Group { return Group{OrgID: "acme", AppVersionID: app, Target: qgjob.TargetAny} }

func lane(app string, priority, queued int, oldest int64) Lane {
	return Lane{Group: group(app), Priority: priority, Queued: queued, OldestSeq: oldest, Oldest: now}
}

func phone(id string) Device { return Device{ID: id, Kind: qgjob.TargetDevice, Free: true} }

func with(d Device, app string) Device {
	d.Installed = &qgjob.App{OrgID: "acme", AppVersionID: app, BuildSHA256: "b"}
	return d
}

func serving(d Device, app string) Device {
	g := group(app)
	d.Free, d.Serving = false, &g
	return d
}

// told is a plan in short: "p1:v1 p2:v2", in the order of the devices.
func told(s Snapshot, plan []Assignment) string {
	var out []string
	for _, a := range plan {
		out = append(out, a.DeviceID+":"+s.Lanes[a.Lane].AppVersionID)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestPlan(t *testing.T) {
	prefer := func(l Lane, device string) Lane { l.Prefer = device; return l }
	avoid := func(l Lane, device string) Lane { l.Avoid = device; return l }
	target := func(l Lane, t qgjob.Target) Lane { l.Target = t; return l }
	emulator := Device{ID: "e1", Kind: qgjob.TargetEmulator, Free: true}
	cloud := Device{ID: "c1", Kind: qgjob.TargetBrowserStack, Free: true}
	for name, c := range map[string]struct {
		devices []Device
		lanes   []Lane
		want    string
	}{
		"nothing waits":                        {[]Device{phone("p1")}, nil, ""},
		"no device":                            {nil, []Lane{lane("v1", 1, 1, 1)}, ""},
		"more urgent first, whatever is older": {[]Device{phone("p1")}, []Lane{lane("v1", 1, 1, 1), lane("v2", 0, 1, 2)}, "p1:v2"},
		"urgent before its own app":            {[]Device{with(phone("p1"), "v1")}, []Lane{lane("v1", 1, 5, 1), lane("v2", 0, 1, 2)}, "p1:v2"},
		"its own app before an older group":    {[]Device{with(phone("p1"), "v2")}, []Lane{lane("v1", 1, 1, 1), lane("v2", 1, 1, 2)}, "p1:v2"},
		"an unserved group before joining":     {[]Device{serving(phone("p1"), "v1"), phone("p2")}, []Lane{lane("v1", 1, 9, 1), lane("v2", 1, 1, 2)}, "p2:v2"},
		"the oldest unserved group first":      {[]Device{phone("p1")}, []Lane{lane("v2", 1, 1, 7), lane("v1", 1, 1, 3)}, "p1:v1"},
		"two waiting are worth a second phone": {[]Device{serving(phone("p1"), "v1"), phone("p2")}, []Lane{lane("v1", 1, 2, 1)}, "p2:v1"},
		"one waiting is not":                   {[]Device{serving(phone("p1"), "v1"), phone("p2")}, []Lane{lane("v1", 1, 1, 1)}, ""},
		"one waiting is, without an install":   {[]Device{serving(phone("p1"), "v1"), with(phone("p2"), "v1")}, []Lane{lane("v1", 1, 1, 1)}, "p2:v1"},
		"less urgent work before none": {
			[]Device{serving(phone("p1"), "v1"), phone("p2")},
			[]Lane{lane("v1", 0, 1, 1), lane("v2", 5, 1, 2)},
			"p2:v2",
		},
		"three idle phones share a long group": {[]Device{phone("p1"), phone("p2"), phone("p3")}, []Lane{lane("v1", 1, 30, 1)}, "p1:v1 p2:v1 p3:v1"},
		"no more devices than jobs":            {[]Device{phone("p1"), phone("p2"), phone("p3")}, []Lane{lane("v1", 1, 2, 1)}, "p1:v1 p2:v1"},
		"tried again on the same device":       {[]Device{phone("p1"), phone("p2")}, []Lane{prefer(lane("v1", 1, 1, 1), "p2")}, "p2:v1"},
		"or on another when it is not free":    {[]Device{phone("p1")}, []Lane{prefer(lane("v1", 1, 1, 1), "p2")}, "p1:v1"},
		"another device after an error":        {[]Device{with(phone("p1"), "v1"), phone("p2")}, []Lane{avoid(lane("v1", 1, 1, 1), "p1")}, "p2:v1"},
		"waiting for a busy one":               {[]Device{phone("p1"), serving(phone("p2"), "v2")}, []Lane{avoid(lane("v1", 1, 1, 1), "p1")}, ""},
		"not behind the one it avoids":         {[]Device{serving(phone("p1"), "v1"), phone("p2")}, []Lane{avoid(lane("v1", 1, 1, 1), "p1")}, "p2:v1"},
		"behind a third that serves it":        {[]Device{serving(phone("p1"), "v1"), phone("p2"), serving(phone("p3"), "v1")}, []Lane{avoid(lane("v1", 1, 1, 1), "p1")}, ""},
		"the same when there is no other":      {[]Device{phone("p1"), cloud}, []Lane{avoid(lane("v1", 1, 1, 1), "p1")}, "p1:v1"},
		"any is never a cloud":                 {[]Device{cloud}, []Lane{lane("v1", 1, 1, 1)}, ""},
		"a cloud when asked for":               {[]Device{cloud, phone("p1")}, []Lane{target(lane("v1", 1, 1, 1), qgjob.TargetBrowserStack)}, "c1:v1"},
		"any leaves the phone to who needs it": {
			[]Device{phone("a1"), emulator},
			[]Lane{lane("v1", 1, 1, 1), target(lane("v2", 1, 1, 2), qgjob.TargetDevice)},
			"a1:v2 e1:v1",
		},
		"a new group leaves an installed app alone": {
			[]Device{with(phone("p1"), "v1"), phone("p2")},
			[]Lane{lane("v2", 0, 1, 2), lane("v1", 1, 1, 1)},
			"p1:v1 p2:v2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := Snapshot{Devices: c.devices, Lanes: c.lanes}
			plan := Plan(s, now)
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
	s := Snapshot{
		Devices: []Device{with(phone("p1"), "v1"), phone("p2"), phone("p3")},
		Lanes:   []Lane{lane("v1", 1, 7, 1), lane("v2", 1, 1, 2)},
	}
	got := map[string]string{}
	for _, a := range Plan(s, now) {
		got[a.DeviceID] = a.Reason
	}
	for device, want := range map[string]string{
		"p1": "own app installed: no install", "p2": "no device serves this group", "p3": "joins: 6 waiting on 1 device",
	} {
		if got[device] != want {
			t.Errorf("%s: %q, want %q", device, got[device], want)
		}
	}
}

// A decision is to stay quick with every lane of a snapshot filled and a large fleet.
func BenchmarkPlan(b *testing.B) {
	var s Snapshot
	for i := range 500 {
		d := phone(fmt.Sprintf("p%03d", i))
		if i%2 == 0 {
			d = serving(d, fmt.Sprintf("v%d", i%50))
		}
		s.Devices = append(s.Devices, d)
	}
	for i := range 1000 {
		s.Lanes = append(s.Lanes, lane(fmt.Sprintf("v%d", i), i%5, 1000, int64(i)))
	}
	for b.Loop() {
		Plan(s, now)
	}
}
