package qgjob

import "time"

// Run is what one submit made: one or more jobs with one verdict.
type Run struct {
	ID                  string            `json:"id" doc:"UUID of the run"`
	OrgID               string            `json:"org_id"`
	AppVersionID        string            `json:"app_version_id"`
	PreviousID          string            `json:"previous_id,omitempty" doc:"the run that this one repeats"`
	SubmittedAt         time.Time         `json:"submitted_at"`
	State               JobState          `json:"state" doc:"queued, running or canceling while a job is; then the verdict"`
	MaxFailures         int               `json:"max_failures,omitempty" doc:"the run is stopped once so many of its jobs failed or errored; 0: never"`
	QueueTimeoutSeconds int64             `json:"queue_timeout_seconds,omitempty" doc:"jobs that no device has taken so long after the submit are canceled; 0: they wait"`
	Deadline            *time.Time        `json:"deadline,omitempty" doc:"jobs that their own devices are expected to end later may run on BrowserStack"`
	MaxCost             float64           `json:"max_cost,omitempty" doc:"what they may cost there, in the unit of the price of a minute; absent: as the organization's budget has it"`
	OverflowCost        float64           `json:"overflow_cost,omitempty" doc:"what they have cost there"`
	OverflowClosed      string            `json:"overflow_closed,omitempty" doc:"why no more of them go there, where BrowserStack cannot run them"`
	Env                 map[string]string `json:"env,omitempty" doc:"variables of its tests"`
	SecretNames         []string          `json:"secret_names,omitempty" nullable:"false" doc:"further variables of its tests, whose values nobody is told"`
	CI                  *CI               `json:"ci,omitempty" doc:"where the run came from, when a CI system submitted it"`
	Jobs                []Job             `json:"jobs" nullable:"false"`
}

// CI is what a CI system says of the run that submitted. Every field may be empty.
type CI struct {
	System      string `json:"system,omitempty" maxLength:"64" doc:"github, gitlab, buildkite, jenkins, ..."`
	Repository  string `json:"repository,omitempty" maxLength:"400"`
	Commit      string `json:"commit,omitempty" maxLength:"64"`
	Branch      string `json:"branch,omitempty" maxLength:"400" doc:"the branch under test; of a pull request, the one it comes from"`
	PullRequest string `json:"pull_request,omitempty" maxLength:"64" doc:"its number"`
	Actor       string `json:"actor,omitempty" maxLength:"200" doc:"who or what started the CI's run"`
	Workflow    string `json:"workflow,omitempty" maxLength:"400" doc:"workflow, pipeline or job: runs of one branch and workflow follow each other"`
	URL         string `json:"url,omitempty" maxLength:"1000" doc:"the CI's run, to look at"`
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
