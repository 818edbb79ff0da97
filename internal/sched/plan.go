package sched

import (
	"cmp"
	"slices"
	"time"

	"qgjob"
)

const (
	// fairGrain is how much device time by weight two organizations may differ in, for each device of the fleet, and
	// still count as alike. A device leaves the batch of one organization for a group of another when they differ by
	// more: each such change costs an install, and a finer grain would have devices go to and fro.
	fairGrain = 15 * time.Minute
	// installPrice is by how much more an install counts than what it takes from those who wait behind it.
	installPrice = 10.0
)

// Plan gives the free devices work at a moment and keeps it in mind. See the function Plan.
//
// Overdue jobs go first, in the order of submission. Then it goes through the levels, most urgent first. At each,
// free devices take, in this order: lanes that prefer them; the app that is on them, unless another organization
// is far behind; groups that no device serves; served groups that joining helps. Then jobs that their own devices
// would end too late go to a cloud's. What is left of the devices goes on to the next level.
func (p *Planner) Plan(now time.Time) []Assignment {
	p.advance(now)
	p.round++
	p.plan = nil
	if len(p.free) == 0 {
		return nil
	}
	p.rebase()
	for _, o := range p.orgs {
		p.rank(o)
	}
	p.narrow()
	p.overdue()
	for made := -1; made < len(p.plan) && len(p.free) > 0; { // again: what waits behind no longer may
		made = len(p.plan)
		for level := p.levelFrom(0); level >= 0 && len(p.free) > 0; level = p.levelFrom(level + 1) {
			p.pass++
			p.preferred(level)
			p.installed(level)
			p.others(level)
			p.overflow(level)
		}
	}
	for _, q := range p.pools {
		for g := range q.aside {
			delete(q.aside, g)
			g.aside = 0
			p.place(g)
		}
	}
	return p.plan
}

// advance moves the planner's moment and what time alone changes.
func (p *Planner) advance(now time.Time) {
	if now.After(p.now) {
		p.now = now
	}
	for p.changes.len() > 0 && !p.changes.top().changeAt.After(p.now) {
		p.place(p.changes.top())
	}
}

// narrow finds, for each class of devices, how narrow a waiting pool needs it.
func (p *Planner) narrow() {
	for _, c := range p.classes {
		c.narrowed = len(p.devices) + 1
	}
	for _, q := range p.pools {
		if q.waiting == 0 || q.requires.Device != "" {
			continue
		}
		for _, c := range p.classes {
			if q.accepts(c) {
				c.narrowed = min(c.narrowed, p.liveDevices(q))
			}
		}
	}
}

// levelFrom is the most urgent level from one on at which something waits that a free device fits; -1 for none.
func (p *Planner) levelFrom(from int) int {
	level := p.overflowFrom(from)
	for _, q := range p.pools {
		at, _ := slices.BinarySearch(q.levels, from)
		if at < len(q.levels) && (level < 0 || q.levels[at] < level) && p.hasFree(q) {
			level = q.levels[at]
		}
	}
	return level
}

// overdue gives jobs beyond the waiting bound to whatever device they can use.
func (p *Planner) overdue() {
	stuck := map[*line][]*lane{}
	for len(p.free) > 0 {
		var next *lane
		for _, ln := range p.late {
			if ln.overdue.len() == 0 || ln.org.blocked() || !p.hasFree(ln.pool) {
				continue
			}
			if l := ln.overdue.top(); next == nil || sooner(l, next) {
				next = l
			}
		}
		if next == nil {
			break
		}
		if d := p.choose(next.group, next); d != nil {
			p.give(d, next, Why{Rule: RuleOverdue})
			continue
		}
		ln := next.group.pool.lines[next.group.org]
		ln.overdue.remove(next)
		stuck[ln] = append(stuck[ln], next)
	}
	for ln, lanes := range stuck {
		for _, l := range lanes {
			ln.overdue.push(l)
		}
	}
}

// preferred gives jobs that are tried again back to the device that ran them.
func (p *Planner) preferred(level int) {
	for _, d := range slices.Clone(p.free) {
		var best *lane
		for _, l := range p.prefers[d.ID] {
			g := l.group
			if l.left > 0 && g.tier != nil && g.level == level && !g.org.blocked() && g.pool.fits(d) && p.first(g, d) == l && (best == nil || sooner(l, best)) {
				best = l
			}
		}
		if best != nil {
			p.give(d, best, Why{Rule: RuleSameDevice})
		}
	}
}

