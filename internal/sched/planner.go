package sched

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"qgjob"
)

// FairMemory is the half-life of what an organization used: device time of so long ago counts half.
const FairMemory = time.Hour

// Planner is a snapshot that follows what happens. It is not safe for concurrent use. Its moment only moves forward.
type Planner struct {
	now, epoch  time.Time
	bound       time.Duration
	calibration Calibration
	live        bool // goes on after the first plan: changes that come with time are kept

	devices map[string]*device
	free    []*device // by id
	classes []*class
	pools   []*pool // by key
	groups  map[groupKey]*group
	lanes   []*lane // by index
	apps    map[appKey]*app
	orgs    map[string]*org
	prefers map[string][]*lane // lanes by the device that they prefer
	late    []*line            // lines with overdue lanes
	eager   []*lane            // those that may overflow

	overflows map[string]*overflow // by run
	changes   heap[*group]         // by when time changes their place

	byLane   map[laneKey]*lane
	byPool   map[poolKey]*pool
	lastPool *pool // that was asked for
	byClass  map[classKey]*class
	fleet    int // grows when devices come or go
	alive    int // devices that take work

	building bool // queues are shown when all groups are in them
	round    int  // plans so far
	pass     int  // levels looked at so far
	plan     []Assignment
	times    []time.Duration // scratch

	spareGroups []group
	spareLanes  []lane
}

type laneKey struct {
	Group
	priority             int
	prefer, avoid, build string
	run                  string // of those that may overflow
}

// lane is a Lane while its jobs are given away.
type lane struct {
	laneKey
	index int
	group *group
	app   *app    // nil when it is on no device and the planner is for one plan
	next  []Entry // known entries behind the head
	head  Entry
	left  int
	work  time.Duration
	late  int       // place among the overdue of its line
	over  *overflow // nil when it may not overflow
}

// run is the expected run time of one of its jobs.
func (l *lane) run() time.Duration {
	if l.left == 0 || l.work <= 0 {
		return PriorRun
	}
	return l.work / time.Duration(l.left)
}

// first is the expected run time of its next job, where that is known: jobs of one run are given the longest first.
func (l *lane) first() time.Duration { return cmp.Or(l.head.Run, l.run()) }

// group is a Group with its place among those that wait.
type group struct {
	Group
	pool    *pool
	org     *org
	lanes   []*lane
	few     [1]*lane // where lanes begin
	serving []*device
	waiting int
	broke   int       // different devices in a row
	brokeAt time.Time // the last of them

	level    int
	oldest   int64
	since    time.Time     // when its oldest job was submitted
	work     time.Duration // of all its waiting jobs
	tier     *tier         // where it waits; nil when nothing of it can be given
	queue    *queue        // in the tier; nil when devices serve it
	slot     int           // in the queue or among the tier's served groups
	changeAt time.Time     // when time alone changes its place
	changing int
	aside    int // round in which no free device fits it
	judged   int // pass in which joining it was judged
	gain     time.Duration
}

// groupKey is a Group by what is known of it already: quicker to look up.
type groupKey struct {
	org       *org
	pool      *pool
	versionID string
}

// app is what is installed on devices: an organization's app version, or a build of it where that is known.
type app struct {
	key     appKey
	groups  []*group
	waiting int
}

type appKey struct{ orgID, versionID, build string }

// org is an organization with what it uses.
type org struct {
	Organization
	share   float64 // scaled seconds of device time by weight
	rank    int     // its share in grains of fairness
	running int
	queues  []*queue
}

func (o *org) blocked() bool { return o.MaxDevices > 0 && o.running >= o.MaxDevices }

// device is a Device while it is given work.
type device struct {
	Device
	class   *class
	apps    [2]*app
	serving *group
	since   time.Time     // when it got its job
	charged time.Duration // to the organization for that
	over    *overflow     // of that, when it costs money
	cost    float64       // as expected
}

func (d *device) install() time.Duration { return cmp.Or(d.Install, PriorInstall) }

func (d *device) reset() time.Duration { return cmp.Or(d.Reset, PriorReset) }

func (d *device) has(a *app) bool { return a != nil && (d.apps[0] == a || d.apps[1] == a) }

// wanted says whether jobs wait for an app that is on it.
func (d *device) wanted() bool {
	return d.apps[0] != nil && d.apps[0].waiting > 0 || d.apps[1] != nil && d.apps[1].waiting > 0
}

// remaining is the expected time until it is free. A job that is over its time is taken to need as much again.
func (d *device) remaining(now time.Time) time.Duration {
	if d.Until.IsZero() {
		return PriorRun / 2
	}
	if left := d.Until.Sub(now); left > 0 {
		return left
	}
	return now.Sub(d.Until)
}

// class is the devices that differ in nothing but their ids.
type class struct {
	traits   qgjob.Traits
	index    int
	live     int
	free     []*device // by id
	narrowed int       // live devices of the narrowest pool that waits for it
}

