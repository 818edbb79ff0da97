package sched

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"qgjob"
)

// Overflow lets the jobs of a lane run on a cloud's devices as well, which cost money: where their own are expected
// to be late, and as far as the budgets go.
type Overflow struct {
	Run      string    // whose jobs they are: its lanes share its budget
	Deadline time.Time // by which its jobs are to be done
	MaxCost  float64   // budget of the run; 0: it has none of its own
	Spent    float64   // of it, what attempts that run are expected to cost included
}

// overflow is an Overflow while its budget is spent.
type overflow struct {
	Overflow
	org *org
}

func (p *Planner) overflowOf(o *Overflow, of *org) *overflow {
	if o == nil {
		return nil
	}
	known := p.overflows[o.Run]
	if known == nil {
		known = &overflow{*o, of}
		p.overflows[o.Run] = known
	}
	return known
}

// spend adds to what was spent of the budgets that a device's job counts against: its organization's, and its run's
// where it overflowed.
func (d *device) spend(of *org, cost float64) {
	of.Spent += cost
	if d.over != nil {
		d.over.Spent += cost
	}
}

// left is how much may still be spent. Without any budget it is nothing: a deadline alone buys nothing.
func (o *overflow) left() float64 {
	switch run, org := o.MaxCost-o.Spent, o.org.Budget-o.org.Spent; {
	case o.MaxCost > 0 && o.org.Budget > 0:
		return min(run, org)
	case o.MaxCost > 0:
		return run
	case o.org.Budget > 0:
		return org
	}
	return 0
}

// sells says whether a device takes a lane's jobs for money: a cloud's, of a known price, that its group does not ask
// for and that has all that it does ask.
func (l *lane) sells(d *device) bool {
	g := l.group
	return d.Kind == qgjob.TargetBrowserStack && d.MinutePrice > 0 && !g.Target.Accepts(d.Kind) &&
		g.pool.err == nil && g.pool.requires.Mismatch(d.Traits) == "" && l.avoid != d.ID
}

// takes is how long the lane's next job is expected to keep a device.
func (l *lane) takes(d *device) time.Duration {
	if d.has(l.app) {
		return l.first() + d.reset()
	}
	return l.first() + d.install()
}

// ownEnd is when the last job of a lane is expected to end on the devices that it asks for; ok is false when there
// is none.
func (p *Planner) ownEnd(l *lane) (end time.Time, ok bool) {
	if p.liveDevices(l.group.pool) == 0 {
		return time.Time{}, false
	}
	wait, _ := p.calibration.Waits(p.Expected(l.index, 0))
	return p.now.Add(wait + l.run()), true
}

// absence is how long own devices may be gone, as at a restart of their worker, before a lane without any buys more
// than it has to.
const absence = 10 * time.Minute

// canWait says whether a cloud's device would still make a lane's deadline alone if its own ones stayed away for a while.
func (l *lane) canWait(now time.Time, d *device) bool {
	return now.Add(absence + d.install() + l.work).Before(l.over.Deadline)
}

// offer is the free cloud device that is to take the next job of a lane, and what that is expected to cost; nil
// when its own devices make the deadline, when none is free, or when no budget is left for it.
func (p *Planner) offer(l *lane) (*device, Why) {
	end, ok := p.ownEnd(l)
	if ok && !end.After(l.over.Deadline) {
		return nil, Why{}
	}
	var best *device
	var least float64
	for _, d := range p.free {
		if !l.sells(d) || ok && !p.now.Add(l.takes(d)).Before(end) || !ok && l.canWait(p.now, d) {
			continue
		}
		if cost := l.takes(d).Minutes() * d.MinutePrice; best == nil || cost < least {
			best, least = d, cost
		}
	}
	if best == nil || least > l.over.left() {
		return nil, Why{}
	}
	why := Why{Rule: RuleOverflow, Cost: least}
	if ok {
		why.Late = end.Sub(l.over.Deadline)
	}
	return best, why
}

// overflowing are the lanes of a level that may overflow, in the order in which they do: within a priority those that
// are overdue first, then those whose deadline is next.
func (p *Planner) overflowing(level int) []*lane {
	var lanes []*lane
	for _, l := range p.eager {
		if g := l.group; l.left > 0 && g.tier != nil && g.level == level && !g.org.blocked() {
			lanes = append(lanes, l)
		}
	}
	slices.SortFunc(lanes, func(a, b *lane) int {
		switch {
		case a.priority != b.priority:
			return cmp.Compare(a.priority, b.priority)
		case (a.late >= 0) != (b.late >= 0):
			return cmp.Compare(b.late, a.late)
		case a.late < 0 && !a.over.Deadline.Equal(b.over.Deadline):
			return a.over.Deadline.Compare(b.over.Deadline)
		case sooner(a, b):
			return -1
		}
		return 1
	})
	return lanes
}

