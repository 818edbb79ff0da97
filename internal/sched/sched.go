// Package sched decides which waiting device gets work from which lane of the queue, and says why. It is pure:
// the same snapshot gives the same plan, in the server, in a simulation and in property tests. It sees lanes
// (the queued jobs of one group, priority and preference as a count and an oldest entry), never single jobs,
// and knows nothing of the store.
//
// Plan decides once over a snapshot. A Planner is a snapshot that follows what happens, so that the next
// decision costs what has changed and not what there is; both are the same code and give the same plan.
// Explain says of a lane what holds it back and when it is expected to start. Estimate learns how long things take.
//
// Every field that a caller leaves zero means something sensible: organizations weigh the same and have no
// quota, times are the priors below, requirements ask nothing.
package sched

import (
	"time"

	"qgjob"
)

// Priors of what has not been learned: how long an app's install, a reset of its data and one spec take.
const (
	PriorInstall = 30 * time.Second
	PriorReset   = 2 * time.Second
	PriorRun     = 40 * time.Second
)

// Group is what is scheduled together: jobs of one organization, app version and device requirement.
type Group struct {
	OrgID        string
	AppVersionID string
	Target       qgjob.Target
	Requires     string // qgjob.Requirement in its one form; empty for none
}

// Lane is the queued jobs of one group that have one priority and one preference, and one run where they may overflow.
type Lane struct {
	Group
	Priority    int
	Prefer      string // device that runs them where it is free; empty for none
	Avoid       string // device that runs them only when no other live device can; empty for none
	BuildSHA256 string // what is installed for them; empty: whatever the app version stands for
	Queued      int
	OldestSeq   int64         // submission order of its oldest job
	Oldest      time.Time     // when that was submitted
	OldestRun   time.Duration // its expected run time; 0: as of the lane's others
	Next        []Entry       // the entries behind it, as far as they are known; others are taken to follow one by one
	Work        time.Duration // expected run time of all its jobs together; 0: the prior for each
	Overflow    *Overflow     // of jobs that may run on a cloud's devices for money; nil for none
}

// Entry is a queued job's place in the order of submission.
type Entry struct {
	Seq int64
	At  time.Time
	Run time.Duration // expected run time; 0: as of the lane's others
}

// Device is a device that a live worker has.
type Device struct {
	qgjob.Traits
	Free           bool          // waits for work now
	Installed      *qgjob.App    // what is on it; nil when unknown
	Serving        *Group        // group of the job it runs now; nil when it runs none
	Until          time.Time     // when that job is expected to end; zero: half a prior from now
	Install, Reset time.Duration // expected times on it; 0: the prior
	Unavailable    string        // why it takes no work (quarantined, offline); empty when it does
	MinutePrice    float64       // what a minute on it costs; 0: nothing, or nobody knows
}

// Organization is what fairness knows of one. One that has no entry weighs 1 and has no limit.
type Organization struct {
	ID         string
	Weight     float64       // its share of device time beside others; 0 is 1
	MaxDevices int           // quota: most devices at once; 0 is no limit
	Used       time.Duration // device time used lately: each second counts half after FairMemory
	Budget     float64       // what its jobs may cost that overflow to a cloud; 0: it has none
	Spent      float64       // of it, what attempts that run are expected to cost included
}

// Streak tells of a group that broke devices: how many different ones in a row, with nothing that ended
// well in between, and when the last one broke.
type Streak struct {
	Group
	Devices int
	Last    time.Time
}

// Snapshot is what a plan is made from.
type Snapshot struct {
	Devices       []Device
	Lanes         []Lane
	Organizations []Organization
	Streaks       []Streak
	Bound         time.Duration // waiting bound; 0 is DefaultBound
	Calibration   Calibration   // of what Expected says
}

// Assignment gives a device the oldest job of a lane that is not given yet.
type Assignment struct {
	DeviceID string
	Lane     int    // index in Snapshot.Lanes, or what Planner.Queue returned
	Reason   string // a sentence for people: Why in words
	Why      Why
}

// Plan gives free devices work: no device twice, no lane more jobs than it has. It does not depend on the
// order of the snapshot's parts. docs/design.md tells the policy.
func Plan(s Snapshot, now time.Time) []Assignment {
	m := rooms.Get().(*room)
	plan := buildIn(m, s, now, false).Plan(now)
	m.forget()
	rooms.Put(m)
	return plan
}
