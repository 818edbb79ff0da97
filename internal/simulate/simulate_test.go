package simulate

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"qgjob"
)

func worlds(rt *rapid.T) ([]Job, Fleet) {
	fleet := Fleet{Orgs: []Org{{ID: "a", Weight: 2, MaxDevices: rapid.IntRange(0, 2).Draw(rt, "quota")}, {ID: "b", Weight: 1}}}
	fleet.Devices = append(fleet.Devices, Device{ID: "p0", Target: qgjob.TargetDevice, InstallMS: 45_000, ResetMS: 1500})
	for i := range rapid.IntRange(0, 4).Draw(rt, "more devices") {
		fleet.Devices = append(fleet.Devices, Device{
			ID: fmt.Sprintf("d%d", i), Target: rapid.SampledFrom([]qgjob.Target{qgjob.TargetDevice, qgjob.TargetEmulator}).Draw(rt, "kind"),
			InstallMS: int64(rapid.IntRange(0, 60_000).Draw(rt, "install")), ResetMS: int64(rapid.IntRange(0, 3000).Draw(rt, "reset")),
		})
	}
	var jobs []Job
	at := int64(0)
	for r := range rapid.IntRange(1, 12).Draw(rt, "runs") {
		at += int64(rapid.IntRange(0, 200_000).Draw(rt, "pause"))
		org := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "org")
		version := rapid.SampledFrom([]string{"v1", "v2", "v3"}).Draw(rt, "version")
		target := rapid.SampledFrom([]qgjob.Target{qgjob.TargetAny, qgjob.TargetDevice}).Draw(rt, "target")
		for i := range rapid.IntRange(1, 6).Draw(rt, "jobs") {
			jobs = append(jobs, Job{
				ID: fmt.Sprintf("r%dj%d", r, i), AtMS: at, Org: org, AppVersion: version, Target: target, Test: fmt.Sprintf("t%d", i),
				Priority: rapid.IntRange(0, 3).Draw(rt, "priority"), Run: fmt.Sprintf("r%d", r), DurationMS: int64(rapid.IntRange(0, 90_000).Draw(rt, "duration")),
			})
		}
	}
	return jobs, fleet
}

// A trace is what phones can do, whoever decides: every job once, not before it was submitted, no two at once on a
// device, an install exactly where the app changes, quotas kept.
func TestTraces(t *testing.T) {
	for _, policy := range Policies {
		t.Run(policy, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				jobs, fleet := worlds(rt)
				r, err := Run(jobs, fleet, policy)
				if err != nil {
					rt.Fatal(err)
				}
				checkTrace(rt, jobs, fleet, r)
			})
		})
	}
}

func checkTrace(rt *rapid.T, jobs []Job, fleet Fleet, r *Result) {
	if len(r.Trace) != len(jobs) {
		rt.Fatalf("%d of %d jobs ran", len(r.Trace), len(jobs))
	}
	byID := map[string]Job{}
	for _, j := range jobs {
		byID[j.ID] = j
	}
	free := map[string]int64{}
	on := map[string]app{}
	installs := 0
	for i, a := range r.Trace {
		j, ok := byID[a.Job]
		delete(byID, a.Job)
		d := fleet.Devices[slices.IndexFunc(fleet.Devices, func(d Device) bool { return d.ID == a.Device })]
		install, reset := d.InstallMS, int64(0)
		if on[d.ID] == (app{j.Org, j.AppVersion}) {
			install, reset = 0, d.ResetMS
		} else {
			installs++
		}
		switch {
		case !ok:
			rt.Fatalf("%+v: unknown, or ran twice", a)
		case a.StartMS < j.AtMS || a.StartMS < free[d.ID]:
			rt.Fatalf("%+v starts before it was submitted or before the device was free (%d)", a, free[d.ID])
		case a.InstallMS != install || a.ResetMS != reset || a.EndMS != a.StartMS+install+reset+j.DurationMS:
			rt.Fatalf("%+v: it pays install %d, reset %d, and runs %d", a, install, reset, j.DurationMS)
		case !j.Target.Accepts(d.Target):
			rt.Fatalf("%+v: a %s does not run %s", a, d.Target, j.Target)
		case i > 0 && a.StartMS < r.Trace[i-1].StartMS:
			rt.Fatalf("%+v is not in the order of starts", a)
		case a.Reason == "":
			rt.Fatalf("%+v has no reason", a)
		}
		free[d.ID], on[d.ID] = a.EndMS, app{j.Org, j.AppVersion}
		for _, o := range fleet.Orgs {
			running := 0
			for _, other := range r.Trace[:i+1] {
				if other.EndMS > a.StartMS && o.ID == jobs[slices.IndexFunc(jobs, func(j Job) bool { return j.ID == other.Job })].Org {
					running++
				}
			}
			if o.MaxDevices > 0 && running > o.MaxDevices {
				rt.Fatalf("%+v: %s runs on %d devices, its quota is %d", a, o.ID, running, o.MaxDevices)
			}
		}
	}
	if installs != r.Installs {
		rt.Fatalf("%d installs, it says %d", installs, r.Installs)
	}
}

