package sched

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// ConstraintKind is what can hold a job back.
type ConstraintKind string

// The constraints.
const (
	ConstraintBreaker  ConstraintKind = "breaker"  // its group broke device after device
	ConstraintQuota    ConstraintKind = "quota"    // its organization has as many devices as it may
	ConstraintDevices  ConstraintKind = "devices"  // those that it can use, and what they do
	ConstraintAvoid    ConstraintKind = "avoid"    // the device that it is not to run on again
	ConstraintPriority ConstraintKind = "priority" // its level, and what is more urgent
	ConstraintOrder    ConstraintKind = "order"    // what goes before it in its group
	ConstraintJoin     ConstraintKind = "join"     // whether one more device would help its group
	ConstraintDeadline ConstraintKind = "deadline" // whether its own devices make it
	ConstraintBudget   ConstraintKind = "budget"   // what may be spent on a cloud's devices when they do not
)

// Constraint is one of them with its state.
type Constraint struct {
	Kind  ConstraintKind `json:"kind"`
	Holds bool           `json:"holds"` // it holds the job back now
	Text  string         `json:"text"`
}

// Explanation says why the next job of a lane waits.
type Explanation struct {
	Waiting     int           // jobs of the lane that wait after this moment's plan; 0: nothing is held back
	Level       int           // effective priority
	Constraints []Constraint  // all that apply; those that do not hold are there to see
	Expected    time.Duration // until the job starts that was asked for, if nothing more urgent is submitted
	Unserved    bool          // no device that is available can run it: Expected says nothing
}

// Held is the constraints that hold it back.
func (e Explanation) Held() []Constraint {
	return slices.DeleteFunc(slices.Clone(e.Constraints), func(c Constraint) bool { return !c.Holds })
}

// maxNamed is how many devices an explanation describes.
const maxNamed = 8

// Explain makes a snapshot's plan and says what holds the jobs of one of its lanes back, and when that of them is
// expected to start behind which so much work of the lane comes: 0 for its newest. It names no other organization to the one that it is for; to
// "", which is nobody's, it names all.
func Explain(s Snapshot, now time.Time, lane int, behind time.Duration, to string) Explanation {
	p := build(s, now, false)
	p.Plan(now)
	e := p.explain(p.lanes[lane], to)
	e.Expected = p.Expected(lane, behind)
	return e
}

func (p *Planner) explain(l *lane, to string) Explanation {
	g := l.group
	e := Explanation{Waiting: l.left, Level: g.level}
	if l.left == 0 {
		return e
	}
	add := func(kind ConstraintKind, holds bool, format string, args ...any) {
		e.Constraints = append(e.Constraints, Constraint{kind, holds, fmt.Sprintf(format, args...)})
	}
	if n := g.broke; n > 0 {
		switch rested := g.brokeAt.Add(BreakRest); {
		case n < BreakAfter:
			add(ConstraintBreaker, false, "broke %s in a row: stops at %d", plural(n, "device"), BreakAfter)
		case p.now.Before(rested):
			add(ConstraintBreaker, true, "stopped: broke %s one after another; one tries it again in %s", plural(n, "device"), seconds(rested.Sub(p.now)))
		default:
			add(ConstraintBreaker, p.stopped(g), "broke %s one after another: one device at a time tries it", plural(n, "device"))
		}
	}
	if o := g.org; o.MaxDevices > 0 {
		add(ConstraintQuota, o.blocked(), "%s has %d of at most %s", o.ID, o.running, plural(o.MaxDevices, "device"))
	}
	free, served := p.explainDevices(g, to, add)
	e.Unserved = !served
	ahead, urgent := p.ahead(g)
	if l.priority != g.level {
		add(ConstraintPriority, len(free) == 0 && urgent > 0, "priority %d, risen to %d with age: %s more urgent", l.priority, g.level, jobs(urgent))
	} else {
		add(ConstraintPriority, len(free) == 0 && urgent > 0, "priority %d: %s more urgent", l.priority, jobs(urgent))
	}
	add(ConstraintOrder, len(free) == 0 && ahead > 0, "%s of the same level before it", jobs(ahead))
	next := p.first(g, nil)
	if next != l {
		add(ConstraintOrder, true, "%s of its group before it", jobs(p.precede(g, l)))
	}
	if l.avoid != "" {
		d := p.devices[l.avoid]
		add(ConstraintAvoid, d != nil && p.isFree(d) && g.pool.fits(d) && p.avoids(l, d), "not on %s again while another device can", l.avoid)
	}
	p.explainJoin(g, free, add)
	p.explainOverflow(l, add)
	return e
}