// installed gives each device the oldest group whose app is on it.
func (p *Planner) installed(level int) {
	for _, d := range slices.Clone(p.free) {
		own := p.own(d, level)
		if own == nil {
			continue
		}
		if g, why := p.challenger(d, own, level); g != nil {
			p.give(d, p.first(g, d), why)
			continue
		}
		p.give(d, own, Why{Rule: RuleInstalled})
	}
}

// own is the lane that a device takes next of those whose app is on it; nil for none.
func (p *Planner) own(d *device, level int) *lane {
	var best *lane
	for _, a := range d.apps {
		if a == nil || a.waiting == 0 {
			continue
		}
		for _, g := range a.groups {
			if g.tier == nil || g.level != level || g.org.blocked() || !g.pool.fits(d) {
				continue
			}
			if l := p.first(g, d); l != nil && l.app == a && (best == nil || sooner(l, best)) {
				best = l
			}
		}
	}
	return best
}

// challenger is the group that a device leaves its batch for at one level; nil for none.
func (p *Planner) challenger(d *device, own *lane, level int) (*group, Why) {
	behind := own.group.org.share - p.grain()*p.scale()
	for _, q := range p.pools {
		t := q.tiers[level]
		if t == nil || !q.fits(d) {
			continue
		}
		if t.queues.len() > 0 {
			g := t.queues.top().groups.top()
			if g.org.share < behind && p.first(g, d) != nil {
				return g, Why{Rule: RuleFair}
			}
		}
		for _, g := range t.served {
			if g.org.share < behind && !g.org.blocked() && p.first(g, d) != nil {
				if gain, ok := p.pays(g, d, level); ok {
					return g, Why{Rule: RuleFair, Gain: gain}
				}
			}
		}
	}
	return nil, Why{}
}

// others gives devices to groups whose app is not on them.
func (p *Planner) others(level int) {
	for len(p.free) > 0 {
		g := p.unserved(level)
		why := Why{Rule: RuleUnserved}
		if g == nil {
			g, why.Gain = p.joinable(level)
			why.Rule = RuleJoin
		}
		if g == nil {
			return
		}
		if d := p.choose(g, nil); d != nil {
			p.give(d, p.first(g, d), why)
			continue
		}
		p.setAside(g)
	}
}

// setAside takes a group out until the plan is made: no free device may run what is next of it.
func (p *Planner) setAside(g *group) {
	if g.pool.aside == nil {
		g.pool.aside = map[*group]bool{}
	}
	g.pool.aside[g] = true
	g.aside = p.round
	p.place(g)
}

// unserved is the group of a level that no device serves, whose organization used least, and which is the oldest.
func (p *Planner) unserved(level int) *group {
	var best *group
	for _, q := range p.pools {
		t := q.tiers[level]
		if t == nil || t.queues.len() == 0 || !p.hasFree(q) {
			continue
		}
		if g := t.queues.top().groups.top(); best == nil || fairer(g, best) < 0 {
			best = g
		}
	}
	return best
}

// joinable is the served group of a level that one more device helps: at the most urgent level the first in the
// order of unserved, at others the one that it helps most.
func (p *Planner) joinable(level int) (*group, time.Duration) {
	for {
		var best *group
		for _, q := range p.pools {
			t := q.tiers[level]
			if t == nil || len(t.served) == 0 || !p.hasFree(q) {
				continue
			}
			for _, g := range t.served {
				if g.org.blocked() || p.gain(g, level) <= 0 {
					continue
				}
				if best == nil || better(g, best, level) {
					best = g
				}
			}
		}
		if best == nil || p.judge(best, level) > 0 {
			return best, gainOf(best)
		}
	}
}

func better(g, than *group, level int) bool {
	if level > qgjob.MostUrgent && g.gain != than.gain {
		return g.gain > than.gain
	}
	return fairer(g, than) < 0
}

func gainOf(g *group) time.Duration {
	if g == nil {
		return 0
	}
	return g.gain
}

// gain is by how much one more device helps a served group, 0 when that does not pay. It is judged once a plan and
// level, as long as nothing happens to the group.
func (p *Planner) gain(g *group, level int) time.Duration {
	if g.judged != p.pass {
		p.judge(g, level)
	}
	return g.gain
}

// judge is gain for the device that the group would get now.
func (p *Planner) judge(g *group, level int) time.Duration {
	g.judged, g.gain = p.pass, 0
	if d := p.choose(g, nil); d != nil {
		if gain, ok := p.pays(g, d, level); ok {
			g.gain = gain
		}
	}
	return g.gain
}