// Within a group ours goes by priority, then by submission.
func TestOursKeepsTheContract(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		jobs, fleet := worlds(rt)
		fleet.Orgs = nil
		r, err := Run(jobs, fleet, "ours")
		if err != nil {
			rt.Fatal(err)
		}
		for i, a := range r.Jobs {
			for k, b := range r.Jobs[i+1:] {
				start := r.Trace[i].StartMS
				same := a.Org == b.Org && a.AppVersion == b.AppVersion && a.Target == b.Target
				if same && b.AtMS <= start && start < r.Trace[i+1+k].StartMS && (b.Priority < a.Priority || b.Priority == a.Priority && b.AtMS < a.AtMS) {
					rt.Fatalf("%+v started before %+v", *a, *b)
				}
			}
		}
	})
}

// The scheduler never looks at the duration of a job before it has ended: what only ends later decides nothing.
func TestDurationsAreNotKnownBefore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		jobs, fleet := worlds(rt)
		r, err := Run(jobs, fleet, "ours")
		if err != nil {
			rt.Fatal(err)
		}
		changed := slices.Clone(jobs)
		i := rapid.IntRange(0, len(jobs)-1).Draw(rt, "changed")
		changed[i].DurationMS += 1_000_000
		other, err := Run(changed, fleet, "ours")
		if err != nil {
			rt.Fatal(err)
		}
		end := int64(0)
		for _, a := range r.Trace {
			if a.Job == jobs[i].ID {
				end = a.EndMS
			}
		}
		for k, a := range r.Trace {
			b := other.Trace[k]
			if a.StartMS >= end {
				break
			}
			if a.Job != b.Job || a.Device != b.Device || a.StartMS != b.StartMS || a.Reason != b.Reason {
				rt.Fatalf("%s, which ends at %d, changed what started before:\n%+v\n%+v", jobs[i].ID, end, a, b)
			}
		}
	})
}

// Of the jobs of one run the longest expected goes first, once it is known what to expect.
func TestLongestExpectedFirst(t *testing.T) {
	fleet := Fleet{Devices: []Device{{ID: "d1", Target: qgjob.TargetDevice, InstallMS: 1000, ResetMS: 10}}}
	var jobs []Job
	for run := range 4 {
		for i, ms := range []int64{5_000, 90_000, 30_000} {
			jobs = append(jobs, Job{
				ID: fmt.Sprintf("r%dj%d", run, i), AtMS: int64(run) * 1_000_000, Org: "a", AppVersion: fmt.Sprintf("v%d", run),
				Test: fmt.Sprintf("t%d", i), Priority: 1, Target: qgjob.TargetAny, Run: fmt.Sprintf("r%d", run), DurationMS: ms,
			})
		}
	}
	r, err := Run(jobs, fleet, "ours")
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, a := range r.Trace[9:] {
		order = append(order, a.Job)
	}
	if got := strings.Join(order, " "); got != "r3j1 r3j2 r3j0" {
		t.Errorf("the last run went %s", got)
	}
}

