package store

import (
	"time"

	"qgjob"
)

// JobSpec is one job of a submission.
type JobSpec struct {
	TestPath string
	Shard    string // part/parts; empty: all of the spec
	Priority int
	Target   qgjob.Target
	Requires string // qgjob.Requirement in its one form
}

// Submission makes a run. Ids, paths, targets and priorities have passed package qgjob's checks.
type Submission struct {
	OrgID        string
	AppVersionID string
	Jobs         []JobSpec // at least one

	BundleSHA256 string
	BuildSHA256  string // empty: the app version's newest build at the time of the submit, if it has any
	Project      string
	ConfigPath   string

	AllowUnmatched bool // jobs that no known device can run wait all the same

	CI             *qgjob.CI
	Environment    Environment
	Video          qgjob.Video
	QueueTimeout   time.Duration // jobs that no device has taken by then are canceled; 0: they wait
	MaxFailures    int           // 0: the run never stops
	Deadline       time.Duration // from the submit; beyond it the jobs may run on a cloud's devices. 0: it has none
	MaxCost        float64       // what that may cost, in the unit of prices; 0: as the organization's budget has it
	CancelPrevious bool          // what is left of the older runs of the branch and workflow is canceled
	PreviousID     string        // run that this one repeats

	IdempotencyKey string // empty: each submission makes a run
	RepeatFailed   bool   // the key matches only a run that is live or passed
	BodyHash       string // of the request without its key: another one under the same key is CodeConflict
}

// JobDetail is a job with its whole life.
type JobDetail struct {
	Job      qgjob.Job
	Attempts []qgjob.Attempt
	Events   []qgjob.Event
}

// JobFilter selects jobs; an empty field selects all.
type JobFilter struct {
	OrgID        string
	AppVersionID string
	RunID        string
	State        qgjob.JobState
	Target       qgjob.Target
	Cursor       string // what the page before returned as next
	Limit        int    // 1 to 500; 0 is 50
}

// Organization is what the scheduler goes by of one.
type Organization struct {
	ID             string
	WeightPermille int64   // beside others: 1000 is one
	MaxDevices     int     // at once; 0: no limit
	MaxCost        float64 // that its jobs which overflow to a cloud may cost in a month; 0: it has no budget
	Cost           float64 // of all its jobs in this month, UTC
}

// Build is an uploaded build of an app version. The file itself is in the blob store.
type Build struct {
	OrgID        string
	AppVersionID string
	SHA256       string
	Platform     string
	MinOS        string       // the oldest system that it runs on; empty for any
	ABIs         []string     // instruction sets of which it needs one; empty for any
	Kind         qgjob.Target // the only kind of own device that takes it; empty for all
	Package      string
	VersionName  string
	VersionCode  int64
	Size         int64     // bytes
	Copy         string    // of its Upload
	AddedAt      time.Time // set by the store
}

// DeviceReport is how a worker describes one of its devices.
type DeviceReport struct {
	ID          string
	Serial      string
	Kind        qgjob.Target
	Platform    string
	Model       string
	OSVersion   string
	State       qgjob.DeviceState
	Message     string
	Tags        []string // words that its owner gave it
	MinutePrice float64  // what a minute on it costs; 0: nothing is known of a price
	Installed   *qgjob.App
	qgjob.Hardware
}

// Refusal is a device that the worker may not use: it belongs to another live worker.
type Refusal struct {
	DeviceID string
	Message  string
}

// Lease is a worker's right to an attempt.
type Lease struct {
	AttemptID string
	Token     string // fencing token: <attempt number>.<random>
}

// HeartbeatAnswer tells a worker what to stop.
type HeartbeatAnswer struct {
	Refused []Refusal
	Lost    []string // attempts whose lease ended
	Cancel  []string // attempts to stop; their end is still to be reported
}

// AttemptResult is the end of one attempt as its worker saw it.
type AttemptResult struct {
	Lease
	qgjob.Result
}

// ResultAnswer says what became of a result. Code is empty for one that was recorded.
type ResultAnswer struct {
	AttemptID string
	Code      qgjob.Code
	Message   string
	Trigger   qgjob.Trigger  // what it did to the job
	State     qgjob.JobState // of the job, by that trigger
	Retry     int            // number of the retry that follows, within its budget
	Retries   int            // size of that budget
}

// Poll hands in results and says which devices wait for work.
type Poll struct {
	WorkerID string
	Seq      int64         // higher than that of the worker's poll before
	Free     []string      // ids of the devices that wait
	Wait     time.Duration // for so long, from now
	Leases   []Lease       // every lease that the worker has
	Results  []AttemptResult
}

// PollAnswer is what a poll found at once, or what Assignments found later.
type PollAnswer struct {
	Assignments []Assignment
	Results     []ResultAnswer // one for each result of the poll, in its order
	Cancel      []string       // attempts to stop, each told once; heartbeats tell again
	Superseded  bool           // a newer poll of this worker took over: nothing waits for this one
}

// Assignment gives one device one attempt.
type Assignment struct {
	Lease
	DeviceID string
	Number   int
	Reason   string
	Job      qgjob.Job
}

// Lane is the queued jobs of one group and priority.
type Lane struct {
	OrgID        string
	AppVersionID string
	Target       qgjob.Target
	Requires     string
	Priority     int
	Level        int // the priority, risen with age
	Queued       int
	Waited       time.Duration // of its oldest job, since the submit
}

// AttemptKind is what ended attempts are counted by.
type AttemptKind struct {
	Outcome qgjob.Outcome
	Cause   qgjob.Cause
}

// Stats is the state of the whole installation, over all organizations.
type Stats struct {
	Jobs          map[qgjob.JobState]int64
	OldestQueued  time.Duration // since its submit; 0 when nothing is queued
	WorkersAlive  int
	WorkerSeen    bool          // any worker was ever heard of
	LastSeen      time.Duration // how long ago
	Devices       map[qgjob.DeviceState]int
	Installs      int64
	InstallsSaved int64
	Attempts      map[AttemptKind]int64
	CloudCost     float64 // of all attempts, in the unit of prices
	Predictions   Predictions
}

// Predictions counts those that Calibrate has judged: of them so many jobs started by their P50 and their P90.
type Predictions struct{ Judged, ByP50, ByP90 int64 }

// LogPage is a piece of an attempt's log.
type LogPage struct {
	Data    []byte
	Attempt int  // number of the attempt; 0 when the job has none
	End     bool // the attempt has ended (or there will be none) and Data reaches the end of its log
}