// classKey is all that requirements ask of a device but its id.
type classKey struct {
	kind                             qgjob.Target
	platform, model, osVersion, abis string
	tags                             string
}

// build makes a planner of a snapshot.
func build(s Snapshot, now time.Time, live bool) *Planner {
	return buildIn(&room{groupOf: make(map[groupKey]*group, len(s.Lanes))}, s, now, live)
}

// room is what a planner keeps its groups and lanes in: most of what making one costs.
type room struct {
	groups  []group
	lanes   []lane
	groupOf map[groupKey]*group
	byIndex []*lane
}

// rooms are those of planners that made their one plan.
var rooms = sync.Pool{New: func() any { return &room{groupOf: map[groupKey]*group{}} }}

// fit makes room for so many lanes, each of a group of its own.
func (m *room) fit(lanes int) {
	if len(m.lanes) < lanes {
		m.groups, m.lanes, m.byIndex = make([]group, lanes), make([]lane, lanes), make([]*lane, 0, lanes)
	}
}

// forget keeps nothing but the room.
func (m *room) forget() {
	clear(m.groups)
	clear(m.lanes)
	clear(m.groupOf)
	clear(m.byIndex[:cap(m.byIndex)])
}

func buildIn(m *room, s Snapshot, now time.Time, live bool) *Planner {
	m.fit(len(s.Lanes))
	p := &Planner{
		now: now, epoch: now, bound: cmp.Or(s.Bound, DefaultBound), calibration: s.Calibration, live: live,
		devices: make(map[string]*device, len(s.Devices)), groups: m.groupOf,
		apps: make(map[appKey]*app, len(s.Devices)), orgs: map[string]*org{}, prefers: map[string][]*lane{},
		byPool: map[poolKey]*pool{}, byClass: map[classKey]*class{}, overflows: map[string]*overflow{},
		changes: heap[*group]{
			less:  func(a, b *group) bool { return a.changeAt.Before(b.changeAt) },
			place: func(g *group) *int { return &g.changing },
		},
	}
	p.lanes, p.spareGroups, p.spareLanes = m.byIndex[:0], m.groups, m.lanes
	if live {
		p.byLane = make(map[laneKey]*lane, len(s.Lanes))
	}
	for _, o := range s.Organizations {
		p.orgs[o.ID] = newOrg(o)
	}
	for _, d := range s.Devices {
		p.addDevice(d)
	}
	slices.SortFunc(p.free, byID)
	for _, c := range p.classes {
		slices.SortFunc(c.free, byID)
	}
	for _, st := range s.Streaks {
		g := p.group(st.Group)
		g.broke, g.brokeAt = st.Devices, st.Last
	}
	for _, l := range s.Lanes {
		p.addLane(l)
	}
	for _, o := range p.orgs {
		p.rank(o)
	}
	p.building = true
	for _, l := range p.lanes { // not by the map: in the order of memory, and mostly of age
		if l == l.group.lanes[0] {
			p.place(l.group)
		}
	}
	p.building = false
	for _, q := range p.pools {
		for _, t := range q.tiers {
			for _, q := range t.of {
				p.showQueue(q)
			}
		}
	}
	slices.SortFunc(p.pools, func(a, b *pool) int { return a.key.compare(b.key) })
	return p
}

// New makes a planner that goes on after its first plan.
func New(s Snapshot, now time.Time) *Planner { return build(s, now, true) }

func byID(a, b *device) int { return strings.Compare(a.ID, b.ID) }

func newOrg(o Organization) *org {
	if o.Weight <= 0 {
		o.Weight = 1
	}
	return &org{Organization: o, share: o.Used.Seconds() / o.Weight}
}

func (p *Planner) org(id string) *org {
	o := p.orgs[id]
	if o == nil {
		o = newOrg(Organization{ID: id})
		p.orgs[id] = o
	}
	return o
}

// scale is what a second of device time used now counts: less recent ones count as much less, in proportion, so that
// nothing has to be recounted as time goes by.
func (p *Planner) scale() float64 {
	return math.Exp2(float64(p.now.Sub(p.epoch)) / float64(FairMemory))
}

// rebase makes now the moment that shares are scaled to, before the scale grows out of bounds.
func (p *Planner) rebase() {
	if p.now.Sub(p.epoch) < 100*FairMemory {
		return
	}
	scale := p.scale()
	for _, o := range p.orgs {
		o.share /= scale
	}
	p.epoch = p.now
}

// charge adds device time to what an organization used.
func (p *Planner) charge(o *org, used time.Duration) {
	o.share += used.Seconds() / o.Weight * p.scale()
	p.rank(o)
}

// rank puts an organization where its share has it among others. Shares within one grain are alike.
func (p *Planner) rank(o *org) {
	rank := int(o.share / p.scale() / p.grain())
	if rank == o.rank {
		return
	}
	o.rank = rank
	for _, q := range o.queues {
		if q.slot >= 0 {
			q.tier.queues.fix(q)
		}
	}
}

