package qgjob

import (
	"slices"
	"time"
)

// Job is one spec file to be run on one kind of device.
type Job struct {
	ID           string `json:"id" doc:"UUID of the job"`
	RunID        string `json:"run_id" doc:"UUID of the run that the job belongs to"`
	OrgID        string `json:"org_id" doc:"organization"`
	AppVersionID string `json:"app_version_id" doc:"app version under test, within the organization"`
	TestPath     string `json:"test_path" doc:"spec file, relative to the test project"`
	Shard        string `json:"shard,omitempty" doc:"the part of the spec that this job runs, as 2/3; empty: all of it"`
	Priority     int    `json:"priority" doc:"0 (most urgent) to 1000"`
	Target       Target `json:"target" enum:"any,device,emulator,browserstack" doc:"kind of device asked for; any is any own phone or emulator"`
	Requires     string `json:"requires,omitempty" doc:"what else is asked of the device, for example: platform=android, os>=12, model=Pixel *"`

	BundleSHA256 string `json:"bundle_sha256,omitempty" doc:"the test project as submitted; empty: the project in the worker's directory"`
	BuildSHA256  string `json:"build_sha256,omitempty" doc:"the build to install; empty: the one that the project's config names"`
	Project      string `json:"project,omitempty" doc:"Playwright project to run; empty: the one whose provider fits the device"`
	ConfigPath   string `json:"config_path,omitempty" doc:"AppWright config, relative to the test project; empty: appwright.config.ts or .js"`
	Video        Video  `json:"video,omitempty" enum:"on,retain-on-failure" doc:"whether the screen of its device is recorded"`
	Environment  bool   `json:"environment,omitempty" doc:"its run has variables for its tests"`

	State   JobState `json:"state" enum:"queued,running,canceling,passed,failed,errored,canceled" doc:"passed, failed, errored and canceled are verdicts"`
	Cause   Cause    `json:"cause,omitempty" doc:"why the verdict is not passed, as a stable name"`
	Message string   `json:"message,omitempty" doc:"what was seen and what to do about it"`
	Flaky   bool     `json:"flaky,omitempty" doc:"passed, but only at a retry"`

	Quarantined int `json:"quarantined,omitempty" doc:"tests that failed and do not count"`

	Attempts     int        `json:"attempts" doc:"attempts so far"`
	TestFailures int        `json:"test_failures" doc:"attempts that spent the test's retry budget (2 retries)"`
	InfraErrors  int        `json:"infra_errors" doc:"attempts that spent the infrastructure's retry budget (3 retries)"`
	SubmittedAt  time.Time  `json:"submitted_at"`
	StartedAt    *time.Time `json:"started_at,omitempty" doc:"when the first attempt was assigned"`
	EndedAt      *time.Time `json:"ended_at,omitempty" doc:"when the verdict was reached"`
}

// JobState is where a job is in its life.
type JobState string

// The states of a job. The last four are verdicts: a job that reached one never leaves it.
const (
	Queued    JobState = "queued"
	Running   JobState = "running"
	Canceling JobState = "canceling" // a cancel was asked for, the device is still to stop
	Passed    JobState = "passed"
	Failed    JobState = "failed"
	Errored   JobState = "errored"
	Canceled  JobState = "canceled"
)

// JobStates lists every state, in the order of a job's life.
var JobStates = []JobState{Queued, Running, Canceling, Passed, Failed, Errored, Canceled}

// IsVerdict says whether the state is final.
func (s JobState) IsVerdict() bool {
	return s == Passed || s == Failed || s == Errored || s == Canceled
}

// Trigger is what moves a job from one state to the next; it is also the kind of the event that records the move.
type Trigger string

// The triggers.
const (
	Submit   Trigger = "submit"    // acknowledged and durable
	Assign   Trigger = "assign"    // a device's worker got the lease
	Pass     Trigger = "pass"      // every test that ran passed
	Retry    Trigger = "retry"     // the attempt did not pass and a budget has a retry left
	HandBack Trigger = "hand_back" // the attempt ended without cost: the worker is stopping, or never got the job
	Fail     Trigger = "fail"      // the test's budget is spent
	Err      Trigger = "error"     // the infrastructure's budget is spent, or no device can mend it
	Cancel   Trigger = "cancel"    // somebody asked for it
	Stop     Trigger = "stop"      // the canceled attempt has ended
)

// Transition is one row of the state machine. From is empty for a job that does not exist yet.
type Transition struct {
	From JobState
	On   Trigger
	To   JobState
}

// transitions is the state machine of a job; docs/state-machine.md shows the same rows.
var transitions = []Transition{
	{"", Submit, Queued},
	{Queued, Assign, Running},
	{Queued, Cancel, Canceled},
	{Running, Pass, Passed},
	{Running, Retry, Queued},
	{Running, HandBack, Queued},
	{Running, Fail, Failed},
	{Running, Err, Errored},
	{Running, Cancel, Canceling},
	{Canceling, Stop, Canceled},
}

// Transitions returns the rows of the state machine.
func Transitions() []Transition { return slices.Clone(transitions) }

// Next is the one transition function: the state that follows s on a trigger. A trigger that does not
// fit the state is CodeConflict.
func (s JobState) Next(on Trigger) (JobState, error) {
	for _, t := range transitions {
		if t.From == s && t.On == on {
			return t.To, nil
		}
	}
	return s, Errorf(CodeConflict, "a job that is %s takes no %s", s, on)
}

// Settlement is what the end of an attempt means for its job.
type Settlement struct {
	Trigger      Trigger
	TestFailures int  // how much of the test's budget the attempt spent: 0 or 1
	InfraErrors  int  // how much of the infrastructure's budget it spent: 0 or 1
	Prefer       bool // try again on the same device where it is free
	Avoid        bool // try again on another device first
}

// Settle decides what becomes of a running or canceling job whose attempt ended with the outcome and cause.
// It is CodeConflict for a job that has no attempt running and for an outcome that does not fit.
func (j Job) Settle(o Outcome, c Cause) (Settlement, error) {
	if j.State == Canceling {
		return Settlement{Trigger: Stop}, nil
	}
	if j.State != Running {
		return Settlement{}, Errorf(CodeConflict, "job %s is %s: no attempt of it can end now", j.ID, j.State)
	}
	switch o {
	case OutcomePassed:
		return Settlement{Trigger: Pass}, nil
	case OutcomeFailed, OutcomeTimedOut:
		s := Settlement{Trigger: Retry, TestFailures: 1, Prefer: true}
		if j.TestFailures+1 > TestRetries {
			s = Settlement{Trigger: Fail, TestFailures: 1}
		}
		return s, nil
	case OutcomeErrored, OutcomeLost, OutcomeCanceled:
		switch {
		case c.Free():
			return Settlement{Trigger: HandBack}, nil
		case o == OutcomeCanceled:
			return Settlement{}, Errorf(CodeConflict, "job %s was not asked to cancel", j.ID)
		case c.Final():
			return Settlement{Trigger: Err}, nil
		case j.InfraErrors+1 > InfraRetries:
			return Settlement{Trigger: Err, InfraErrors: 1}, nil
		}
		return Settlement{Trigger: Retry, InfraErrors: 1, Avoid: true}, nil
	}
	return Settlement{}, Errorf(CodeInvalid, "outcome %q is unknown", o)
}
