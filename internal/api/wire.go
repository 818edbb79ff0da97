// Package api is what client, worker and server say to each other over HTTP: the wire types of REST
// under /v1, the one table between error codes and HTTP statuses, and the Go client.
//
// Types that people and workers share with the rest of the program (Job, Attempt, Event, Device, Result)
// are package qgjob's; here are the envelopes around them. JSON is snake_case, times are RFC 3339 with
// milliseconds, durations carry their unit in the name. Unknown fields are refused.
package api

import (
	"time"

	"qgjob"
)

// Limits of request bodies, in bytes.
const (
	MaxJSONBody   = 4 << 20
	MaxLogChunk   = 1 << 20
	MaxBundleSize = 256 << 20
	MaxBuildSize  = 2 << 30
	MaxArtifact   = 512 << 20
)

// MaxLogSize is how much of an attempt's log is kept, in bytes; the rest is dropped with a note.
const MaxLogSize = 16 << 20

// LeaseTokenHeader carries the lease token where the body is not JSON.
const LeaseTokenHeader = "Qgjob-Lease-Token"

// Headers of GET /v1/jobs/{id}/log, whose body is the log's bytes.
const (
	LogAttemptHeader = "Qgjob-Attempt"   // number of the attempt whose log it is; 0 while the job had none
	LogNextHeader    = "Qgjob-Log-Next"  // offset of the first byte after the ones sent
	LogEndedHeader   = "Qgjob-Log-Ended" // true: the attempt has ended and nothing follows these bytes
)

// MaxWait is how long a request may ask the server to wait for something new.
const MaxWait = 60 * time.Second

// LogChunk is part of the log of one attempt: GET /v1/jobs/{id}/log.
type LogChunk struct {
	Attempt int   // number of the attempt; 0 while the job had none
	Next    int64 // offset of the first byte after Data
	Ended   bool  // the attempt has ended and nothing follows Data
	Data    []byte
}

// LogAppended is the answer to POST /v1/attempts/{id}/log.
type LogAppended struct {
	Size int64 `json:"size" doc:"length of the attempt's log now; bytes over the limit are counted and dropped"`
}

// BlobStored is the answer to an upload.
type BlobStored struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size" doc:"in bytes"`
}

// BuildList is the builds of an app version, newest first: GET /v1/builds.
type BuildList struct {
	Builds []Build `json:"builds" nullable:"false"`
}

// Build is an uploaded build.
type Build struct {
	SHA256      string    `json:"sha256"`
	Platform    string    `json:"platform" enum:"android,ios"`
	Package     string    `json:"package"`
	VersionName string    `json:"version_name,omitempty"`
	VersionCode int64     `json:"version_code,omitempty"`
	Size        int64     `json:"size" doc:"in bytes"`
	AddedAt     time.Time `json:"added_at,omitzero"`
}

// SubmitRequest makes a run: POST /v1/runs. 201 with the run when it was made, 200 when the idempotency
// key names a run that exists.
type SubmitRequest struct {
	OrgID        string    `json:"org_id" doc:"organization"`
	AppVersionID string    `json:"app_version_id" doc:"app version under test"`
	Jobs         []JobSpec `json:"jobs" minItems:"1" maxItems:"10000" nullable:"false"`

	BundleSHA256 string `json:"bundle_sha256,omitempty" doc:"the test project, uploaded before to /v1/bundles; empty: the project in the worker's directory"`
	BuildSHA256  string `json:"build_sha256,omitempty" doc:"a build of the app version, uploaded before to /v1/builds; empty: the app version's newest build, or else what the project's config names"`
	Project      string `json:"project,omitempty" maxLength:"200" doc:"Playwright project to run"`
	ConfigPath   string `json:"config_path,omitempty" maxLength:"1024" doc:"AppWright config, relative to the test project"`

	AllowUnmatched bool `json:"allow_unmatched,omitempty" doc:"let jobs wait that no known device can run; default refuse them"`

	Env     map[string]string `json:"env,omitempty" doc:"variables for the tests; anybody who may see the run sees them"`
	Secrets map[string]string `json:"secrets,omitempty" writeOnly:"true" doc:"variables for the tests whose values are encrypted at rest, told to nobody but the worker, and masked in all that an attempt leaves"`

	CI                  *qgjob.CI `json:"ci,omitempty" doc:"where the run comes from; it does not tell requests under one key apart"`
	MaxFailures         int       `json:"max_failures,omitempty" minimum:"0" doc:"stop the run once so many of its jobs failed or errored; 0: never"`
	Video               string    `json:"video,omitempty" enum:"off,on,retain-on-failure" doc:"record the screens of phones and emulators, of each attempt or of those that do not pass; default off. BrowserStack records by itself"`
	QueueTimeoutSeconds int64     `json:"queue_timeout_seconds,omitempty" minimum:"0" maximum:"2592000" doc:"cancel the jobs that no device has taken so long after the submit, for cause queue_timed_out; 0: they wait"`
	DeadlineSeconds     int64     `json:"deadline_seconds,omitempty" minimum:"0" maximum:"604800" doc:"jobs that their own devices are expected to end later than so long after the submit may run on BrowserStack, as far as the budgets go; 0: none does"`
	MaxCost             float64   `json:"max_cost,omitempty" minimum:"0" maximum:"1000000000" doc:"what that may cost, in the unit of the price of a minute; 0: as the organization's budget has it"`
	CancelPrevious      bool      `json:"cancel_previous,omitempty" doc:"cancel what is left of older runs of the same repository, branch, pull request and workflow; ci must name a branch"`

	IdempotencyKey string `json:"idempotency_key,omitempty" maxLength:"255" doc:"the same key with the same body names the same run, for seven days; empty: every request makes a run"`
	RepeatFailed   bool   `json:"repeat_failed,omitempty" doc:"the key matches only a run that is live or passed: a repetition of a failed one makes a new run, linked to it"`
}