// explainDevices tells what the devices do that a group can use, and returns those that are free. Served says that there is one that is available.
func (p *Planner) explainDevices(g *group, to string, add func(ConstraintKind, bool, string, ...any)) (free []*device, served bool) {
	if g.pool.err != nil {
		add(ConstraintDevices, true, "%v", g.pool.err)
		return nil, false
	}
	var fit []*device
	var doing, others []string
	for _, d := range p.byID() {
		if !g.pool.fits(d) {
			why := g.pool.requires.Mismatch(d.Traits)
			if !g.Target.Accepts(d.Kind) {
				why = fmt.Sprintf("is a %s, not %s", d.Kind, g.Target)
			}
			others = append(others, d.ID+" "+why)
			continue
		}
		fit = append(fit, d)
		served = served || d.Unavailable == ""
		switch {
		case d.Unavailable != "":
			doing = append(doing, d.ID+" is "+d.Unavailable)
		case d.serving != nil:
			what := d.serving.AppVersionID + " of " + d.serving.OrgID
			if to != "" && d.serving.OrgID != to {
				what = "a job of another organization"
			}
			doing = append(doing, fmt.Sprintf("%s runs %s for %s more", d.ID, what, seconds(d.remaining(p.now))))
		case d.Free:
			free = append(free, d)
			doing = append(doing, d.ID+" is free")
		default:
			doing = append(doing, d.ID+" does not wait for work")
		}
	}
	if len(fit) == 0 {
		add(ConstraintDevices, true, "no device can run it: %s", few(others))
		return nil, false
	}
	add(ConstraintDevices, len(free) == 0, "%s can run it: %s", plural(len(fit), "device"), few(doing))
	return free, served
}

// explainJoin tells why free devices do not join a group that is served.
func (p *Planner) explainJoin(g *group, free []*device, add func(ConstraintKind, bool, string, ...any)) {
	if len(g.serving) == 0 || g.tier == nil {
		return
	}
	if len(free) == 0 {
		add(ConstraintJoin, false, "%s on %s", jobs(g.waiting), plural(len(g.serving), "device"))
		return
	}
	d := p.choose(g, nil)
	if d == nil {
		return
	}
	add(ConstraintJoin, true, "%s on %s: with an install of %s, %s would not start the last one sooner (expected in %s)",
		jobs(g.waiting), plural(len(g.serving), "device"), seconds(d.install()), d.ID, seconds(p.lastStart(g, -1)))
}

// ahead counts the jobs that go before a group: of its level, and of more urgent ones.
func (p *Planner) ahead(g *group) (ahead, urgent int) {
	for _, other := range p.groups {
		switch {
		case other == g || other.tier == nil || !p.overlap(g.pool, other.pool):
		case other.level < g.level:
			urgent += other.waiting
		case other.level == g.level && fairer(other, g) < 0:
			ahead += other.waiting
		}
	}
	return ahead, urgent
}

// precede counts the jobs of a group that go before a lane.
func (p *Planner) precede(g *group, l *lane) int {
	n := 0
	for _, other := range g.lanes {
		if other.left > 0 && inOrder(other, l) < 0 {
			n += other.left
		}
	}
	return n
}

func (p *Planner) byID() []*device {
	all := make([]*device, 0, len(p.devices))
	for _, d := range p.devices {
		all = append(all, d)
	}
	slices.SortFunc(all, byID)
	return all
}

func jobs(n int) string {
	if n == 0 {
		return "no job"
	}
	return plural(n, "job")
}

func few(texts []string) string {
	if len(texts) == 0 {
		return "there is none"
	}
	if len(texts) > maxNamed {
		texts = append(slices.Clone(texts[:maxNamed]), fmt.Sprintf("and %d more", len(texts)-maxNamed))
	}
	return strings.Join(texts, ", ")
}
