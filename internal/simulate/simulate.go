// Package simulate runs a workload on a fleet in virtual time, under the scheduler that the server uses or under
// a baseline, and says what came of it. It is pure: a workload, a fleet and a policy give one trace.
//
// It promises what a phone does: a device runs one job at a time; a job whose app version is on the device pays a
// reset, any other one an install; a job ends start + install + reset + duration later. A policy never sees a duration
// before its job has ended.
package simulate

import (
	"fmt"
	"slices"
	"time"

	"qgjob"
)

// Job is a line of a workload.
type Job struct {
	ID         string       `json:"id"`
	AtMS       int64        `json:"at_ms"`
	Org        string       `json:"org"`
	AppVersion string       `json:"app_version"` // of its organization: v1 of two organizations is two apps
	Test       string       `json:"test"`
	Priority   int          `json:"priority"`
	Target     qgjob.Target `json:"target"`
	Run        string       `json:"run"`
	DurationMS int64        `json:"duration_ms"`

	DeadlineMS int64   `json:"deadline_ms,omitempty"` // after at_ms; beyond it the job may overflow to a device of BrowserStack. 0: it does not
	MaxCost    float64 `json:"max_cost,omitempty"`    // what that may cost for its run; 0: as its organization's budget has it
}

// Fleet is the devices and the organizations that share them.
type Fleet struct {
	Devices []Device `json:"devices"`
	Orgs    []Org    `json:"orgs"`
}

// Device is one of a fleet.
type Device struct {
	ID        string       `json:"id"`
	Target    qgjob.Target `json:"target"`
	InstallMS int64        `json:"install_ms"`
	ResetMS   int64        `json:"reset_ms"`

	MinutePrice float64 `json:"minute_price,omitempty"` // what a minute on it costs
}

// Org is an organization's share, quota and budget. One that is not listed weighs 1 and has no limit.
type Org struct {
	ID         string  `json:"id"`
	Weight     float64 `json:"weight"`
	MaxDevices int     `json:"max_devices"`        // at once; 0 is no limit
	MaxCost    float64 `json:"max_cost,omitempty"` // of its jobs that overflow, all together; 0: no budget
}

// Assignment is a line of a trace.
type Assignment struct {
	Job       string `json:"job"`
	Device    string `json:"device"`
	StartMS   int64  `json:"start_ms"`
	InstallMS int64  `json:"install_ms"`
	ResetMS   int64  `json:"reset_ms"`
	EndMS     int64  `json:"end_ms"`
	Reason    string `json:"reason"`
}

// Result is what came of a simulation: an assignment for each job, in the order of starts.
type Result struct {
	Trace     []Assignment
	Jobs      []*Job // of the trace
	Installs  int
	Cost      float64 // of devices that have a price
	Decisions int     // moments at which the policy was asked
	ETA       *ETA    // nil for a policy that predicts nothing
}

// task is a job while it waits and runs.
type task struct {
	*Job
	index   int // in the workload
	pool    pool
	started bool
}

// submission is what a job was submitted with; a job without a run is one of its own.
type submission struct{ org, run, job string }

func (j *Job) submission() submission {
	if j.Run == "" {
		return submission{org: j.Org, job: j.ID}
	}
	return submission{org: j.Org, run: j.Run}
}

// pool is who asks for the same devices within the same quota.
type pool struct {
	org    string
	target qgjob.Target
}

// phone is a device while it works.
type phone struct {
	Device
	index int
	app   app // on it; zero for none
	task  *task
	endMS int64
}

type app struct{ org, version string }

func (t *task) app() app { return app{t.Org, t.AppVersion} }

// costs is what a job pays on a phone before it runs.
func (d *phone) costs(t *task) (installMS, resetMS int64) {
	if d.app == t.app() {
		return 0, d.ResetMS
	}
	return d.InstallMS, 0
}

// choice is a policy's decision to start a task on a phone now.
type choice struct {
	task   *task
	device *phone
	reason string
}

// policy decides which phone runs what. It gets to know tasks when they are submitted and their durations when
// they have ended.
type policy interface {
	submit(now time.Time, tasks []*task) // all of one moment, in the workload's order
	ended(now time.Time, d *phone, t *task)
	choose(now time.Time) []choice
	eta() *ETA
}

// at is a moment of virtual time.
func at(ms int64) time.Time { return time.UnixMilli(ms) }

func span(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

// Policies names the policies, ours first.
var Policies = []string{"ours", "fifo", "priority", "version-sort", "affinity"}

// Run simulates a workload. Both workload and fleet are as Read* returned them, or as valid.
func Run(workload []Job, fleet Fleet, name string) (*Result, error) {
	if err := check(workload, fleet); err != nil {
		return nil, err
	}
	e := newEngine(workload, fleet)
	switch name {
	case "ours":
		e.policy = newOurs(e, fleet)
	case "fifo":
		e.policy = newBaseline(e, fleet, byOrder, false)
	case "priority":
		e.policy = newBaseline(e, fleet, byPriority, false)
	case "version-sort":
		e.policy = newBaseline(e, fleet, byVersion, false)
	case "affinity":
		e.policy = newBaseline(e, fleet, byPriority, true)
	default:
		return nil, qgjob.Errorf(qgjob.CodeInvalid, "policy %q is unknown: use one of %v", name, Policies)
	}
	e.run()
	e.result.ETA = e.policy.eta()
	return &e.result, nil
}

// check refuses a workload that the fleet can never run.
func check(workload []Job, fleet Fleet) error {
	for _, j := range workload {
		if !slices.ContainsFunc(fleet.Devices, func(d Device) bool { return j.Target.Accepts(d.Target) }) {
			return qgjob.Errorf(qgjob.CodeInvalid, "job %q asks for %s, and no device of the fleet is one: add a device with that target, or leave the job out", j.ID, wants(j.Target))
		}
	}
	return nil
}

func wants(t qgjob.Target) string {
	if t == qgjob.TargetAny {
		return "any own phone or emulator"
	}
	return fmt.Sprintf("target %q", t)
}