// JobSpec is one job of a submit.
type JobSpec struct {
	TestPath string `json:"test_path" doc:"spec file, relative to the test project"`
	Shard    string `json:"shard,omitempty" maxLength:"16" doc:"part of the spec to run, as 2/3; default all of it"`
	Priority *int   `json:"priority,omitempty" doc:"0 (most urgent) to 1000; default 1"`
	Target   string `json:"target,omitempty" doc:"device, emulator or browserstack; default any own phone or emulator"`
	Requires string `json:"requires,omitempty" maxLength:"1000" doc:"what else is asked of the device: terms joined by commas, such as platform=android, os>=12, os<15, model=Pixel *|Galaxy S2?, tag=lab, device=ID"`
}

// Unsecret is the request with the names of its secrets only.
func (r SubmitRequest) Unsecret() SubmitRequest {
	names := map[string]string{}
	for name := range r.Secrets {
		names[name] = ""
	}
	r.Secrets = names
	return r
}

// AttemptEnvironment is the variables of an attempt's tests: GET /v1/attempts/{id}/environment.
type AttemptEnvironment struct {
	Env     map[string]string `json:"env,omitempty"`
	Secrets map[string]string `json:"secrets,omitempty"`
}

// RetryRequest makes a new run of a run's jobs: POST /v1/runs/{id}/retry. Bundle, build and CI facts are the
// first run's.
type RetryRequest struct {
	Failed         bool   `json:"failed,omitempty" doc:"only the jobs that did not pass; a run that has no such job is refused"`
	IdempotencyKey string `json:"idempotency_key,omitempty" maxLength:"255" doc:"as of a submit"`
}

// RunChange is the data of one event of GET /v1/runs/{id}/events.
type RunChange struct {
	State qgjob.JobState `json:"state" doc:"of the run"`
	Jobs  []qgjob.Job    `json:"jobs" nullable:"false" doc:"the jobs that changed; in the first event of a connection all of them"`
}

// RunReport is a run with everything that its reports are made of: GET /v1/runs/{id}/report.
type RunReport struct {
	Run      qgjob.Run       `json:"run"`
	Attempts []qgjob.Attempt `json:"attempts" nullable:"false" doc:"of all jobs; those of one job together and in their order"`
}

// QuarantineRequest lets a test run without counting: PUT /v1/quarantine.
type QuarantineRequest struct {
	OrgID    string `json:"org_id"`
	TestPath string `json:"test_path"`
	Title    string `json:"title" minLength:"1" maxLength:"2000" doc:"describe blocks and title, joined with ' > '"`
	Reason   string `json:"reason,omitempty" maxLength:"1000"`
}

// ReleaseRequest lets a test count again: POST /v1/quarantine/release.
type ReleaseRequest struct {
	OrgID    string `json:"org_id"`
	TestPath string `json:"test_path"`
	Title    string `json:"title" minLength:"1" maxLength:"2000"`
}

// TestHistories is what is known of an organization's tests, the most probably failing first, and which of
// them are quarantined: GET /v1/flaky.
type TestHistories struct {
	Tests      []qgjob.TestHistory `json:"tests" nullable:"false"`
	Quarantine []qgjob.Quarantine  `json:"quarantine" nullable:"false"`
}

