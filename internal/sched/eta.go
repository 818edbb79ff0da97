package sched

import (
	"math"
	"time"
)

const (
	// calibrationStep is how far one observation moves a calibration, in natural logarithms.
	calibrationStep = 0.05
	// calibrationSpread is the logarithm of how much longer than half of them nine in ten jobs wait, before anything
	// is known.
	calibrationSpread = 2 * math.Ln2
	// calibrationFloor is added to waits before they are compared: below it they are all alike.
	calibrationFloor = 10 * time.Second
)

// Calibration is how waits turn out beside what Planner.Expected says of them: the natural logarithms of the ratios
// that a half and nine tenths of the jobs are to stay below. Each prediction moves them by one small step, up when the
// job waited longer and down when not, by as much as makes the shares come out in the end, whatever the waits are made
// of (as in adaptive conformal inference, Gibbs and Candès 2021). The zero value expects what Expected says, and at
// worst four times that. It is its own serial form.
type Calibration struct {
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"` // beyond calibrationSpread
	Count int64   `json:"count"`
}

// Observe returns the calibration after a job has started that was predicted to wait p50, and at worst p90. A job that
// waits beyond its p90 is observed then, and not again when it starts: who looks only at those that have started learns
// of long waits too late.
func (c Calibration) Observe(waited, p50, p90 time.Duration) Calibration {
	c.P50 += calibrationStep * quantileStep(waited > p50, 0.5)
	c.P90 += calibrationStep * quantileStep(waited > p90, 0.9)
	c.Count++
	return c
}

// quantileStep is the step of a running quantile: its mean is 0 when a share q of observations stays below.
func quantileStep(above bool, q float64) float64 {
	if above {
		return q
	}
	return q - 1
}

// Waits is the wait that half of the jobs and nine in ten do not exceed, of which so much was expected.
func (c Calibration) Waits(expected time.Duration) (p50, p90 time.Duration) {
	scaled := func(log float64) time.Duration {
		return max(0, time.Duration(float64(expected+calibrationFloor)*math.Exp(log))-calibrationFloor)
	}
	p50 = scaled(c.P50)
	return p50, max(p50, scaled(c.P90+calibrationSpread))
}

// Expected is how long a job of a lane is expected to wait, behind which so much work of the lane comes: 0 for
// its newest job. If nothing more urgent is submitted, what goes before it on the devices that it can use, and
// what they run now, flows through them evenly.
func (p *Planner) Expected(index int, behind time.Duration) time.Duration {
	l := p.lanes[index]
	g := l.group
	var own time.Duration
	for _, other := range g.lanes {
		if other == l || other.left > 0 && inOrder(other, l) < 0 {
			own += other.work
		}
	}
	own -= l.run() + behind
	return p.wait(l, p.before(g.pool, g.level)-g.work, own)
}

// Served says whether a device that takes work fits a lane, and its organization may have one more.
func (p *Planner) Served(index int) bool {
	g := p.lanes[index].group
	return p.liveDevices(g.pool) > 0 && g.tier != nil
}

// before is the work of a level and of more urgent ones in the pools that want the same devices.
func (p *Planner) before(q *pool, level int) time.Duration {
	var work time.Duration
	for _, other := range p.pools {
		if !p.overlap(q, other) {
			continue
		}
		for _, l := range other.levels {
			if l > level {
				break
			}
			work += other.tiers[l].work
		}
	}
	return work
}

// overlap says whether two pools want devices of one class.
func (p *Planner) overlap(a, b *pool) bool {
	if a == b {
		return true
	}
	for _, c := range p.classes {
		if c.live > 0 && a.accepts(c) && b.accepts(c) {
			return true
		}
	}
	return false
}

// wait is how long a job of a lane waits behind work of others and of its own group.
func (p *Planner) wait(l *lane, others, own time.Duration) time.Duration {
	g := l.group
	var running, mine time.Duration // mine: of its organization
	live, free := 0, 0
	for _, d := range p.devices {
		if d.serving != nil && d.serving.org == g.org { // wherever that is
			mine += d.remaining(p.now)
		}
		if d.Unavailable != "" || !g.pool.fits(d) || p.avoids(l, d) {
			continue
		}
		live++
		if d.serving != nil {
			running += d.remaining(p.now)
		} else {
			free++
		}
	}
	if live == 0 {
		return 0
	}
	if free > 0 && others <= 0 && own <= 0 && !g.org.blocked() {
		return 0
	}
	if g.org.MaxDevices > 0 {
		mine += p.groupsBefore(g)
	}
	wait := (max(others, 0) + max(own, 0) + running) / time.Duration(live)
	if limit := g.org.MaxDevices; limit > 0 { // its own work goes through so many of them
		wait = max(wait, (max(own, 0)+mine)/time.Duration(limit))
	}
	return wait
}

// groupsBefore is the work of an organization's other groups of a group's level and of more urgent ones.
func (p *Planner) groupsBefore(g *group) (work time.Duration) {
	for _, other := range p.groups {
		if other != g && other.org == g.org && other.tier != nil && other.level <= g.level {
			work += other.work
		}
	}
	return work
}
