package simulate

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

// ours is the scheduler of the server over the virtual world.
type ours struct {
	planner *sched.Planner
	phones  map[string]*phone
	lanes   [][]*queued // by the planner's number of the lane: its waiting tasks in order
	seq     int64

	all   sched.Estimate
	orgs  map[string]sched.Estimate
	specs map[spec]sched.Estimate

	waits        map[int]sched.Calibration // by priority
	due          deadlines
	predicted    ETA
	byP50, byP90 int
}

// spec is what run times are learned by: an organization's test, whatever the app version.
type spec struct{ org, test string }

// queued is a task with its run time as it was expected when it was submitted.
type queued struct {
	*task
	expected time.Duration
	p50, p90 time.Duration // the waits that it predicts
	learned  bool          // something was learned from how they turned out
}

// deadline is when nine in ten jobs like it have started, as predicted.
func (q *queued) deadline() int64 { return q.AtMS + q.p90.Milliseconds() }

// deadlines is a heap of predictions by when they fail.
type deadlines []*queued

func (h deadlines) Len() int { return len(h) }

func (h deadlines) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].deadline(), h[j].deadline()), cmp.Compare(h[i].index, h[j].index)) < 0
}

func (h deadlines) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *deadlines) Push(x any) { *h = append(*h, x.(*queued)) }

func (h *deadlines) Pop() any {
	last := len(*h) - 1
	q := (*h)[last]
	*h = (*h)[:last]
	return q
}

func newOurs(e *engine, fleet Fleet) *ours {
	o := &ours{phones: map[string]*phone{}, orgs: map[string]sched.Estimate{}, specs: map[spec]sched.Estimate{}, waits: map[int]sched.Calibration{}}
	var s sched.Snapshot
	for _, d := range e.phones {
		o.phones[d.ID] = d
		s.Devices = append(s.Devices, sched.Device{
			Traits: qgjob.Traits{ID: d.ID, Kind: d.Target}, Free: true, Install: expected(d.InstallMS), Reset: expected(d.ResetMS), MinutePrice: d.MinutePrice,
		})
	}
	for _, org := range fleet.Orgs {
		s.Organizations = append(s.Organizations, sched.Organization{ID: org.ID, Weight: org.Weight, MaxDevices: org.MaxDevices, Budget: org.MaxCost})
	}
	var start time.Time
	if len(e.tasks) > 0 {
		start = at(e.tasks[0].AtMS)
	}
	o.planner = sched.New(s, start)
	return o
}

// expected is a fleet's time as the scheduler takes it: nothing at all takes a moment.
func expected(ms int64) time.Duration { return max(span(ms), 1) }

// runTime is the expected run time of a task.
func (o *ours) runTime(t *task) time.Duration {
	return sched.Learned(sched.PriorRun, o.specs[spec{t.Org, t.Test}], o.orgs[t.Org], o.all)
}

func (o *ours) submit(now time.Time, tasks []*task) {
	var runs []submission
	of := map[submission][]*queued{}
	for _, t := range tasks {
		key := t.submission()
		if of[key] == nil {
			runs = append(runs, key)
		}
		of[key] = append(of[key], &queued{task: t, expected: o.runTime(t)})
	}
	for _, run := range runs {
		o.enqueue(now, of[run])
	}
}

// enqueue gives the jobs of one submission their places: of those that are alike, the longest first.
func (o *ours) enqueue(now time.Time, jobs []*queued) {
	slices.SortStableFunc(jobs, func(a, b *queued) int { return cmp.Compare(b.expected, a.expected) })
	type key struct {
		app      app
		target   qgjob.Target
		priority int
		deadline int64
	}
	var keys []key
	of := map[key][]*queued{}
	for _, j := range jobs {
		k := key{j.app(), j.Target, j.Priority, j.DeadlineMS}
		if of[k] == nil {
			keys = append(keys, k)
		}
		of[k] = append(of[k], j)
	}
	for _, k := range keys {
		added := of[k]
		l := sched.Lane{
			Group:    sched.Group{OrgID: k.app.org, AppVersionID: k.app.version, Target: k.target},
			Priority: k.priority, Queued: len(added), OldestSeq: o.seq + 1, Oldest: now, OldestRun: added[0].expected,
		}
		if j := added[0]; k.deadline > 0 {
			run := j.submission()
			l.Overflow = &sched.Overflow{
				Run: fmt.Sprintf("%q %q %q", run.org, run.run, run.job), Deadline: now.Add(span(k.deadline)), MaxCost: j.MaxCost,
			}
		}
		for i, j := range added {
			o.seq++
			l.Work += j.expected
			if i > 0 {
				l.Next = append(l.Next, sched.Entry{Seq: o.seq, At: now, Run: j.expected})
			}
		}
		n := o.planner.Queue(l, now)
		for len(o.lanes) <= n {
			o.lanes = append(o.lanes, nil)
		}
		o.lanes[n] = append(o.lanes[n], added...)
		o.predict(n, k.priority, added)
	}
}

// predict says of each job that was added to a lane when it will start.
func (o *ours) predict(lane, priority int, added []*queued) {
	var behind time.Duration
	for _, j := range slices.Backward(added) {
		j.p50, j.p90 = o.waits[priority].Waits(o.planner.Expected(lane, behind))
		behind += j.expected
		heap.Push(&o.due, j)
	}
}

// overdue learns from the jobs that still wait beyond what was predicted.
func (o *ours) overdue(now time.Time) {
	for len(o.due) > 0 && o.due[0].deadline() < now.UnixMilli() {
		j := heap.Pop(&o.due).(*queued)
		if !j.learned {
			o.learn(j, span(j.deadline()+1-j.AtMS))
		}
	}
}

func (o *ours) learn(j *queued, waited time.Duration) {
	j.learned = true
	o.waits[j.Priority] = o.waits[j.Priority].Observe(waited, j.p50, j.p90)
}

// started learns how a prediction turned out.
func (o *ours) started(j *queued, now time.Time) {
	waited := now.Sub(at(j.AtMS))
	if !j.learned {
		o.learn(j, waited)
	}
	o.predicted.Jobs++
	if waited <= j.p50 {
		o.byP50++
	}
	if waited <= j.p90 {
		o.byP90++
	}
}

func (o *ours) ended(now time.Time, d *phone, t *task) {
	o.planner.Release(d.ID, now)
	key, took := spec{t.Org, t.Test}, span(t.DurationMS)
	o.specs[key] = o.specs[key].Observe(took, sched.Learned(sched.PriorRun, o.orgs[t.Org], o.all))
	o.orgs[t.Org] = o.orgs[t.Org].Observe(took, sched.Learned(sched.PriorRun, o.all))
	o.all = o.all.Observe(took, sched.PriorRun)
}

func (o *ours) choose(now time.Time) []choice {
	o.overdue(now)
	var chosen []choice
	for _, a := range o.planner.Plan(now) {
		j := o.lanes[a.Lane][0]
		o.lanes[a.Lane] = o.lanes[a.Lane][1:]
		d := o.phones[a.DeviceID]
		install, reset := d.costs(j.task)
		o.planner.Expect(a.DeviceID, now.Add(span(install+reset)+j.expected))
		o.started(j, now)
		chosen = append(chosen, choice{j.task, d, a.Reason})
	}
	return chosen
}

func (o *ours) eta() *ETA {
	if n := float64(o.predicted.Jobs); n > 0 {
		o.predicted.StartedByP50, o.predicted.StartedByP90 = float64(o.byP50)/n, float64(o.byP90)/n
	}
	return &o.predicted
}