// WebhookRequest registers a webhook: POST /v1/webhooks.
type WebhookRequest struct {
	OrgID  string              `json:"org_id"`
	URL    string              `json:"url" maxLength:"2000" doc:"of the receiver, http or https"`
	Format qgjob.WebhookFormat `json:"format,omitempty" enum:"json,slack" doc:"default json"`
}

// WebhookAdded is a new webhook with its secret, which is told this once.
type WebhookAdded struct {
	qgjob.Webhook
	Secret string `json:"secret" doc:"deliveries are signed with it"`
}

// WebhookList is an organization's webhooks: GET /v1/webhooks.
type WebhookList struct {
	Webhooks []qgjob.Webhook `json:"webhooks" nullable:"false"`
}

// DeliveryList is what a webhook was told, newest first: GET /v1/webhooks/{id}/deliveries.
type DeliveryList struct {
	Deliveries []qgjob.Delivery `json:"deliveries" nullable:"false"`
}

// JobDetail is a job with its whole life: GET /v1/jobs/{id}.
type JobDetail struct {
	qgjob.Job
	AttemptList []qgjob.Attempt `json:"attempt_list" nullable:"false"`
	Events      []qgjob.Event   `json:"events" nullable:"false"`
}

// JobList is a page of jobs, newest first: GET /v1/jobs. Next is empty on the last page; a page before may hold few
// jobs or none.
type JobList struct {
	Jobs []qgjob.Job `json:"jobs" nullable:"false"`
	Next string      `json:"next,omitempty" doc:"give it as cursor to get the next page"`
}

// QueueEntry is one lane of the queue: the queued jobs of one group and priority.
type QueueEntry struct {
	OrgID        string       `json:"org_id"`
	AppVersionID string       `json:"app_version_id"`
	Target       qgjob.Target `json:"target"`
	Requires     string       `json:"requires,omitempty" doc:"what else is asked of the device"`
	Priority     int          `json:"priority"`
	Level        int          `json:"level" doc:"the priority, risen with the age of the oldest job"`
	Queued       int          `json:"queued"`
	OldestMS     int64        `json:"oldest_ms" doc:"how long its oldest job has waited, in milliseconds"`
}

// Explanation says why a job waits, or why it ran where it did: GET /v1/jobs/{id}/explanation.
type Explanation struct {
	Job     qgjob.Job `json:"job"`
	Waiting *Waiting  `json:"waiting,omitempty" doc:"there for a queued job"`
	Choices []Choice  `json:"choices" nullable:"false" doc:"one for each attempt"`
}

// Waiting is what holds a queued job back.
type Waiting struct {
	Level         int          `json:"level" doc:"its priority, risen with age"`
	Position      int          `json:"position" doc:"among the jobs of its group and priority, from 1"`
	Constraints   []Constraint `json:"constraints" nullable:"false"`
	ExpectedP50MS int64        `json:"expected_p50_ms" doc:"until it starts, in half of all cases, if nothing more urgent is submitted"`
	ExpectedP90MS int64        `json:"expected_p90_ms" doc:"in nine of ten"`
	Unserved      bool         `json:"unserved,omitempty" doc:"no device that is available can run it: when it starts is not known"`
}

// Constraint is one thing that can hold a job back, with its state.
type Constraint struct {
	Kind  string `json:"kind" enum:"breaker,quota,devices,avoid,priority,order,join,deadline,budget"`
	Holds bool   `json:"holds" doc:"it holds the job back now"`
	Text  string `json:"text"`
}

// Choice is why an attempt ran where it did.
type Choice struct {
	Attempt   int      `json:"attempt"`
	DeviceID  string   `json:"device_id"`
	Reason    string   `json:"reason"`
	Rule      string   `json:"rule,omitempty" doc:"the part of the policy that chose: overdue, same_device, installed, unserved, join, fair or overflow"`
	Level     int      `json:"level" doc:"effective priority of its group"`
	InstallMS int64    `json:"install_ms" doc:"what the install was expected to cost; 0 when the app was on the device"`
	SavedMS   int64    `json:"saved_ms" doc:"the install that was saved"`
	Serving   int      `json:"serving" doc:"devices that served its group before"`
	Waiting   int      `json:"waiting" doc:"jobs of its group that waited, this one included"`
	Over      []string `json:"over" nullable:"false" doc:"other free devices that fit, a few of them"`
	Cost      float64  `json:"cost,omitempty" doc:"what it was expected to cost, of one that overflowed to BrowserStack"`
}

