package simulate

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"
	"time"

	"qgjob"
)

// order is the order in which a baseline serves tasks.
type order func(a, b *task) int

func byOrder(a, b *task) int {
	return cmp.Or(cmp.Compare(a.AtMS, b.AtMS), cmp.Compare(a.index, b.index))
}

func byPriority(a, b *task) int { return cmp.Or(cmp.Compare(a.Priority, b.Priority), byOrder(a, b)) }

// byVersion is the contract read literally: jobs sorted by their app version.
func byVersion(a, b *task) int {
	return cmp.Or(strings.Compare(a.AppVersion, b.AppVersion), strings.Compare(a.Org, b.Org), byPriority(a, b))
}

// baseline serves tasks in one order. A free phone takes the first that it can run and whose organization
// is below its quota; with affinity, the first of the app that is on it before that.
type baseline struct {
	order    order
	affinity bool
	free     []*phone // by index
	queues   map[pool]*tasks
	own      map[app]map[qgjob.Target]*tasks
	limit    map[string]int
	running  map[string]int
}

func newBaseline(e *engine, fleet Fleet, by order, affinity bool) *baseline {
	b := &baseline{
		order: by, affinity: affinity, free: slices.Clone(e.phones), queues: map[pool]*tasks{},
		own: map[app]map[qgjob.Target]*tasks{}, limit: map[string]int{}, running: map[string]int{},
	}
	for _, o := range fleet.Orgs {
		b.limit[o.ID] = o.MaxDevices
	}
	return b
}

func (b *baseline) submit(_ time.Time, added []*task) {
	for _, t := range added {
		q := b.queues[t.pool]
		if q == nil {
			q = &tasks{order: b.order}
			b.queues[t.pool] = q
		}
		heap.Push(q, t)
		if !b.affinity {
			continue
		}
		if b.own[t.app()] == nil {
			b.own[t.app()] = map[qgjob.Target]*tasks{}
		}
		q = b.own[t.app()][t.Target]
		if q == nil {
			q = &tasks{order: b.order}
			b.own[t.app()][t.Target] = q
		}
		heap.Push(q, t)
	}
}

func (b *baseline) ended(_ time.Time, d *phone, t *task) {
	b.running[t.Org]--
	at, _ := slices.BinarySearchFunc(b.free, d, func(a, b *phone) int { return cmp.Compare(a.index, b.index) })
	b.free = slices.Insert(b.free, at, d)
}

func (b *baseline) choose(time.Time) []choice {
	var chosen []choice
	var left []*phone
	for _, d := range b.free {
		t, reason := b.next(d)
		if t == nil {
			left = append(left, d)
			continue
		}
		t.started = true
		b.running[t.Org]++
		chosen = append(chosen, choice{t, d, reason})
	}
	b.free = left
	return chosen
}

func (b *baseline) next(d *phone) (*task, string) {
	if own := b.own[d.app]; own != nil {
		if t := b.first(d, func(yield func(qgjob.Target, *tasks)) {
			for target, q := range own {
				yield(target, q)
			}
		}); t != nil {
			return t, "own app installed"
		}
	}
	return b.first(d, func(yield func(qgjob.Target, *tasks)) {
		for p, q := range b.queues {
			yield(p.target, q)
		}
	}), "next in order"
}

// first is the first task of some queues that a phone can run now.
func (b *baseline) first(d *phone, queues func(yield func(qgjob.Target, *tasks))) *task {
	var best *task
	queues(func(target qgjob.Target, q *tasks) {
		if !target.Accepts(d.Target) {
			return
		}
		for len(q.items) > 0 && q.items[0].started {
			heap.Pop(q)
		}
		if len(q.items) == 0 {
			return
		}
		t := q.items[0]
		if limit := b.limit[t.Org]; limit > 0 && b.running[t.Org] >= limit {
			return
		}
		if best == nil || b.order(t, best) < 0 {
			best = t
		}
	})
	return best
}

func (b *baseline) eta() *ETA { return nil }

// tasks is a heap in a baseline's order.
type tasks struct {
	items []*task
	order order
}

func (h *tasks) Len() int           { return len(h.items) }
func (h *tasks) Less(i, j int) bool { return h.order(h.items[i], h.items[j]) < 0 }
func (h *tasks) Swap(i, j int)      { h.items[i], h.items[j] = h.items[j], h.items[i] }
func (h *tasks) Push(x any)         { h.items = append(h.items, x.(*task)) }

func (h *tasks) Pop() any {
	last := len(h.items) - 1
	t := h.items[last]
	h.items = h.items[:last]
	return t
}