// choose picks the free device for a group, or for one lane of it, that is missed least by others: one on which
// the app is, then of a kind that no narrower requirement waits for, then one without an app that is waited for.
func (p *Planner) choose(g *group, only *lane) *device {
	q := g.pool
	may := func(d *device) bool {
		if only != nil {
			return !p.avoids(only, d)
		}
		return p.first(g, d) != nil
	}
	if q.requires.Device != "" {
		if d := p.devices[q.requires.Device]; d != nil && p.isFree(d) && q.fits(d) && may(d) {
			return d
		}
		return nil
	}
	var best *device
	least := 0
	for _, c := range p.classes {
		if len(c.free) == 0 || !q.accepts(c) {
			continue
		}
		scarce := 0
		if c.narrowed < p.liveDevices(q) {
			scarce = 2
		}
		if best != nil && least < scarce && only == nil {
			continue
		}
		for _, d := range c.free {
			missed := scarce
			switch {
			case only != nil && d.has(only.app):
				missed = -1
			case d.wanted():
				missed++
			}
			if (best == nil || missed < least || missed == least && d.ID < best.ID) && may(d) {
				best, least = d, missed
			}
			if best == d && missed == scarce && only == nil {
				break
			}
		}
	}
	return best
}

// give assigns a lane's oldest job to a free device.
func (p *Planner) give(d *device, l *lane, why Why) {
	g := l.group
	why.complete(p, d, l)
	p.plan = append(p.plan, Assignment{DeviceID: d.ID, Lane: l.index, Reason: why.Text(), Why: why})
	busy := l.takes(d)
	d.Free, d.Until = false, p.now.Add(busy)
	d.since, d.charged = p.now, busy
	if d.cost = busy.Minutes() * d.MinutePrice; d.cost > 0 {
		d.spend(g.org, d.cost)
	}
	p.free = without(p.free, d)
	d.class.free = without(d.class.free, d)
	l.work = max(0, l.work-l.first())
	l.left--
	if len(l.next) > 0 {
		l.head, l.next = l.next[0], l.next[1:]
	} else {
		l.head.Seq, l.head.Run = l.head.Seq+1, 0
	}
	p.count(l, -1)
	p.serve(d, g)
	p.setInstalled(d, qgjob.App{OrgID: g.OrgID, AppVersionID: g.AppVersionID, BuildSHA256: l.build})
	if d.over == nil { // what is bought takes nothing of others
		p.charge(g.org, busy)
	}
	p.place(g)
}

// without removes a device from those sorted by id.
func without(devices []*device, d *device) []*device {
	at, _ := slices.BinarySearchFunc(devices, d, byID)
	return slices.Delete(devices, at, at+1)
}

// pays says whether one more device helps a served group: with it, its install included, the group's last job is
// expected to start sooner than without, by enough for what the install costs those who wait behind.
func (p *Planner) pays(g *group, d *device, level int) (gain time.Duration, ok bool) {
	install := d.install()
	if d.has(p.first(g, d).app) {
		install = 0
	}
	last := p.lastStart(g, -1)
	if install >= last {
		return 0, false
	}
	gain = last - p.lastStart(g, install)
	return gain, gain > p.price(g, level, install)
}

// price is what an install of so long costs, as a gain that it has to bring: as much as the groups that wait for a
// device lose by it on average, many times over. The most urgent level pays nothing.
func (p *Planner) price(g *group, level int, install time.Duration) time.Duration {
	if level == qgjob.MostUrgent {
		return 0
	}
	waiting := 0
	for _, q := range p.pools {
		if q.unserved > 0 && p.hasFree(q) {
			waiting += q.unserved
		}
	}
	return time.Duration(installPrice * float64(install) * float64(waiting) / float64(p.liveDevices(g.pool)))
}

// lastStart is when the last waiting job of a group is expected to start on the devices that serve it, and, unless
// it is negative, on one more that is ready after a while. Jobs are taken to flow: what has to be done before the last
// one fills the devices, those that are free first.
func (p *Planner) lastStart(g *group, ready time.Duration) time.Duration {
	next := p.first(g, nil)
	p.times = p.times[:0]
	var reset time.Duration
	for _, d := range g.serving {
		if d.Unavailable == "" && g.pool.fits(d) && !p.avoids(next, d) {
			p.times = append(p.times, d.remaining(p.now))
			reset = d.reset()
		}
	}
	if ready >= 0 {
		p.times = append(p.times, ready)
	}
	slices.Sort(p.times)
	var work time.Duration
	for _, l := range g.lanes {
		work += l.work
	}
	if g.waiting > 0 {
		work += time.Duration(g.waiting) * cmp.Or(reset, PriorReset)
		work -= work / time.Duration(g.waiting)
	}
	var before time.Duration
	for i, t := range p.times {
		before += t
		n := time.Duration(i + 1)
		if i+1 == len(p.times) || p.times[i+1]*n-before >= work {
			return (work + before) / n
		}
	}
	return 0
}