// Organization is what the scheduler goes by of one: GET and PUT /v1/organizations/{id}.
type Organization struct {
	Weight     float64 `json:"weight" minimum:"0.001" maximum:"1000" default:"1" doc:"its share of device time beside others of the same priority"`
	MaxDevices int     `json:"max_devices" minimum:"0" maximum:"100000" doc:"most devices at once; 0: no limit"`
	MaxCost    float64 `json:"max_cost,omitempty" minimum:"0" maximum:"1000000000" doc:"budget of a month, UTC, for jobs that overflow to BrowserStack, in the unit of the price of a minute; 0: it has none"`
	Cost       float64 `json:"cost,omitempty" readOnly:"true" doc:"what its jobs cost on BrowserStack in this month; a change of it is ignored"`
}

// Queue is what waits, in the order in which it is served: GET /v1/queue.
type Queue struct {
	Entries []QueueEntry `json:"entries" nullable:"false"`
	Running int          `json:"running"`
}

// ArtifactList is what the attempts of a job left: GET /v1/jobs/{id}/artifacts.
type ArtifactList struct {
	Artifacts []qgjob.Artifact `json:"artifacts" nullable:"false"`
}

// DeviceList is every known device: GET /v1/devices.
type DeviceList struct {
	Devices []qgjob.Device `json:"devices" nullable:"false"`
}

// DeviceReport is how a worker describes one of its devices.
type DeviceReport struct {
	ID          string            `json:"id" minLength:"1" maxLength:"255"`
	Serial      string            `json:"serial" maxLength:"255"`
	Kind        qgjob.Target      `json:"kind" enum:"device,emulator,browserstack"`
	Platform    string            `json:"platform" enum:"android,ios,any"`
	Model       string            `json:"model" maxLength:"255"`
	OSVersion   string            `json:"os_version" maxLength:"64"`
	State       qgjob.DeviceState `json:"state" enum:"idle,busy,offline,unauthorized,booting"`
	Message     string            `json:"message,omitempty" maxLength:"4096"`
	Tags        []string          `json:"tags,omitempty" maxItems:"50" nullable:"false" doc:"words that its owner gave it; no commas"`
	Installed   *qgjob.App        `json:"installed,omitempty"`
	MinutePrice float64           `json:"minute_price,omitempty" minimum:"0" maximum:"1000000" doc:"what a minute on it costs; 0: nothing is known of a price"`
	qgjob.Hardware
}

// RegisterRequest announces a worker: PUT /v1/workers/{id}. The worker chooses its id, a fresh UUID per
// process, so that the request can be repeated.
type RegisterRequest struct {
	Host    string         `json:"host" maxLength:"255"`
	Version string         `json:"version" maxLength:"64"`
	Devices []DeviceReport `json:"devices" maxItems:"1000" nullable:"false"`
}

// RegisterResponse tells the worker its rhythm.
type RegisterResponse struct {
	LeaseMS     int64 `json:"lease_ms" doc:"how long a lease lives without a heartbeat"`
	HeartbeatMS int64 `json:"heartbeat_ms" doc:"how often to send a heartbeat"`
	DeviceClaims
	Holds []DeviceHold `json:"holds" nullable:"false" doc:"devices that are to take no work"`
}

// DeviceClaims says which of the reported devices the worker may not use.
type DeviceClaims struct {
	Refused []RefusedDevice `json:"refused" nullable:"false" doc:"devices that belong to another live worker"`
}

// DeviceHold is a hold of one device.
type DeviceHold struct {
	DeviceID string `json:"device_id"`
	qgjob.Hold
}

// HoldRequest lets a device take no more work: POST /v1/devices/{id}/hold.
type HoldRequest struct {
	Kind   qgjob.HoldKind `json:"kind" enum:"drain,maintain,reserve,check,quarantine"`
	Reason string         `json:"reason,omitempty" maxLength:"1024"`
	ForMS  int64          `json:"for_ms,omitempty" minimum:"0" maximum:"2592000000" doc:"0: until it is released"`
}

// ReleaseDeviceRequest ends a hold: POST /v1/devices/{id}/release.
type ReleaseDeviceRequest struct {
	Only []qgjob.HoldKind `json:"only,omitempty" enum:"drain,maintain,reserve,check,quarantine" doc:"release a hold of these kinds only; absent: any"`
}

// RefusedDevice is a device that belongs to another live worker.
type RefusedDevice struct {
	DeviceID string `json:"device_id"`
	Message  string `json:"message"`
}

// HeartbeatRequest keeps a worker, its devices and its leases alive: POST /v1/workers/{id}/heartbeat.
// It carries every device and every lease that the worker has.
type HeartbeatRequest struct {
	Devices []DeviceReport `json:"devices" maxItems:"1000" nullable:"false"`
	Leases  []Lease        `json:"leases" maxItems:"1000" nullable:"false"`
}

