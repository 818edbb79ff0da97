package qgjob

import "time"

// Attempt is one execution of a job: a device, a start, an end, one outcome.
type Attempt struct {
	ID       string `json:"id" doc:"UUID of the attempt"`
	JobID    string `json:"job_id"`
	Number   int    `json:"number" doc:"1 for the job's first attempt"`
	WorkerID string `json:"worker_id"`
	DeviceID string `json:"device_id"`
	Reason   string `json:"reason" doc:"why the scheduler chose this device"`

	Outcome Outcome `json:"outcome,omitempty" doc:"empty while the attempt runs"`
	Cause   Cause   `json:"cause,omitempty" doc:"why the outcome is not passed, as a stable name"`
	Message string  `json:"message,omitempty" doc:"what was seen and what to do about it"`
	Report  Report  `json:"report"`

	AssignedAt time.Time  `json:"assigned_at"`
	EndedAt    *time.Time `json:"ended_at,omitempty"`
}

// Outcome is how an attempt ended.
type Outcome string

// The outcomes. Exactly one ends an attempt.
const (
	OutcomePassed   Outcome = "passed"
	OutcomeFailed   Outcome = "failed"    // the test said no
	OutcomeTimedOut Outcome = "timed_out" // the test took longer than it may
	OutcomeErrored  Outcome = "errored"   // device, host, Appium, install, network, project: not the test's fault
	OutcomeCanceled Outcome = "canceled"  // stopped because it was asked for, or handed back
	OutcomeLost     Outcome = "lost"      // the lease ran out
)

// Outcomes lists every outcome.
var Outcomes = []Outcome{OutcomePassed, OutcomeFailed, OutcomeTimedOut, OutcomeErrored, OutcomeCanceled, OutcomeLost}

// Result is what a worker reports at the end of an attempt.
type Result struct {
	Outcome Outcome `json:"outcome" enum:"passed,failed,timed_out,errored,canceled,lost"`
	Cause   Cause   `json:"cause,omitempty" maxLength:"64"`
	Message string  `json:"message,omitempty" maxLength:"16384"`
	Report  Report  `json:"report"`
}

// Check refuses a result that contradicts itself: passed without a test that passed, or with one that
// did not; anything else without a cause; an outcome that only the server gives.
func (r Result) Check() error {
	if r.Outcome == OutcomePassed {
		passed := 0
		for _, t := range r.Report.Tests {
			switch t.Status {
			case TestPassed:
				passed++
			case TestFailed, TestTimedOut, TestInterrupted:
				return Errorf(CodeInvalid, "a passed result lists %q as %s", t.Title, t.Status)
			}
		}
		if passed == 0 {
			return Errorf(CodeInvalid, "a passed result lists no test that passed")
		}
		if r.Cause != "" {
			return Errorf(CodeInvalid, "a passed result carries cause %q", r.Cause)
		}
		return nil
	}
	if r.Outcome == OutcomeLost {
		return Errorf(CodeInvalid, "outcome lost is the server's to give")
	}
	if r.Cause == "" {
		return Errorf(CodeInvalid, "a result of outcome %q needs a cause", r.Outcome)
	}
	if !r.Cause.Known() {
		return Errorf(CodeInvalid, "cause %q is unknown", r.Cause)
	}
	if testsOwn := r.Outcome == OutcomeFailed || r.Outcome == OutcomeTimedOut; testsOwn != r.Cause.Test() {
		return Errorf(CodeInvalid, "outcome %q does not go with cause %q: one spends the test's budget and the other does not", r.Outcome, r.Cause)
	}
	return nil
}

// Report is what was measured and seen during an attempt.
type Report struct {
	Tests        []TestResult `json:"tests,omitempty" nullable:"false"`
	Installed    bool         `json:"installed" doc:"the app was installed for this attempt"`
	InstallSaved bool         `json:"install_saved" doc:"the app was on the device already: an install was saved"`
	InstallMS    int64        `json:"install_ms,omitempty"`
	ResetMS      int64        `json:"reset_ms,omitempty" doc:"time to clear the app's data"`
	RunMS        int64        `json:"run_ms,omitempty" doc:"time from the runner's start to its end"`
	BuildSHA256  string       `json:"build_sha256,omitempty" doc:"the build that the test ran against"`

	CloudSessions []CloudSession `json:"cloud_sessions,omitempty" nullable:"false" doc:"what ran in a cloud, in order"`
}

// CloudSession is one session on a cloud's device.
type CloudSession struct {
	ID       string  `json:"id"`
	URL      string  `json:"url,omitempty" doc:"the session's page at the cloud"`
	VideoURL string  `json:"video_url,omitempty" doc:"its recording, which the cloud keeps for a time"`
	Seconds  int64   `json:"seconds" doc:"how long it lasted, rounded up"`
	Cost     float64 `json:"cost,omitempty" doc:"minutes times the price of a minute that the worker was told"`
}

// TestStatus is how one test of a spec ended, in Playwright's words made snake_case.
type TestStatus string

// The test statuses. TestFlaky cannot occur: retries are the queue's.
const (
	TestPassed      TestStatus = "passed"
	TestFailed      TestStatus = "failed"
	TestTimedOut    TestStatus = "timed_out"
	TestSkipped     TestStatus = "skipped"
	TestInterrupted TestStatus = "interrupted"
)

// TestResult is one test of the spec as the runner reported it.
type TestResult struct {
	Title      string     `json:"title" doc:"describe blocks and title, joined with ' > '"`
	Status     TestStatus `json:"status" enum:"passed,failed,timed_out,skipped,interrupted"`
	DurationMS int64      `json:"duration_ms"`
	Error      string     `json:"error,omitempty" doc:"the first error's text, without terminal colours"`
	File       string     `json:"file,omitempty" doc:"where the test, or its error, is"`
	Line       int        `json:"line,omitempty"`
	Column     int        `json:"column,omitempty"`

	Quarantined bool `json:"quarantined,omitempty" doc:"it failed, and does not count; the server says so"`
}
