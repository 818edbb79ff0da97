// Package store is the durable queue: organizations' runs, jobs, attempts, events, builds and logs, and the
// workers with their devices, in one database. One concrete Store works over SQLite and PostgreSQL.
//
// What it promises: whatever a method acknowledged is committed and synced to disk; a job has at most one
// open attempt, a device too; every state change goes through qgjob's transition function and leaves one
// event; the counters that the planner and Stats read change in the transaction that changes the jobs.
//
// How its parts fit: every write is a call in the queue of one writer (writer.go), which runs the calls that
// arrived while the transaction before was being committed together in the next one. Within a transaction
// (tx.go) changes are collected and written set-wise at its end. Reads go to a pool of their own. On
// PostgreSQL a write transaction holds one advisory lock, so that any number of servers write in one strict
// order, as SQLite's one writer does by nature. After a commit the topics that it touched are published
// (wake.go), to subscribers in this process and, on PostgreSQL, in the others.
//
// Time is the database's clock. The package knows nothing of HTTP, and nothing of when to dispatch or to reap.
package store

import (
	"context"
	"log/slog"
	"time"

	"qgjob"
)

// DefaultLease is how long a worker's lease lives without a sign of it.
const DefaultLease = 45 * time.Second

// MaxLogSize is how much of an attempt's log is kept, in bytes; the rest is dropped with a note.
const MaxLogSize = 16 << 20

// IdempotencyWindow is how long an idempotency key is remembered.
const IdempotencyWindow = 7 * 24 * time.Hour

// Options says which database to open, and how.
type Options struct {
	Path        string        // SQLite file, made with its directory; used when DatabaseURL is empty
	DatabaseURL string        // postgres://…
	Lease       time.Duration // 0 is DefaultLease
	Logger      *slog.Logger  // nil discards
}

