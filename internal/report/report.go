// Package report turns a run, with the attempts of its jobs, into what people and CI systems read: totals,
// JUnit XML, JSON, Markdown.
//
// What it promises: a test counts once, however often it was tried, by how it ended; one that passed only at
// a retry is flaky and counted apart; what is not a test's fault is an error and never a failure; a job
// without a verdict of its tests is an error, so that nothing unknown looks passed. It reads no clock and
// touches no file: what it writes goes to the writer that it is given.
package report

import (
	"cmp"
	"time"

	"qgjob"
)

// Report is a run as its reports show it. Make it with New.
type Report struct {
	Run    qgjob.Run `json:"run"`
	Jobs   []Job     `json:"jobs"`
	Totals Totals    `json:"totals"`
	Server string    `json:"-"` // its URL, for links; empty: none are made
}

// Job is a job with its attempts and tests.
type Job struct {
	qgjob.Job
	AttemptList []qgjob.Attempt `json:"attempt_list"`
	Tests       []Test          `json:"tests"`
}

// Test is one test of a job's spec over all attempts.
type Test struct {
	Title    string           `json:"title"`
	Status   qgjob.TestStatus `json:"status" doc:"at its last execution"`
	Flaky    bool             `json:"flaky,omitempty" doc:"passed, but not at every execution"`
	Excused  bool             `json:"quarantined,omitempty" doc:"failed, and does not count"`
	File     string           `json:"file,omitempty"` // where it, or its last error, is
	Line     int              `json:"line,omitempty"`
	Column   int              `json:"column,omitempty"`
	Error    string           `json:"error,omitempty"` // its last one
	Duration time.Duration    `json:"-"`               // of its last execution
	Tries    []Try            `json:"tries"`
}

// Try is one execution of a test.
type Try struct {
	Attempt    int              `json:"attempt"` // number of the job's attempt
	DeviceID   string           `json:"device_id"`
	Status     qgjob.TestStatus `json:"status"`
	DurationMS int64            `json:"duration_ms"`
	Error      string           `json:"error,omitempty"`
}

// Totals counts a run's tests, each once, and its jobs.
type Totals struct {
	Tests   int `json:"tests"`       // all of the following but Errors
	Passed  int `json:"passed"`      // at every execution
	Flaky   int `json:"flaky"`       // passed at a retry only
	Failed  int `json:"failed"`      // failed, timed out or interrupted
	Excused int `json:"quarantined"` // failed, and do not count
	Skipped int `json:"skipped"`     // marked so in the spec
	Errors  int `json:"errors"`      // jobs that ended, or wait, without a verdict of their tests

	Jobs map[qgjob.JobState]int `json:"jobs"`
}

// New makes the report of a run. attempts are those of its jobs, those of one job in their order.
func New(run qgjob.Run, attempts []qgjob.Attempt) *Report {
	of := map[string][]qgjob.Attempt{}
	for _, a := range attempts {
		of[a.JobID] = append(of[a.JobID], a)
	}
	r := &Report{Run: run, Jobs: make([]Job, len(run.Jobs)), Totals: Totals{Jobs: map[qgjob.JobState]int{}}}
	for i, j := range run.Jobs {
		r.Jobs[i] = newJob(j, of[j.ID])
		r.Totals.add(r.Jobs[i])
	}
	return r
}

func newJob(j qgjob.Job, attempts []qgjob.Attempt) Job {
	job := Job{Job: j, AttemptList: attempts, Tests: []Test{}}
	if attempts == nil {
		job.AttemptList = []qgjob.Attempt{}
	}
	index := map[title]int{}
	for _, a := range attempts {
		for t, result := range titled(a.Report.Tests) {
			i, known := index[t]
			if !known {
				i = len(job.Tests)
				index[t] = i
				job.Tests = append(job.Tests, Test{Title: t.text})
			}
			job.Tests[i].add(a, result)
		}
	}
	for i := range job.Tests {
		job.Tests[i].settle(j.State)
	}
	return job
}

// title tells tests of one spec apart: those of one text by the order in which they come.
type title struct {
	text string
	nth  int
}