func TestBadFiles(t *testing.T) {
	job := func(old, replace string) string { return strings.Replace(exampleJob, old, replace, 1) }
	for name, c := range map[string]struct{ text, want string }{
		"no job":          {"\n\n", "w:2: there is no job"},
		"no JSON":         {exampleJob + "\n{\"id\":", "w:2: this is no JSON: it ends too early"},
		"a list":          {"[1]", "w:1: this is a JSON array: it must be an object in {}"},
		"two in a line":   {exampleJob + exampleJob, "w:1: there is more than one JSON value"},
		"no id":           {job(`"id":"j1",`, ""), "w:1: id is missing"},
		"no duration":     {job(`,"duration_ms":41000`, ""), "w:1: duration_ms is missing"},
		"wrong type":      {job(`"priority":3`, `"priority":"3"`), "w:1: priority is a JSON string: it must be a whole number"},
		"a fraction":      {job(`41000`, `41.5`), "w:1: duration_ms is a JSON number 41.5: it must be a whole number"},
		"negative":        {job(`"at_ms":0`, `"at_ms":-1`), "w:1: at_ms is -1: it must be from 0 to"},
		"bad priority":    {job(`"priority":3`, `"priority":1001`), "w:1: priority 1001 is out of range"},
		"bad target":      {job(`"target":"device"`, `"target":"watch"`), `w:1: target "watch" is unknown`},
		"the same twice":  {exampleJob + "\n\n" + exampleJob, `w:3: job "j1" is there already, on line 1`},
		"an endless line": {strings.Repeat(" ", maxLine+1), "w:1: the line is longer than"},
	} {
		t.Run("workload: "+name, func(t *testing.T) {
			_, _, err := ReadWorkload(strings.NewReader(c.text), "w")
			wantInvalid(t, err, c.want)
		})
	}
	for name, c := range map[string]struct{ text, want string }{
		"no device":      {`{"devices":[]}`, "f:1: there is no device"},
		"no JSON":        {"{\n\"devices\":[\n}", "f:3: this is no JSON: invalid character '}'"},
		"empty":          {"", "f:1: this is no JSON: it ends too early"},
		"no install":     {"{\"devices\":[\n{\"id\":\"d1\",\"reset_ms\":1}]}", `f:2: device "d1": install_ms is missing`},
		"any":            {"{\"devices\":[\n{\"id\":\"d1\",\"target\":\"any\",\"install_ms\":1,\"reset_ms\":1}]}", `f:2: device "d1" has target "any"`},
		"the same twice": {"{\"devices\":[\n{\"id\":\"d1\",\"install_ms\":1,\"reset_ms\":1},\n{\"id\":\"d1\",\"install_ms\":1,\"reset_ms\":1}]}", `f:3: device "d1" is there already, on line 2`},
		"no weight":      {"{\"devices\":[{\"id\":\"d1\",\"install_ms\":1,\"reset_ms\":1}],\n\"orgs\":[\n{\"id\":\"a\",\"weight\":-1}]}", `f:3: organization "a": weight is -1`},
		"wrong type":     {`{"devices":{}}`, "f:1: devices is a JSON object: it must be a list in []"},
	} {
		t.Run("fleet: "+name, func(t *testing.T) {
			_, _, err := ReadFleet(strings.NewReader(c.text), "f")
			wantInvalid(t, err, c.want)
		})
	}
}

func wantInvalid(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.HasPrefix(err.Error(), want) || qgjob.ErrorCode(err) != qgjob.CodeInvalid {
		t.Errorf("%v, want %q", err, want)
	}
}

