package qgjob

import "time"

// Run is what one submit made: one or more jobs with one verdict.
type Run struct {
	ID           string    `json:"id" doc:"UUID of the run"`
	OrgID        string    `json:"org_id"`
	AppVersionID string    `json:"app_version_id"`
	PreviousID   string    `json:"previous_id,omitempty" doc:"the run of the same CI step that this one repeats"`
	SubmittedAt  time.Time `json:"submitted_at"`
	State        JobState  `json:"state" doc:"queued, running or canceling while a job is; then the verdict"`
	Jobs         []Job     `json:"jobs" nullable:"false"`
}

// RunState is the state of a run with jobs in the given states. While any job has no verdict the run is
// running (queued when none has started); then the worst verdict counts: errored, failed, canceled, passed.
// A run without jobs is errored: nothing that is unknown is passed.
func RunState(states []JobState) JobState {
	count := map[JobState]int{}
	for _, s := range states {
		count[s]++
	}
	switch {
	case len(states) == 0:
		return Errored
	case count[Canceling] > 0:
		return Canceling
	case count[Queued] == len(states):
		return Queued
	case count[Queued]+count[Running] > 0:
		return Running
	}
	for _, s := range []JobState{Errored, Failed, Canceled} {
		if count[s] > 0 {
			return s
		}
	}
	return Passed
}
