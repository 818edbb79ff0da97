package simulate

import (
	"cmp"
	"container/heap"
	"slices"
)

// engine is the virtual world: what is to be submitted, and what runs until when.
type engine struct {
	tasks   []*task // by submission
	phones  []*phone
	running endings
	policy  policy
	result  Result
}

func newEngine(workload []Job, fleet Fleet) *engine {
	e := &engine{}
	tasks := make([]task, len(workload))
	for i := range workload {
		j := &workload[i]
		tasks[i] = task{Job: j, index: i, pool: pool{j.Org, j.Target}}
		e.tasks = append(e.tasks, &tasks[i])
	}
	slices.SortStableFunc(e.tasks, func(a, b *task) int { return cmp.Compare(a.AtMS, b.AtMS) })
	for i, d := range fleet.Devices {
		e.phones = append(e.phones, &phone{Device: d, index: i})
	}
	return e
}

// run goes from moment to moment until everything has ended.
func (e *engine) run() {
	waiting := e.tasks
	for len(waiting) > 0 || len(e.running) > 0 {
		var ms int64
		switch {
		case len(waiting) == 0:
			ms = e.running[0].endMS
		case len(e.running) == 0:
			ms = waiting[0].AtMS
		default:
			ms = min(waiting[0].AtMS, e.running[0].endMS)
		}
		for len(e.running) > 0 && e.running[0].endMS == ms {
			d := heap.Pop(&e.running).(*phone)
			t := d.task
			d.task = nil
			e.policy.ended(at(ms), d, t)
		}
		n := 0
		for n < len(waiting) && waiting[n].AtMS == ms {
			n++
		}
		if n > 0 {
			e.policy.submit(at(ms), waiting[:n])
			waiting = waiting[n:]
		}
		e.result.Decisions++
		for _, c := range e.policy.choose(at(ms)) {
			e.start(ms, c)
		}
	}
}

func (e *engine) start(ms int64, c choice) {
	d, t := c.device, c.task
	install, reset := d.costs(t)
	if d.app != t.app() {
		e.result.Installs++
	}
	d.task, d.app, d.endMS = t, t.app(), ms+install+reset+t.DurationMS
	heap.Push(&e.running, d)
	e.result.Cost += span(d.endMS-ms).Minutes() * d.MinutePrice
	e.result.Jobs = append(e.result.Jobs, t.Job)
	e.result.Trace = append(e.result.Trace, Assignment{
		Job: t.ID, Device: d.ID, StartMS: ms, InstallMS: install, ResetMS: reset, EndMS: d.endMS, Reason: c.reason,
	})
}

// endings is a heap of the phones that run something, by when that ends.
type endings []*phone

func (h endings) Len() int { return len(h) }

func (h endings) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].endMS, h[j].endMS), cmp.Compare(h[i].index, h[j].index)) < 0
}

func (h endings) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *endings) Push(x any) { *h = append(*h, x.(*phone)) }

func (h *endings) Pop() any {
	last := len(*h) - 1
	d := (*h)[last]
	*h = (*h)[:last]
	return d
}
