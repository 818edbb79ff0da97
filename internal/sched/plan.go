package sched

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"qgjob"
)

// Fixed estimates of what has not been learned: how long an app's install and one spec take.
const (
	installTime = 30 * time.Second
	runTime     = 40 * time.Second
)

// Plan gives free devices work: no device twice, no lane more jobs than it has. It does not depend on the
// order of the snapshot's devices and lanes.
//
// now is the snapshot's moment; this policy goes by order and counts alone.
//
// It goes through the priorities, most urgent first. At each, free devices take, in this order: lanes that
// prefer them; the app that is on them; groups that no device serves, oldest first; served groups where
// joining brings the group's last job forward. What is left of the devices goes on to the next priority.
func Plan(s Snapshot, now time.Time) []Assignment {
	p := newPlanner(s)
	for from := 0; from < len(p.lanes) && len(p.free) > 0; {
		to := from
		for to < len(p.lanes) && p.lanes[to].Priority == p.lanes[from].Priority {
			to++
		}
		level := p.lanes[from:to]
		p.preferred(level)
		p.installed(level)
		p.unserved(level)
		p.join(level)
		from = to
	}
	return p.plan
}

// planLane is a lane while its jobs are given away.
type planLane struct {
	Lane
	index    int // in the snapshot
	taken    int
	unfitted bool // no free device fits, and none will
}

func (l *planLane) left() int { return l.Queued - l.taken }

// oldest is the lowest sequence that the oldest job left can have.
func (l *planLane) oldest() int64 { return l.OldestSeq + int64(l.taken) }

// service is what serves a group.
type service struct {
	busy    int             // devices that run a job of it
	planned []time.Duration // when each device that this plan gave to it is free again
}

func (s *service) devices() int { return s.busy + len(s.planned) }

// startsBy is how many waiting jobs the serving devices can have started within d. A running job is taken to
// be half-way through.
func (s *service) startsBy(d time.Duration) int {
	n := s.busy * starts(d, runTime/2)
	for _, free := range s.planned {
		n += starts(d, free)
	}
	return n
}

// turn is the work of one device: the group that it serves, and when it is free again.
type turn struct {
	group Group
	free  time.Duration
}

// starts is how many jobs one device that is free after a while starts within d.
func starts(d, free time.Duration) int {
	if d < free {
		return 0
	}
	return 1 + int((d-free)/runTime)
}

// app is what is installed on devices.
type app struct{ orgID, versionID string }

// ask is what jobs of one priority ask for by name.
type ask struct {
	priority int
	target   qgjob.Target
}

// planner is a plan in the making. Its counts follow what it gives away, so that no choice looks at all lanes.
type planner struct {
	devices []Device      // by id
	free    []Device      // without work yet, by id
	lanes   []*planLane   // by priority, then age
	waiting map[Group]int // jobs not given away
	wanted  map[app]int   // of them, jobs that want an app
	asked   map[ask]int   // of them, jobs by priority and target
	served  map[Group]*service
	serving map[string]turn // by device
	plan    []Assignment
}

func newPlanner(s Snapshot) *planner {
	p := &planner{waiting: map[Group]int{}, wanted: map[app]int{}, asked: map[ask]int{}, served: map[Group]*service{}, serving: map[string]turn{}}
	p.devices = slices.SortedFunc(slices.Values(s.Devices), func(a, b Device) int { return cmp.Compare(a.ID, b.ID) })
	for _, d := range p.devices {
		if d.Serving != nil {
			p.service(*d.Serving).busy++
			p.serving[d.ID] = turn{*d.Serving, runTime / 2}
		} else if d.Free {
			p.free = append(p.free, d)
		}
	}
	for i, l := range s.Lanes {
		p.lanes = append(p.lanes, &planLane{Lane: l, index: i})
		p.count(l, l.Queued)
	}
	slices.SortFunc(p.lanes, func(a, b *planLane) int {
		return cmp.Or(
			cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.OldestSeq, b.OldestSeq),
			cmp.Compare(a.OrgID, b.OrgID), cmp.Compare(a.AppVersionID, b.AppVersionID), cmp.Compare(a.Target, b.Target),
			cmp.Compare(a.Prefer, b.Prefer), cmp.Compare(a.Avoid, b.Avoid),
		)
	})
	return p
}

// count follows the number of a lane's jobs that are not given away.
func (p *planner) count(l Lane, n int) {
	p.waiting[l.Group] += n
	p.wanted[app{l.OrgID, l.AppVersionID}] += n
	p.asked[ask{l.Priority, l.Target}] += n
}

func (p *planner) service(g Group) *service {
	s := p.served[g]
	if s == nil {
		s = &service{}
		p.served[g] = s
	}
	return s
}

func has(d Device, g Group) bool {
	return d.Installed != nil && d.Installed.OrgID == g.OrgID && d.Installed.AppVersionID == g.AppVersionID
}