// grain is fairGrain of the whole fleet, in seconds.
func (p *Planner) grain() float64 { return fairGrain.Seconds() * float64(max(1, p.alive)) }

func (p *Planner) addDevice(given Device) {
	d := &device{Device: given}
	p.devices[d.ID] = d
	key := classKey{d.Kind, d.Platform, d.Model, d.OSVersion, d.ABIs, strings.Join(d.Tags, "\x00")}
	d.class = p.byClass[key]
	if d.class == nil {
		d.class = &class{traits: d.Traits, index: len(p.classes)}
		p.byClass[key] = d.class
		p.classes = append(p.classes, d.class)
	}
	if d.Installed != nil {
		p.setInstalled(d, *d.Installed)
	}
	if d.Serving != nil {
		p.serve(d, p.group(*d.Serving))
	}
	if d.Unavailable != "" {
		return
	}
	p.fleet++
	p.alive++
	d.class.live++
	if d.Free && d.serving == nil {
		p.free = append(p.free, d)
		d.class.free = append(d.class.free, d)
	}
}

func (p *Planner) setInstalled(d *device, a qgjob.App) {
	d.Installed = &a
	d.apps = [2]*app{p.app(appKey{a.OrgID, a.AppVersionID, ""}), nil}
	if a.BuildSHA256 != "" {
		d.apps[1] = p.app(appKey{a.OrgID, "", a.BuildSHA256})
	}
}

func (p *Planner) app(key appKey) *app {
	a := p.apps[key]
	if a == nil {
		a = &app{key: key}
		p.apps[key] = a
	}
	return a
}

func (p *Planner) group(key Group) *group {
	of := groupKey{p.org(key.OrgID), p.pool(poolKey{key.Target, key.Requires}), key.AppVersionID}
	g := p.groups[of]
	if g == nil {
		g = p.newGroup()
		*g = group{Group: key, pool: of.pool, org: of.org, changing: -1}
		p.groups[of] = g
	}
	return g
}

// newGroup and newLane take from what build made room for.
func (p *Planner) newGroup() *group {
	if len(p.spareGroups) == 0 {
		return &group{}
	}
	g := &p.spareGroups[0]
	p.spareGroups = p.spareGroups[1:]
	return g
}

func (p *Planner) newLane() *lane {
	if len(p.spareLanes) == 0 {
		return &lane{}
	}
	l := &p.spareLanes[0]
	p.spareLanes = p.spareLanes[1:]
	return l
}

// serve notes that a device works for a group from now on.
func (p *Planner) serve(d *device, g *group) {
	d.serving = g
	g.serving = append(g.serving, d)
	was := g.org.blocked()
	g.org.running++
	p.unblock(g.org, was)
}

// unblock puts an organization's queues where its quota has them.
func (p *Planner) unblock(o *org, was bool) {
	if o.blocked() == was {
		return
	}
	for _, q := range o.queues {
		p.showQueue(q)
	}
}

func (l Lane) key() laneKey {
	key := laneKey{Group: l.Group, priority: l.Priority, prefer: l.Prefer, avoid: l.Avoid, build: l.BuildSHA256}
	if l.Overflow != nil {
		key.run = l.Overflow.Run
	}
	return key
}

func (p *Planner) addLane(given Lane) *lane {
	key := given.key()
	g := p.group(key.Group)
	l := p.newLane()
	*l = lane{
		laneKey: key, index: len(p.lanes), group: g, left: given.Queued, work: given.Work, late: -1,
		head: Entry{given.OldestSeq, given.Oldest, given.OldestRun}, next: given.Next, over: p.overflowOf(given.Overflow, g.org),
	}
	if l.over != nil {
		p.eager = append(p.eager, l)
	}
	if l.left > 0 && l.work <= 0 {
		l.work = time.Duration(l.left) * PriorRun
	}
	p.lanes = append(p.lanes, l)
	if g.lanes == nil {
		g.lanes = g.few[:0]
	}
	g.lanes = append(g.lanes, l)
	a := appKey{key.OrgID, key.AppVersionID, ""}
	if key.build != "" {
		a = appKey{key.OrgID, "", key.build}
	}
	if l.app = p.apps[a]; l.app == nil && p.live {
		l.app = p.app(a)
	}
	if l.app != nil && !slices.Contains(l.app.groups, g) {
		l.app.groups = append(l.app.groups, g)
	}
	p.count(l, l.left)
	if key.prefer != "" {
		p.prefers[key.prefer] = append(p.prefers[key.prefer], l)
	}
	if p.byLane != nil {
		p.byLane[key] = l
	}
	return l
}

// count follows the number of a lane's jobs that are not given away.
func (p *Planner) count(l *lane, n int) {
	l.group.waiting += n
	l.group.pool.waiting += n
	if l.app != nil {
		l.app.waiting += n
	}
}
