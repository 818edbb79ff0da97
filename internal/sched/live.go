package sched

import (
	"slices"
	"time"
)

// Queue adds jobs to the planner: those of a lane that was queued now. Its entries come after all that were
// queued before. It returns the number that assignments name the lane by.
func (p *Planner) Queue(added Lane, now time.Time) int {
	p.advance(now)
	added.Next = slices.Clone(added.Next)
	l := p.byLane[added.key()]
	if l == nil {
		l = p.addLane(added)
	} else {
		p.extend(l, added)
	}
	p.place(l.group)
	return l.index
}

func (p *Planner) extend(l *lane, added Lane) {
	head := Entry{added.OldestSeq, added.Oldest, added.OldestRun}
	if l.left == 0 {
		l.head, l.next, l.work = head, added.Next, 0
	} else {
		for known := len(l.next) + 1; known < l.left; known++ {
			l.next = append(l.next, Entry{Seq: l.head.Seq + int64(known), At: l.head.At})
		}
		l.next = append(append(l.next, head), added.Next...)
	}
	l.left += added.Queued
	if added.Work <= 0 {
		added.Work = time.Duration(added.Queued) * PriorRun
	}
	l.work += added.Work
	p.count(l, added.Queued)
}

// Expect says when the job that a device runs is expected to end, by what is known of the job itself.
func (p *Planner) Expect(deviceID string, until time.Time) {
	if d := p.devices[deviceID]; d != nil {
		d.Until = until
	}
}

// Release says that a device's job has ended and that it waits for work again. Its organization is charged what
// the job took instead of what it was expected to take.
func (p *Planner) Release(deviceID string, now time.Time) {
	p.advance(now)
	d := p.devices[deviceID]
	if d == nil || d.serving == nil {
		return
	}
	g := d.serving
	if d.over == nil {
		p.charge(g.org, now.Sub(d.since)-d.charged)
	}
	d.settle(g.org, now)
	was := g.org.blocked()
	g.org.running--
	p.unblock(g.org, was)
	g.serving = slices.DeleteFunc(g.serving, func(other *device) bool { return other == d })
	d.serving, d.Serving = nil, nil
	d.Free = true
	if d.Unavailable == "" {
		p.free = with(p.free, d)
		d.class.free = with(d.class.free, d)
	}
	p.place(g)
}

// with adds a device to those sorted by id.
func with(devices []*device, d *device) []*device {
	at, _ := slices.BinarySearchFunc(devices, d, byID)
	return slices.Insert(devices, at, d)
}