// fits says whether a device may run the jobs of a lane. A device that the lane avoids may when no other live
// device can.
func (p *planner) fits(d Device, l *planLane) bool {
	if !l.Target.Accepts(d.Kind) {
		return false
	}
	return l.Avoid != d.ID || !slices.ContainsFunc(p.devices, func(other Device) bool {
		return other.ID != d.ID && l.Target.Accepts(other.Kind)
	})
}

// give assigns a lane's oldest job to a free device.
func (p *planner) give(d Device, l *planLane, reason string) {
	busy := runTime
	if !has(d, l.Group) {
		busy += installTime
	}
	s := p.service(l.Group)
	s.planned = append(s.planned, busy)
	p.serving[d.ID] = turn{l.Group, busy}
	l.taken++
	p.count(l.Lane, -1)
	p.free = slices.DeleteFunc(p.free, func(f Device) bool { return f.ID == d.ID })
	p.plan = append(p.plan, Assignment{DeviceID: d.ID, Lane: l.index, Reason: reason})
}

// preferred gives jobs that are tried again back to the device that ran them.
func (p *planner) preferred(level []*planLane) {
	for _, l := range level {
		if l.Prefer == "" || l.left() == 0 {
			continue
		}
		i := slices.IndexFunc(p.free, func(d Device) bool { return d.ID == l.Prefer && p.fits(d, l) })
		if i >= 0 {
			p.give(p.free[i], l, "ran it before: tried again on the same device")
		}
	}
}

// installed gives each device the oldest job whose app is on it.
func (p *planner) installed(level []*planLane) {
	lanes := map[app][]*planLane{}
	for _, l := range level {
		key := app{l.OrgID, l.AppVersionID}
		lanes[key] = append(lanes[key], l)
	}
	for _, d := range slices.Clone(p.free) {
		if d.Installed == nil {
			continue
		}
		if l := p.oldest(d, lanes[app{d.Installed.OrgID, d.Installed.AppVersionID}]); l != nil {
			p.give(d, l, "own app installed: no install")
		}
	}
}

// oldest is the lane with the oldest job that a device may run; nil when there is none.
func (p *planner) oldest(d Device, lanes []*planLane) *planLane {
	var best *planLane
	for _, l := range lanes {
		if l.left() > 0 && p.fits(d, l) && (best == nil || l.oldest() < best.oldest()) {
			best = l
		}
	}
	return best
}

// unserved starts groups that no device serves, oldest first.
func (p *planner) unserved(level []*planLane) {
	for _, l := range level {
		if len(p.free) == 0 {
			return
		}
		if p.service(l.Group).devices() > 0 || l.left() == 0 {
			continue
		}
		if d, ok := p.choose(l); ok {
			p.give(d, l, "no device serves this group")
		}
	}
}

// join adds devices to served groups, oldest first, as long as one more device, its install included, starts
// a job sooner than the devices that serve the group would start its last one.
func (p *planner) join(level []*planLane) {
	for len(p.free) > 0 {
		l, d := p.worthJoining(level)
		if l == nil {
			return
		}
		p.give(d, l, fmt.Sprintf("joins: %d waiting on %s", p.waiting[l.Group], plural(p.service(l.Group).devices(), "device")))
	}
}

func (p *planner) worthJoining(level []*planLane) (*planLane, Device) {
	var best *planLane
	var with Device
	for _, l := range level {
		if l.left() == 0 || (best != nil && best.oldest() <= l.oldest()) {
			continue
		}
		if p.startsBy(installTime, l) >= p.waiting[l.Group] {
			continue
		}
		if d, ok := p.choose(l); ok {
			best, with = l, d
		}
	}
	return best, with
}

// startsBy is how many jobs of a lane's group the devices that serve it can have started within d. A device
// that the lane avoids is no help to it.
func (p *planner) startsBy(d time.Duration, l *planLane) int {
	n := p.service(l.Group).startsBy(d)
	if t, ok := p.serving[l.Avoid]; ok && t.group == l.Group {
		n -= starts(d, t.free)
	}
	return n
}

// choose picks the free device that is missed least by others: of a kind that no waiting job asks for by
// name, then one without an app that is waited for.
func (p *planner) choose(l *planLane) (Device, bool) {
	if l.unfitted {
		return Device{}, false
	}
	var best Device
	bestMissed := -1
	for _, d := range p.free {
		if !p.fits(d, l) {
			continue
		}
		if missed := p.missed(d, l); bestMissed < 0 || missed < bestMissed {
			best, bestMissed = d, missed
		}
	}
	l.unfitted = bestMissed < 0
	return best, !l.unfitted
}

func (p *planner) missed(d Device, by *planLane) int {
	missed := 0
	if by.Target != d.Kind && p.asked[ask{by.Priority, d.Kind}] > 0 {
		missed += 2
	}
	if d.Installed != nil && !has(d, by.Group) && p.wanted[app{d.Installed.OrgID, d.Installed.AppVersionID}] > 0 {
		missed++
	}
	return missed
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