func TestUnknownFieldsAreTold(t *testing.T) {
	jobs, unknown, err := ReadWorkload(strings.NewReader(`{"id":"j1","at_ms":7,"org":"a","app_version":"v1","test":"t","prio":3,"duration_ms":1}`), "w")
	if err != nil || len(jobs) != 1 || jobs[0].Priority != qgjob.DefaultPriority || jobs[0].Target != qgjob.TargetAny || !slices.Equal(unknown, []string{"prio"}) {
		t.Errorf("%+v, %v, %v", jobs, unknown, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(exampleJob, exampleFleet)
	f.Fuzz(func(t *testing.T, workload, fleet string) {
		_, _, _ = ReadWorkload(strings.NewReader(workload), "w")
		_, _, _ = ReadFleet(strings.NewReader(fleet), "f")
	})
}

// A chart is well-formed whatever ids hold, and marks each install.
func TestChart(t *testing.T) {
	fleet := Fleet{Devices: []Device{{ID: `<d&"1>`, Target: qgjob.TargetDevice, InstallMS: 4000, ResetMS: 10}}}
	var jobs []Job
	for i := range 6 {
		jobs = append(jobs, Job{ID: fmt.Sprintf("<j%d>", i), Org: "a&b", AppVersion: fmt.Sprint("v", i/3), Test: "t<", Priority: 1, Target: qgjob.TargetAny, DurationMS: 9000})
	}
	r, err := Run(jobs, fleet, "fifo")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Chart(&b, r, fleet, "a < b"); err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(b.Bytes())); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(b.String(), "<title>install of "); n != 2 {
		t.Errorf("%d installs are marked, want 2", n)
	}
}

func TestResize(t *testing.T) {
	f := Fleet{Devices: []Device{{ID: "d1", Target: qgjob.TargetDevice}, {ID: "d1+1", Target: qgjob.TargetEmulator}}}
	more, err := f.Resize(3)
	var ids []string
	for _, d := range more.Devices {
		ids = append(ids, d.ID)
	}
	if got := strings.Join(ids, " "); err != nil || got != "d1 d1+1 d1+2 d1+1+1 d1+3" || len(f.Devices) != 2 {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := f.Resize(-2); qgjob.ErrorCode(err) != qgjob.CodeInvalid {
		t.Errorf("no device left: %v", err)
	}
}

// A run that has a deadline and a budget is done sooner than one without, for what the budget allows; other policies
// know of no deadlines.
func TestDeadlinesOverflow(t *testing.T) {
	fleet := Fleet{Devices: []Device{{ID: "p1", Target: qgjob.TargetDevice, InstallMS: 30_000, ResetMS: 2000}}}
	for i := range 3 {
		fleet.Devices = append(fleet.Devices, Device{ID: fmt.Sprintf("bs%d", i), Target: qgjob.TargetBrowserStack, InstallMS: 30_000, ResetMS: 2000, MinutePrice: 0.5})
	}
	jobs := func(deadline int64, maxCost float64) (jobs []Job) {
		for i := range 30 {
			jobs = append(jobs, Job{
				ID: fmt.Sprintf("j%d", i), Org: "a", AppVersion: "v1", Test: "t", Target: qgjob.TargetAny, Priority: 1, Run: "r1",
				DurationMS: 40_000, DeadlineMS: deadline, MaxCost: maxCost,
			})
		}
		return jobs
	}
	summary := func(policy string, jobs []Job) Summary {
		r, err := Run(jobs, fleet, policy)
		if err != nil {
			t.Fatal(err)
		}
		return Summarize(r, fleet, policy)
	}
	alone, rich, poor := summary("ours", jobs(0, 0)), summary("ours", jobs(600_000, 100)), summary("ours", jobs(600_000, 2))
	switch {
	case alone.Cost != 0 || alone.MakespanMS < 1_200_000:
		t.Errorf("without a deadline %+v", alone)
	case rich.MakespanMS > 600_000 || rich.Cost <= 2:
		t.Errorf("with a budget it is done after %d ms for %.2f", rich.MakespanMS, rich.Cost)
	case poor.Cost == 0 || poor.Cost > 2.1 || poor.MakespanMS <= rich.MakespanMS || poor.MakespanMS >= alone.MakespanMS:
		t.Errorf("with a small budget it is done after %d ms for %.2f", poor.MakespanMS, poor.Cost)
	}
	if s := summary("fifo", jobs(600_000, 100)); s.Cost != 0 {
		t.Errorf("fifo spends %.2f", s.Cost)
	}
}