// titled yields the results of one attempt, each under its title.
func titled(results []qgjob.TestResult) func(yield func(title, qgjob.TestResult) bool) {
	return func(yield func(title, qgjob.TestResult) bool) {
		seen := map[string]int{}
		for _, r := range results {
			t := title{r.Title, seen[r.Title]}
			seen[r.Title]++
			if !yield(t, r) {
				return
			}
		}
	}
}

func (t *Test) add(a qgjob.Attempt, r qgjob.TestResult) {
	t.Tries = append(t.Tries, Try{Attempt: a.Number, DeviceID: a.DeviceID, Status: r.Status, DurationMS: r.DurationMS, Error: r.Error})
	t.Status, t.Duration = r.Status, time.Duration(r.DurationMS)*time.Millisecond
	t.File, t.Line, t.Column = r.File, r.Line, r.Column
	t.Error, t.Excused = r.Error, r.Quarantined
}

// settle decides what a test's executions come to. A job passes by its last attempt, so that a test of it
// which failed, and was not executed again, is flaky and no failure.
func (t *Test) settle(state qgjob.JobState) {
	failed := false
	for _, try := range t.Tries {
		failed = failed || isFailure(try.Status)
	}
	t.Excused = t.Excused && state == qgjob.Passed
	if state == qgjob.Passed && isFailure(t.Status) && !t.Excused {
		t.Status = qgjob.TestPassed
	}
	t.Flaky = t.Status == qgjob.TestPassed && failed
}

// isFailure says that an execution did not pass; a status that is not known did not.
func isFailure(s qgjob.TestStatus) bool { return s != qgjob.TestPassed && s != qgjob.TestSkipped }

// Failed says that the test's last execution did not pass, and counts.
func (t Test) Failed() bool { return isFailure(t.Status) && !t.Excused }

// HasVerdict says that the job's tests decided its verdict. Otherwise what is known of its tests is no more
// than what was seen before it ended as something else.
func (j Job) HasVerdict() bool { return j.State == qgjob.Passed || j.State == qgjob.Failed }

// Reason is why a job did not pass, in one line.
func (j Job) Reason() string {
	switch {
	case j.State == qgjob.Passed:
		return ""
	case !j.State.IsVerdict():
		return "it is " + string(j.State) + " and has no verdict"
	case j.Cause == "":
		return cmp.Or(j.Message, "no reason given")
	case j.Message == "":
		return string(j.Cause) + ": " + cmp.Or(j.Cause.Advice(), "no reason given")
	}
	return string(j.Cause) + ": " + j.Message
}

// Device is the device of the last attempt; empty when there was none.
func (j Job) Device() string {
	if len(j.AttemptList) == 0 {
		return ""
	}
	return j.AttemptList[len(j.AttemptList)-1].DeviceID
}

// Took is the time from the start of the first attempt to the job's verdict; 0 where one is missing.
func (j Job) Took() time.Duration {
	if j.StartedAt == nil || j.EndedAt == nil {
		return 0
	}
	return j.EndedAt.Sub(*j.StartedAt)
}

// Name is the spec, with its part where it has one, and the kind of device where one was asked for.
func (j Job) Name() string {
	name := j.TestPath
	if j.Shard != "" {
		name += " (part " + j.Shard + ")"
	}
	if j.Target != qgjob.TargetAny {
		name += " [" + string(j.Target) + "]"
	}
	return name
}

func (t *Totals) add(j Job) {
	t.Jobs[j.State]++
	failed := 0
	for _, test := range j.Tests {
		switch {
		case !j.HasVerdict() && test.Status != qgjob.TestPassed:
			continue // the job's error stands for it
		case test.Excused:
			t.Excused++
		case test.Flaky:
			t.Flaky++
		case test.Failed():
			t.Failed++
			failed++
		case test.Status == qgjob.TestSkipped:
			t.Skipped++
		default:
			t.Passed++
		}
		t.Tests++
	}
	if !j.HasVerdict() || j.State == qgjob.Failed && failed == 0 {
		t.Errors++
	}
}

// Took is the time from the run's submit to its verdict; 0 while it has none.
func (r *Report) Took() time.Duration {
	var end time.Time
	for _, j := range r.Jobs {
		if j.EndedAt == nil {
			return 0
		}
		if j.EndedAt.After(end) {
			end = *j.EndedAt
		}
	}
	return max(0, end.Sub(r.Run.SubmittedAt))
}