// overflow gives jobs that own devices would end too late to a cloud's, as long as that is so.
func (p *Planner) overflow(level int) {
	for _, l := range p.overflowing(level) {
		for l.left > 0 && l.group.tier != nil && !l.group.org.blocked() {
			d, why := p.offer(l)
			if d == nil {
				break
			}
			d.over = l.over
			p.give(d, l, why)
		}
	}
}

// settle replaces what a job was expected to cost by what it cost.
func (d *device) settle(of *org, now time.Time) {
	if d.MinutePrice <= 0 {
		return
	}
	d.spend(of, now.Sub(d.since).Minutes()*d.MinutePrice-d.cost)
	d.over, d.cost = nil, 0
}

// overflowFrom is the most urgent level from one on at which a lane may overflow to a free device; -1 for none.
func (p *Planner) overflowFrom(from int) int {
	level := -1
	for _, l := range p.eager {
		g := l.group
		if l.left > 0 && g.tier != nil && g.level >= from && (level < 0 || g.level < level) && slices.ContainsFunc(p.free, l.sells) {
			level = g.level
		}
	}
	return level
}

// explainOverflow tells how a lane stands with its deadline and its budget.
func (p *Planner) explainOverflow(l *lane, add func(ConstraintKind, bool, string, ...any)) {
	if l.over == nil || l.group.Target.Accepts(qgjob.TargetBrowserStack) {
		return
	}
	due := fmt.Sprintf("to be done in %s", seconds(l.over.Deadline.Sub(p.now)))
	if !l.over.Deadline.After(p.now) {
		due = fmt.Sprintf("was to be done %s ago", seconds(p.now.Sub(l.over.Deadline)))
	}
	end, ok := p.ownEnd(l)
	switch {
	case !ok:
		add(ConstraintDeadline, false, "%s: it has no device of its own", due)
	case !end.After(l.over.Deadline):
		add(ConstraintDeadline, false, "%s, expected on its own devices in %s: needs no cloud", due, seconds(end.Sub(p.now)))
		return
	default:
		add(ConstraintDeadline, false, "%s, expected on its own devices in %s: may run on BrowserStack", due, seconds(end.Sub(p.now)))
	}
	var sellers []*device
	unpriced := 0
	for _, d := range p.byID() {
		priced := *d
		priced.MinutePrice = max(d.MinutePrice, 1)
		switch {
		case d.Unavailable != "":
		case l.sells(d):
			sellers = append(sellers, d)
		case l.sells(&priced):
			unpriced++
		}
	}
	if len(sellers) == 0 {
		if unpriced > 0 {
			add(ConstraintBudget, true, "%s of BrowserStack without a price: start its worker with --browserstack-minute-price", plural(unpriced, "device"))
			return
		}
		add(ConstraintBudget, true, "no device of BrowserStack can run it")
		return
	}
	cheapest := slices.MinFunc(sellers, func(a, b *device) int {
		return cmp.Compare(l.takes(a).Minutes()*a.MinutePrice, l.takes(b).Minutes()*b.MinutePrice)
	})
	cost, left := l.takes(cheapest).Minutes()*cheapest.MinutePrice, l.over.left()
	switch {
	case l.over.MaxCost <= 0 && l.over.org.Budget <= 0:
		add(ConstraintBudget, true, "no budget: submit with --max-cost, or give %s one by qgjob org --max-cost", l.OrgID)
	case cost > left:
		add(ConstraintBudget, true, "a job on %s costs about %.2f, and %.2f of the budget is left", cheapest.ID, cost, max(left, 0))
	case !ok && l.canWait(p.now, cheapest):
		add(ConstraintBudget, true, "%s can still make it: its own devices may come back before", cheapest.ID)
	case ok && !p.now.Add(l.takes(cheapest)).Before(end):
		add(ConstraintBudget, true, "%s would end it no sooner: in %s", cheapest.ID, seconds(l.takes(cheapest)))
	default:
		free := slices.ContainsFunc(sellers, p.isFree)
		add(ConstraintBudget, !free, "%.2f of the budget is left, a job costs about %.2f: %s of BrowserStack can run it, %s",
			left, cost, plural(len(sellers), "device"), map[bool]string{true: "one is free", false: "none is free"}[free])
	}
}
