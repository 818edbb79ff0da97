package sched

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"qgjob"
)

// When a group that breaks devices stops, and for how long. After that one device at a time tries it again.
const (
	BreakAfter = 3
	BreakRest  = 10 * time.Minute
)

type poolKey struct {
	target   qgjob.Target
	requires string
}

func (k poolKey) compare(other poolKey) int {
	return cmp.Or(strings.Compare(string(k.target), string(other.target)), strings.Compare(k.requires, other.requires))
}

// pool is the groups that ask for the same devices. They wait in tiers, one a level.
type pool struct {
	key      poolKey
	requires qgjob.Requirement
	err      error // the requirement cannot be read: nothing fits
	waiting  int   // jobs
	unserved int   // groups
	tiers    map[int]*tier
	levels   []int // of the tiers, sorted
	lines    map[*org]*line
	aside    map[*group]bool // that this plan has set aside

	accepted []int8 // by class: 0 not asked yet, 1 yes, -1 no
	live     int    // devices that it fits
	fleet    int    // of which fleet
}

// tier is the groups of one pool and level. Those that no device serves wait in queues, one an organization.
type tier struct {
	pool   *pool
	level  int
	work   time.Duration // of all its groups' jobs
	queues heap[*queue]  // fairest first; those of organizations at their quota are not in it
	of     map[*org]*queue
	served []*group
}

// queue is the groups of one tier and organization that no device serves, oldest first.
type queue struct {
	tier   *tier
	org    *org
	groups heap[*group]
	slot   int // among the tier's queues
}

// line is an organization's overdue lanes in a pool, in the order of submission.
type line struct {
	pool    *pool
	org     *org
	overdue heap[*lane]
}

func (p *Planner) pool(key poolKey) *pool {
	if p.lastPool != nil && p.lastPool.key == key { // mostly
		return p.lastPool
	}
	if known := p.byPool[key]; known != nil {
		p.lastPool = known
		return known
	}
	made := &pool{key: key, tiers: map[int]*tier{}, lines: map[*org]*line{}, fleet: -1}
	made.requires, made.err = qgjob.ParseRequirement(key.requires)
	p.byPool[key] = made
	at, _ := slices.BinarySearchFunc(p.pools, key, func(a *pool, k poolKey) int { return a.key.compare(k) })
	p.pools = slices.Insert(p.pools, at, made)
	return made
}

// accepts says whether the devices of a class meet all that a pool asks but their ids.
func (q *pool) accepts(c *class) bool {
	for len(q.accepted) <= c.index {
		q.accepted = append(q.accepted, 0)
	}
	if q.accepted[c.index] == 0 {
		q.accepted[c.index] = -1
		anyID := q.requires
		anyID.Device = ""
		if q.err == nil && q.key.target.Accepts(c.traits.Kind) && anyID.Mismatch(c.traits) == "" {
			q.accepted[c.index] = 1
		}
	}
	return q.accepted[c.index] > 0
}

func (q *pool) fits(d *device) bool {
	return (q.requires.Device == "" || q.requires.Device == d.ID) && q.accepts(d.class)
}

// liveDevices is how many devices that take work fit a pool.
func (p *Planner) liveDevices(q *pool) int {
	if q.fleet == p.fleet {
		return q.live
	}
	q.live, q.fleet = 0, p.fleet
	if q.requires.Device != "" {
		if d := p.devices[q.requires.Device]; d != nil && d.Unavailable == "" && q.fits(d) {
			q.live = 1
		}
		return q.live
	}
	for _, c := range p.classes {
		if q.accepts(c) {
			q.live += c.live
		}
	}
	return q.live
}

// hasFree says whether a free device fits a pool.
func (p *Planner) hasFree(q *pool) bool {
	if q.requires.Device != "" {
		d := p.devices[q.requires.Device]
		return d != nil && p.isFree(d) && q.fits(d)
	}
	return slices.ContainsFunc(p.classes, func(c *class) bool { return len(c.free) > 0 && q.accepts(c) })
}

func (p *Planner) isFree(d *device) bool { return d.Free && d.serving == nil && d.Unavailable == "" }

