// Package sched decides which waiting device gets work from which lane of the queue. It is pure: the same
// snapshot gives the same plan, in the server, in a simulation and in property tests. It sees lanes (the
// queued jobs of one group, priority and preference as a count and an oldest entry), never single jobs,
// and knows nothing of the store.
package sched

import (
	"time"

	"qgjob"
)

// Group is what is scheduled together: jobs of one organization, app version and device requirement.
type Group struct {
	OrgID        string
	AppVersionID string
	Target       qgjob.Target
}

// Lane is the queued jobs of one group that have one priority and one preference.
type Lane struct {
	Group
	Priority  int
	Prefer    string // device that runs them where it is free; empty for none
	Avoid     string // device that runs them only when no other live device can; empty for none
	Queued    int
	OldestSeq int64     // submission order of its oldest job
	Oldest    time.Time // when that was submitted
}

// Device is a live device.
type Device struct {
	ID        string
	Kind      qgjob.Target
	Free      bool       // waits for work now
	Installed *qgjob.App // what is on it; nil when unknown
	Serving   *Group     // group of the job it runs now; nil when it runs none
}

// Snapshot is what a plan is made from.
type Snapshot struct {
	Devices []Device
	Lanes   []Lane
}

// Assignment gives a device the oldest job of a lane that is not given yet.
type Assignment struct {
	DeviceID string
	Lane     int    // index in Snapshot.Lanes
	Reason   string // a sentence for people
}