// JobSpec is one job of a submission.
type JobSpec struct {
	TestPath string
	Priority int
	Target   qgjob.Target
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

// Build is an uploaded build of an app version. The file itself is in the blob store.
type Build struct {
	OrgID        string
	AppVersionID string
	SHA256       string
	Platform     string
	Package      string
	VersionName  string
	VersionCode  int64
	Size         int64     // bytes
	AddedAt      time.Time // set by the store
}

// DeviceReport is how a worker describes one of its devices.
type DeviceReport struct {
	ID        string
	Serial    string
	Kind      qgjob.Target
	Platform  string
	Model     string
	OSVersion string
	State     qgjob.DeviceState
	Message   string
	Installed *qgjob.App
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
	Priority     int
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
}

var errSkeleton = qgjob.Errorf(qgjob.CodeUnavailable, "the store is being written")

// Store is the durable queue. All methods may be called concurrently. Errors carry qgjob codes; after
// CodeUnavailable the outcome of a write may be unknown, and the write can be sent again.
type Store struct {
	lease time.Duration
}

// Open opens or makes the database and migrates it. A database that a newer qgjob has migrated is refused.
func Open(ctx context.Context, o Options) (*Store, error) { return nil, errSkeleton }

// Close waits for every batch and every goroutine. Calls that come later are CodeUnavailable.
func (s *Store) Close() error { return errSkeleton }

// Kind is the database's: sqlite or postgresql.
func (s *Store) Kind() string { return "" }

// Lease is how long a lease lives without a sign of its worker.
func (s *Store) Lease() time.Duration { return s.lease }

// Ping goes through the writer to the database and back.
func (s *Store) Ping(ctx context.Context) error { return errSkeleton }

// Submit makes a run, or returns the one that the idempotency key names (created is false).
func (s *Store) Submit(ctx context.Context, sub Submission) (run qgjob.Run, created bool, err error) {
	return qgjob.Run{}, false, errSkeleton
}

// Run returns a run with its jobs. An empty org is any organization.
func (s *Store) Run(ctx context.Context, org, id string) (qgjob.Run, error) {
	return qgjob.Run{}, errSkeleton
}

// Job returns a job with its attempts and events. An empty org is any organization.
func (s *Store) Job(ctx context.Context, org, id string) (JobDetail, error) {
	return JobDetail{}, errSkeleton
}

// Jobs returns a page of jobs, newest first. next is empty on the last page.
func (s *Store) Jobs(ctx context.Context, f JobFilter) (jobs []qgjob.Job, next string, err error) {
	return nil, "", errSkeleton
}

// Events returns the events of a job with a number above after.
func (s *Store) Events(ctx context.Context, org, jobID string, after int) ([]qgjob.Event, error) {
	return nil, errSkeleton
}

// Cancel asks for the end of a job: a queued one is canceled at once, a running one becomes canceling.
// A job that is canceling or has a verdict stays as it is, without an error.
func (s *Store) Cancel(ctx context.Context, org, jobID string) (qgjob.Job, error) {
	return qgjob.Job{}, errSkeleton
}

// AddBuild records a build. Adding it again changes nothing.
func (s *Store) AddBuild(ctx context.Context, b Build) error { return errSkeleton }

// Builds returns the builds of an app version, newest first.
func (s *Store) Builds(ctx context.Context, org, appVersion string) ([]Build, error) {
	return nil, errSkeleton
}

// Register announces a worker with its devices. It can be repeated.
func (s *Store) Register(ctx context.Context, workerID, host, version string, devices []DeviceReport) ([]Refusal, error) {
	return nil, errSkeleton
}

// Heartbeat keeps a worker, its devices and its leases alive. CodeNotFound: the worker is not known (any
// more) and registers again.
func (s *Store) Heartbeat(ctx context.Context, workerID string, devices []DeviceReport, leases []Lease) (HeartbeatAnswer, error) {
	return HeartbeatAnswer{}, errSkeleton
}

// Poll records results, keeps the leases alive, marks the free devices as waiting and returns at once with
// what is there: open attempts of free devices that the worker does not list (an answer was lost), and
// cancels. The caller that found neither subscribes to TopicWorker, before it calls Poll, and calls
// Assignments when woken. CodeNotFound: the worker registers again.
func (s *Store) Poll(ctx context.Context, p Poll) (PollAnswer, error) {
	return PollAnswer{}, errSkeleton
}

// Assignments returns what has come up for a waiting poll: open attempts of its free devices, and cancels
// not told yet. Superseded when a newer poll of the worker took over, or the worker is gone.
func (s *Store) Assignments(ctx context.Context, workerID string, seq int64, free []string) (PollAnswer, error) {
	return PollAnswer{}, errSkeleton
}

// Unwait ends the waiting of a poll's devices: it was answered, or its client has gone. It is needless when
// every free device of the poll got an assignment.
func (s *Store) Unwait(ctx context.Context, workerID string, seq int64) error { return errSkeleton }

// Leave ends a worker: its open leases go back without cost, its devices leave. Leaving twice is no error.
func (s *Store) Leave(ctx context.Context, workerID string) error { return errSkeleton }

// Dispatch plans all waiting devices together and gives them jobs, in one transaction. It returns how many
// attempts it made.
func (s *Store) Dispatch(ctx context.Context) (int, error) { return 0, errSkeleton }

// Reap ends the attempts whose lease ran out and forgets workers unseen for a lease. It returns how many
// attempts it ended. Any server may call it at any time; not to do so for one lease after a start or a
// stall is its caller's rule.
func (s *Store) Reap(ctx context.Context) (int, error) { return 0, errSkeleton }

// AppendLog adds to an attempt's log. offset is where chunk starts in the whole log; what is known already
// is skipped, a gap is CodeConflict. size is where the next chunk starts, also on CodeConflict.
func (s *Store) AppendLog(ctx context.Context, attemptID, token string, offset int64, chunk []byte) (size int64, err error) {
	return 0, errSkeleton
}

// LogPage is a piece of an attempt's log.
type LogPage struct {
	Data    []byte
	Attempt int  // number of the attempt; 0 when the job has none
	End     bool // the attempt has ended (or there will be none) and Data reaches the end of its log
}

// Log reads an attempt's log (attempt 0 is the newest) from a byte offset.
func (s *Store) Log(ctx context.Context, org, jobID string, attempt int, offset int64, limit int) (LogPage, error) {
	return LogPage{}, errSkeleton
}

// Devices returns the devices of live workers.
func (s *Store) Devices(ctx context.Context) ([]qgjob.Device, error) { return nil, errSkeleton }

// Queue returns what waits, most urgent first, and how many jobs run. An empty org is every organization.
func (s *Store) Queue(ctx context.Context, org string) (lanes []Lane, running int, err error) {
	return nil, 0, errSkeleton
}

// Stats is cheap at any number of jobs.
func (s *Store) Stats(ctx context.Context) (Stats, error) { return Stats{}, errSkeleton }

// TopicQueue is published when something was queued or a device waits.
const TopicQueue = "queue"

// TopicJob is published when a job has a new event.
func TopicJob(id string) string { return "job/" + id }

// TopicWorker is published when something has come up for a worker's poll.
func TopicWorker(id string) string { return "worker/" + id }

// Subscription receives on C after a topic was published, once for any number of publications.
type Subscription struct {
	C <-chan struct{}
}

// Subscribe listens to topics until Close. A subscriber reads the store after subscribing, and after each
// receive: it may be woken for nothing, but does not miss anything.
func (s *Store) Subscribe(topics ...string) *Subscription { return &Subscription{} }

// Close ends the subscription.
func (s *Subscription) Close() {}