// avoids says whether a device may not run the jobs of a lane, because they avoid it and another live device fits.
func (p *Planner) avoids(l *lane, d *device) bool {
	return l.avoid == d.ID && p.liveDevices(l.group.pool) > 1
}

// inOrder is the order of the contract within a group.
func inOrder(a, b *lane) int {
	return cmp.Or(
		cmp.Compare(a.priority, b.priority), cmp.Compare(a.head.Seq, b.head.Seq),
		strings.Compare(a.prefer, b.prefer), strings.Compare(a.avoid, b.avoid), strings.Compare(a.build, b.build),
	)
}

// first is the lane of a group that a device has to take; nil when it may take none. For no device it is the
// lane that is next.
func (p *Planner) first(g *group, d *device) *lane {
	var best *lane
	for _, l := range g.lanes {
		if l.left > 0 && (best == nil || inOrder(l, best) < 0) && (d == nil || !p.avoids(l, d)) {
			best = l
		}
	}
	return best
}

// older orders groups by when their oldest jobs were submitted; of those of one moment the larger one goes first, so
// that it is not what all wait for in the end.
func older(a, b *group) int {
	return cmp.Or(
		a.since.Compare(b.since), cmp.Compare(b.work, a.work),
		cmp.Compare(a.oldest, b.oldest), strings.Compare(a.OrgID, b.OrgID), strings.Compare(a.AppVersionID, b.AppVersionID),
		strings.Compare(string(a.Target), string(b.Target)), strings.Compare(a.Requires, b.Requires),
	)
}

// fairer orders groups of one level: first that of the organization that used less, by its weight and grain, then the
// older one.
func fairer(a, b *group) int { return cmp.Or(cmp.Compare(a.org.rank, b.org.rank), older(a, b)) }

// stopped says whether a group that broke device after device rests.
func (p *Planner) stopped(g *group) bool {
	return g.broke >= BreakAfter && (len(g.serving) > 0 || p.now.Before(g.brokeAt.Add(BreakRest)))
}

// place puts a group where it now belongs.
func (p *Planner) place(g *group) {
	p.displace(g)
	var changeAt time.Time
	change := func(at time.Time) {
		if changeAt.IsZero() || at.Before(changeAt) {
			changeAt = at
		}
	}
	stopped := g.waiting > 0 && p.stopped(g)
	if rested := g.brokeAt.Add(BreakRest); stopped && p.now.Before(rested) {
		change(rested)
	}
	level, oldest := qgjob.LeastUrgent+1, int64(0)
	var oldestAt time.Time
	var work time.Duration
	for _, l := range g.lanes {
		if l.left == 0 {
			p.setLate(l, false)
			continue
		}
		age := p.now.Sub(l.head.At)
		late := age > p.bound
		p.setLate(l, late && !stopped)
		if level > qgjob.LeastUrgent || l.head.Seq < oldest {
			oldest, oldestAt = l.head.Seq, l.head.At
		}
		work += l.work
		level = min(level, Level(l.priority, age, p.bound))
		if !p.live {
			continue
		}
		if next, ok := nextLevel(l.priority, age, p.bound); ok {
			change(l.head.At.Add(next))
		}
		if !late {
			change(l.head.At.Add(p.bound + 1))
		}
	}
	if p.live {
		p.changeAt(g, changeAt)
	}
	g.level, g.oldest, g.judged = level, oldest, 0
	g.since, g.work = oldestAt, work
	if g.waiting == 0 || stopped || g.aside == p.round && p.round > 0 {
		return
	}
	g.tier = p.tier(g.pool, level)
	g.tier.work += work
	if p.served(g) {
		g.slot = len(g.tier.served)
		g.tier.served = append(g.tier.served, g)
		return
	}
	g.pool.unserved++
	g.queue = p.queue(g.tier, g.org)
	g.queue.groups.push(g)
	p.showQueue(g.queue)
}

// served says whether a device works for a group that may take its next job.
func (p *Planner) served(g *group) bool {
	if len(g.serving) == 0 {
		return false
	}
	next := p.first(g, nil)
	return slices.ContainsFunc(g.serving, func(d *device) bool { return d.Unavailable == "" && g.pool.fits(d) && !p.avoids(next, d) })
}