// Lease is a worker's right to an attempt.
type Lease struct {
	AttemptID string `json:"attempt_id" maxLength:"64"`
	Token     string `json:"token" maxLength:"128" doc:"fencing token: <attempt number>.<random>"`
}

// HeartbeatResponse tells what to stop.
type HeartbeatResponse struct {
	DeviceClaims
	Holds  []DeviceHold `json:"holds" nullable:"false" doc:"devices that are to take no work"`
	Lost   []string     `json:"lost" nullable:"false" doc:"attempts whose lease ended: stop them, their results will be refused"`
	Cancel []string     `json:"cancel" nullable:"false" doc:"attempts to stop; their end is still to be reported"`
}

// PollRequest hands in results and asks for work: POST /v1/workers/{id}/poll. It is answered at the first
// assignment or cancel, or after WaitMS; one that carries results within a tenth of a second, so that the
// worker hears what became of them. A poll with a higher Seq supersedes the ones before it. An attempt that
// the server gave to a free device and that Leases does not list was lost with an answer: it is given again.
type PollRequest struct {
	Seq     int64           `json:"seq" doc:"higher than that of the worker's poll before"`
	WaitMS  int64           `json:"wait_ms" minimum:"0" maximum:"60000"`
	Devices []string        `json:"devices" maxItems:"1000" nullable:"false" doc:"ids of the devices that are free; empty to hear of cancels only"`
	Leases  []Lease         `json:"leases" maxItems:"1000" nullable:"false" doc:"every lease that the worker has"`
	Results []AttemptResult `json:"results" maxItems:"1000" nullable:"false"`
}

// AttemptResult is the end of one attempt.
type AttemptResult struct {
	Lease
	qgjob.Result
}

// PollResponse is the answer to a poll.
type PollResponse struct {
	Assignments []Assignment   `json:"assignments" nullable:"false"`
	Results     []ResultAnswer `json:"results" nullable:"false" doc:"one for each result of the request, in its order"`
	Cancel      []string       `json:"cancel" nullable:"false" doc:"attempts to stop"`
	Superseded  bool           `json:"superseded,omitempty" doc:"a newer poll of this worker took over"`
}

// Assignment gives one device one attempt. A worker that gets the same attempt twice ignores the second.
type Assignment struct {
	Lease
	DeviceID string    `json:"device_id"`
	Number   int       `json:"number" doc:"of the attempt within its job"`
	Reason   string    `json:"reason"`
	Job      qgjob.Job `json:"job"`
}

// ResultAnswer says what became of a result. A refused one (Code is not empty) is not to be sent again.
type ResultAnswer struct {
	AttemptID string         `json:"attempt_id"`
	Code      qgjob.Code     `json:"code,omitempty" doc:"why it was refused; unavailable: send it again"`
	Message   string         `json:"message,omitempty"`
	Trigger   qgjob.Trigger  `json:"trigger,omitempty" doc:"what it did to the job"`
	State     qgjob.JobState `json:"state,omitempty" doc:"of the job"`
	Retry     int            `json:"retry,omitempty" doc:"number of the retry that follows, within its budget"`
	Retries   int            `json:"retries,omitempty" doc:"size of that budget"`
}

// LeaveRequest ends a worker: POST /v1/workers/{id}/leave. Leases it still has go back without cost.
type LeaveRequest struct {
	Reason string `json:"reason,omitempty" maxLength:"1024"`
}

// Health is GET /health: 200 when the server can serve, 503 when not.
type Health struct {
	Status  string        `json:"status" enum:"ok,failing"`
	Version string        `json:"version"`
	Store   HealthStore   `json:"store"`
	Queue   HealthQueue   `json:"queue"`
	Workers HealthWorkers `json:"workers"`
}

// HealthStore is the state of the database.
type HealthStore struct {
	Kind    string `json:"kind" enum:"sqlite,postgresql"`
	OK      bool   `json:"ok"`
	Message string `json:"message,omitempty"`
}

// HealthQueue is the state of the queue.
type HealthQueue struct {
	Queued         int   `json:"queued"`
	Running        int   `json:"running"`
	OldestQueuedMS int64 `json:"oldest_queued_ms"`
}

// HealthWorkers is how many workers and devices are alive.
type HealthWorkers struct {
	Alive          int   `json:"alive"`
	LastSeenMS     int64 `json:"last_seen_ms,omitempty" doc:"how long ago any worker was heard of; absent when none ever was"`
	Devices        int   `json:"devices"`
	DevicesWorking int   `json:"devices_working" doc:"idle or busy"`
}