// displace takes a group from its place.
func (p *Planner) displace(g *group) {
	t := g.tier
	if t == nil {
		return
	}
	t.work -= g.work
	switch {
	case g.queue != nil:
		g.pool.unserved--
		g.queue.groups.remove(g)
		p.showQueue(g.queue)
	default:
		last := t.served[len(t.served)-1]
		t.served[g.slot] = last
		last.slot = g.slot
		t.served = t.served[:len(t.served)-1]
	}
	g.tier, g.queue = nil, nil
	if len(t.served) == 0 && len(t.of) == 0 {
		delete(t.pool.tiers, t.level)
		at, _ := slices.BinarySearch(t.pool.levels, t.level)
		t.pool.levels = slices.Delete(t.pool.levels, at, at+1)
	}
}

func (p *Planner) changeAt(g *group, at time.Time) {
	if g.changing >= 0 {
		p.changes.remove(g)
	}
	if g.changeAt = at; !at.IsZero() {
		p.changes.push(g)
	}
}

func (p *Planner) tier(q *pool, level int) *tier {
	t := q.tiers[level]
	if t == nil {
		t = &tier{pool: q, level: level, of: map[*org]*queue{}, queues: heap[*queue]{
			less:  func(a, b *queue) bool { return fairer(a.groups.top(), b.groups.top()) < 0 },
			place: func(q *queue) *int { return &q.slot },
		}}
		q.tiers[level] = t
		at, _ := slices.BinarySearch(q.levels, level)
		q.levels = slices.Insert(q.levels, at, level)
	}
	return t
}

func (p *Planner) queue(t *tier, o *org) *queue {
	q := t.of[o]
	if q == nil {
		q = &queue{tier: t, org: o, slot: -1, groups: heap[*group]{
			less:  func(a, b *group) bool { return older(a, b) < 0 },
			place: func(g *group) *int { return &g.slot },
		}}
		t.of[o] = q
		o.queues = append(o.queues, q)
	}
	return q
}

// showQueue puts a queue into its tier or takes it out, and drops one that is empty.
func (p *Planner) showQueue(q *queue) {
	if p.building {
		return
	}
	shown := q.groups.len() > 0 && !q.org.blocked()
	switch {
	case shown && q.slot >= 0:
		q.tier.queues.fix(q)
	case shown:
		q.tier.queues.push(q)
	case q.slot >= 0:
		q.tier.queues.remove(q)
	}
	if q.groups.len() == 0 {
		delete(q.tier.of, q.org)
		q.org.queues = slices.DeleteFunc(q.org.queues, func(other *queue) bool { return other == q })
	}
}

// setLate puts a lane among the overdue ones or takes it out.
func (p *Planner) setLate(l *lane, late bool) {
	if !late && l.late < 0 {
		return
	}
	g := l.group
	ln := g.pool.lines[g.org]
	if ln == nil {
		ln = &line{pool: g.pool, org: g.org, overdue: heap[*lane]{less: sooner, place: func(l *lane) *int { return &l.late }}}
		g.pool.lines[g.org] = ln
	}
	switch {
	case !late:
		if ln.overdue.remove(l); ln.overdue.len() == 0 {
			p.late = slices.DeleteFunc(p.late, func(other *line) bool { return other == ln })
		}
	case l.late >= 0:
		ln.overdue.fix(l)
	default:
		if ln.overdue.push(l); ln.overdue.len() == 1 {
			p.late = append(p.late, ln)
		}
	}
}

// sooner orders lanes by the submission of their oldest jobs.
func sooner(a, b *lane) bool {
	return cmp.Or(
		cmp.Compare(a.head.Seq, b.head.Seq), cmp.Compare(a.priority, b.priority), strings.Compare(a.OrgID, b.OrgID),
		strings.Compare(a.AppVersionID, b.AppVersionID), strings.Compare(string(a.Target), string(b.Target)),
		strings.Compare(a.Requires, b.Requires), inOrder(a, b),
	) < 0
}
