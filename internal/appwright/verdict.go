package appwright

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"qgjob"
)

// hungCommand is how long a command must be without an answer before the device, and not the test, is
// said to have hung. Appium's driver for Android waits up to ten seconds for a screen to come to rest.
const hungCommand = 30 * time.Second

// clockSlack is how far the times of report, events and proxy may be apart: they are rounded.
const clockSlack = 50 * time.Millisecond

// observation is all that is known of a run. Its result is a pure function of it.
type observation struct {
	spec         string
	platform     string // of the device
	began, ended time.Time
	deadline     time.Duration
	exit         exit
	canceled     bool     // by the caller
	sick         *Failure // of the device, which ended it; nil for any other end
	overdue      bool     // the deadline ended it, or silence did
	silent       bool     // it was silence
	silence      time.Duration
	output       string

	report    *report // nil when there is none, or none that can be read
	reportErr error
	events    events
	evidence  Evidence
}

// result is the verdict. The order of the questions: was the run stopped; is there a report that can be
// believed; did a test say no by itself; did the infrastructure break; what stopped the run; what ran.
//
// A test that failed although the infrastructure held until its body had ended counts, whatever broke later
// or in other tests: its failure is real. Only when every failure falls together with a failure of the
// infrastructure is the attempt errored.
func (o observation) result(name func(file string) string) qgjob.Result {
	result := o.verdict(name)
	result.Message = clip(result.Message, maxMessage)
	result.Report.RunMS = o.ended.Sub(o.began).Milliseconds()
	if o.report == nil {
		stopped := qgjob.TestInterrupted
		if o.overdue {
			stopped = qgjob.TestTimedOut
		}
		result.Report.Tests = o.events.results(name, stopped, o.ended)
		return result
	}
	for _, t := range o.report.Tests {
		result.Report.Tests = append(result.Report.Tests, t.result(name))
	}
	return result
}

// maxMessage bounds a result's message.
const maxMessage = 8 << 10

func (o observation) verdict(name func(string) string) qgjob.Result {
	switch {
	case o.canceled:
		return ended(qgjob.OutcomeCanceled, qgjob.CauseCanceled, "the run was stopped")
	case o.sick != nil:
		return errored(o.sick.Cause, "%s (found when the device had owed an answer for %s)", o.sick.Message, hungCommand)
	case o.overdue:
		return o.overdueVerdict()
	case o.reportErr != nil:
		return errored(qgjob.CauseReportInvalid, "the runner's report cannot be read: %v", o.reportErr)
	case o.report == nil:
		return o.unreported()
	case o.exit.signal != "":
		return errored(qgjob.CauseRunnerCrashed, "the runner %s after it wrote its report", o.exit)
	}
	real, victims := o.sortFailures()
	switch {
	case o.exit.ok() && len(real)+len(victims)+len(o.report.Errors) > 0:
		return errored(qgjob.CauseReportInvalid, "the report names failures, yet the runner ended with %s", o.exit)
	case len(real) > 0:
		return failedVerdict(real, name)
	case len(victims) > 0:
		return o.victimVerdict(victims[0], name)
	case len(o.report.Errors) > 0:
		return o.topLevelVerdict(name)
	}
	return o.countedVerdict()
}

func (o observation) overdueVerdict() qgjob.Result {
	if o.silent {
		return o.silentVerdict()
	}
	if failure := o.lastFailure(); failure != nil && o.evidence.made() == 0 {
		return errored(failure.Cause, "%s; the run was stopped after %s", failure.Message, o.deadline)
	}
	for _, t := range o.events.Tests {
		if t.Ended.IsZero() && o.evidence.SessionRequests > 0 && o.evidence.made() == 0 {
			return errored(qgjob.CauseSetupTimedOut, "no session was made on the device within the run's time of %s", o.deadline)
		}
		if t.Ended.IsZero() {
			return ended(qgjob.OutcomeTimedOut, qgjob.CauseRunTimedOut, "test %q had not ended when the run's time of %s was over", t.Title, o.deadline)
		}
	}
	if len(o.events.Tests) > 0 {
		return ended(qgjob.OutcomeTimedOut, qgjob.CauseRunTimedOut, "the spec had not ended when the run's time of %s was over", o.deadline)
	}
	return errored(qgjob.CauseSetupTimedOut, "no test had begun when the run's time of %s was over", o.deadline)
}

// silentVerdict is the verdict on a run that was stopped because nothing happened in it any more. While the device
// owed an answer, it was the device.
func (o observation) silentVerdict() qgjob.Result {
	for _, c := range o.evidence.Unanswered {
		return errored(qgjob.CauseDeviceHung, "the device did not answer %s %s, and nothing else happened for the %s that a run may be silent", c.Method, c.Command, o.silence)
	}
	for _, s := range o.evidence.Sessions {
		if s.ID == "" && s.EndedAt.IsZero() || s.MadeAt.After(o.ended) {
			return errored(qgjob.CauseDeviceHung, "Appium did not make a session on the device within the %s that a run may be silent", o.silence)
		}
	}
	for _, t := range o.events.Tests {
		if t.Ended.IsZero() {
			return ended(qgjob.OutcomeTimedOut, qgjob.CauseTestSilent, "test %q printed nothing and asked nothing of its device for the %s that a run may be silent", t.Title, o.silence)
		}
	}
	if len(o.events.Tests) > 0 {
		return ended(qgjob.OutcomeTimedOut, qgjob.CauseTestSilent, "after its tests, the spec printed nothing for the %s that a run may be silent, and did not end", o.silence)
	}
	return errored(qgjob.CauseSetupTimedOut, "before its first test, the spec printed nothing for the %s that a run may be silent: look at what it imports, and at the config's global setup", o.silence)
}

// unreported is the verdict on a run that ended without a report. A config that cannot be loaded does that,
// too; it was inspected before, but is code and may answer differently now.
func (o observation) unreported() qgjob.Result {
	if o.exit.signal == "" && o.exit.code != 0 && !o.events.Configured {
		return errored(qgjob.CauseProjectInvalid, "the project's config cannot be loaded: %s", tailLines(o.output, 20))
	}
	if o.exit.signal == "" {
		return errored(qgjob.CauseRunnerCrashed, "the runner ended without a report (%s), as when something that %s imports calls process.exit: %s", o.exit, o.spec, tailLines(o.output, 20))
	}
	return errored(qgjob.CauseRunnerCrashed, "the runner ended without a report (%s): %s", o.exit, tailLines(o.output, 20))
}

// sortFailures parts the tests that failed by themselves from those that the infrastructure took down.
func (o observation) sortFailures() (real []reportedTest, victims []victim) {
	for _, t := range o.report.Tests {
		if !t.failed() {
			continue
		}
		if failure := o.behind(t); failure != nil {
			victims = append(victims, victim{t, failure})
			continue
		}
		real = append(real, t)
	}
	return real, victims
}

type victim struct {
	test    reportedTest
	failure *Failure
}

// behind returns the failure of the infrastructure that took a test down, or nil when it failed by itself.
func (o observation) behind(t reportedTest) *Failure {
	from, to := t.Last.Start, t.Last.Start.Add(t.Last.Duration)
	body := to
	if e := o.events.find(t.ID, t.Last.Retry); e != nil && !e.BodyEnded.IsZero() {
		body = e.BodyEnded
	}
	first := t.firstError().Text
	failsWith, ending := errorTextCause(first) != "", (*Failure)(nil)
	for _, e := range o.evidence.Errors {
		if !within(e.At, from, to) {
			continue
		}
		if e.Cause != "" && !e.ending() && !e.At.After(body.Add(clockSlack)) {
			return &Failure{Cause: e.Cause, Message: e.Message}
		}
		if e.Cause != "" && ending == nil {
			ending = &Failure{Cause: e.Cause, Message: e.Message}
		}
		failsWith = failsWith || e.Message != "" && strings.Contains(first, firstLine(e.Message))
	}
	// What broke after the body of the test is behind its failure only if that is what it fails with.
	if ending != nil && failsWith {
		return ending
	}
	if t.Last.Status == "timedOut" {
		return o.hung(from, to)
	}
	if crashed := regexpWorkerKilled.FindString(first); crashed != "" {
		return &Failure{Cause: qgjob.CauseRunnerCrashed, Message: crashed}
	}
	if cause := errorTextCause(first); cause != "" {
		return &Failure{Cause: cause, Message: first}
	}
	return nil
}

// regexpWorkerKilled matches Playwright's text for a worker process that a signal ended. One that ended with
// an exit code was ended by the test's own code.
var regexpWorkerKilled = regexp.MustCompile(`worker process exited unexpectedly \(code=null, signal=\w+\)`)

// hung returns what the device left unanswered while a test that timed out ran, if that was for too long.
func (o observation) hung(from, to time.Time) *Failure {
	for _, s := range o.evidence.Sessions {
		if s.MadeAt.IsZero() && within(s.RequestedAt, from, to) && (s.EndedAt.IsZero() || s.EndedAt.After(to)) {
			return failuref(qgjob.CauseDeviceHung, "Appium did not make a session on the device within the %s that were left for it", to.Sub(s.RequestedAt).Round(time.Second))
		}
		if s.MadeAt.After(to) && within(s.RequestedAt, from, to) {
			return failuref(qgjob.CauseDeviceHung, "Appium took %s to make a session on the device: longer than the test's time", s.MadeAt.Sub(s.RequestedAt).Round(time.Second))
		}
	}
	for _, c := range o.evidence.Unanswered {
		if waited := to.Sub(c.SentAt); within(c.SentAt, from, to) && waited >= hungCommand {
			return failuref(qgjob.CauseDeviceHung, "the device did not answer %s %s within %s", c.Method, c.Command, waited.Round(time.Second))
		}
	}
	return nil
}

func within(at, from, to time.Time) bool {
	return !at.Before(from.Add(-clockSlack)) && !at.After(to.Add(clockSlack))
}

// failedVerdict: one test that failed for good outweighs those that ran out of time.
func failedVerdict(real []reportedTest, name func(string) string) qgjob.Result {
	worst := real[0]
	for _, t := range real {
		if t.Last.Status != "timedOut" {
			return ended(qgjob.OutcomeFailed, qgjob.CauseTestFailed, "%s", describe(t, name))
		}
	}
	return ended(qgjob.OutcomeTimedOut, qgjob.CauseTestTimedOut, "%s", describe(worst, name))
}

func (o observation) victimVerdict(v victim, name func(string) string) qgjob.Result {
	return errored(v.failure.Cause, "%s (while %s ran)", v.failure.Message, place(v.test, name))
}

func describe(t reportedTest, name func(string) string) string {
	at := t.firstError()
	return fmt.Sprintf("%s: %s (%s:%d:%d)", t.Title, at.Text, name(at.File), at.Line, at.Column)
}

func place(t reportedTest, name func(string) string) string {
	return fmt.Sprintf("%s:%d:%d %q", name(t.File), t.Line, t.Column, t.Title)
}

var (
	regexpNoTests      = regexp.MustCompile(`(?m)^(Error: )?No tests found`)
	regexpUnreachable  = regexp.MustCompile(`FetchError|ECONNREFUSED|ENOTFOUND|ETIMEDOUT|EAI_AGAIN`)
	regexpRanOutOfTime = regexp.MustCompile(`Timed out waiting [\d.]+s for the .* to run`)
)

// topLevelVerdict reads the errors that belong to no test: the spec could not be loaded, the global setup
// refused, a worker's teardown failed, or the config's globalTimeout ran out.
func (o observation) topLevelVerdict(name func(string) string) qgjob.Result {
	first := o.report.Errors[0]
	text, _, _ := strings.Cut(first.Text, "\nRequire stack:") // the runner's own files
	if first.File != "" {
		text = fmt.Sprintf("%s (%s:%d:%d)", text, name(first.File), first.Line, first.Column)
	}
	executed := 0
	for _, t := range o.report.Tests {
		if t.Executed {
			executed++
		}
	}
	switch failure := o.lastFailure(); {
	case regexpNoTests.MatchString(first.Text):
		return errored(qgjob.CauseNoTestsMatched, "no test was found in %s", o.spec)
	case regexpWorkerKilled.MatchString(first.Text):
		return errored(qgjob.CauseRunnerCrashed, "%s", text)
	case failure != nil:
		return errored(failure.Cause, "%s", failure.Message)
	case errorTextCause(first.Text) != "":
		return errored(errorTextCause(first.Text), "%s", text)
	case regexpRanOutOfTime.MatchString(first.Text):
		return ended(qgjob.OutcomeTimedOut, qgjob.CauseTestTimedOut, "%s", text)
	case executed > 0:
		return ended(qgjob.OutcomeFailed, qgjob.CauseTestFailed, "the tests passed, and then: %s", text)
	case regexpUnreachable.MatchString(first.Text):
		return errored(qgjob.CauseTransferFailed, "%s", text)
	}
	return errored(qgjob.CauseProjectInvalid, "%s", text)
}

// lastFailure is the last failure of the infrastructure that the proxy saw while the runner ran.
func (o observation) lastFailure() *Failure {
	for i := len(o.evidence.Errors) - 1; i >= 0; i-- {
		if e := o.evidence.Errors[i]; e.Cause != "" && !e.At.After(o.ended) {
			return &Failure{Cause: e.Cause, Message: e.Message}
		}
	}
	return nil
}

// countedVerdict is the verdict on a report without a failure: what ran is counted, and the exit code must
// agree.
func (o observation) countedVerdict() qgjob.Result {
	passed, stopped := 0, 0
	for _, t := range o.report.Tests {
		switch {
		case t.passed():
			passed++
		case t.notRun():
			stopped++
		}
	}
	switch {
	case len(o.report.Tests) == 0:
		return errored(qgjob.CauseNoTestsMatched, "no test was found in %s", o.spec)
	case stopped > 0:
		return errored(qgjob.CauseReportInvalid, "%d of the %d tests in %s did not run, and the report does not say why (%s)", stopped, len(o.report.Tests), o.spec, o.exit)
	case o.exit.code != 0:
		return errored(qgjob.CauseReportInvalid, "the report names no failure, yet the runner ended with %s", o.exit)
	case passed == 0:
		return errored(qgjob.CauseAllTestsSkipped, "all %d tests in %s are skipped", len(o.report.Tests), o.spec)
	}
	return qgjob.Result{Outcome: qgjob.OutcomePassed}
}

// askDevice says that a look at the device should decide: the test's own failure fell together with silence
// or errors of the device, or the infrastructure broke with a text that an app's crash gives, too. Appium's driver for
// iOS finds no elements, and says nothing else, on a device that is not there any more.
func (o observation) askDevice(result qgjob.Result) bool {
	switch result.Outcome {
	case qgjob.OutcomeFailed, qgjob.OutcomeTimedOut:
		return len(o.evidence.Unanswered) > 0 || o.lastFailure() != nil || o.platform == qgjob.PlatformIOS
	case qgjob.OutcomeErrored:
		switch result.Cause {
		case qgjob.CauseSessionDied, qgjob.CauseSessionNotCreated, qgjob.CauseDeviceHung, qgjob.CauseSetupTimedOut, qgjob.CauseAppiumDied:
			return true
		}
	}
	return false
}

// phases says where the time went.
func (o observation) phases() Phases {
	var p Phases
	last := o.began
	if !o.events.configuredAt.IsZero() {
		p.Start = o.events.configuredAt.Sub(o.began)
		last = o.events.configuredAt
	}
	for i, t := range o.events.Tests {
		if i == 0 {
			p.Load = t.Began.Sub(last)
		}
		end := t.Ended
		if end.IsZero() {
			end = o.ended
		}
		p.Tests += end.Sub(t.Began)
		last = end
	}
	for _, s := range o.evidence.Sessions {
		if !s.MadeAt.IsZero() {
			p.Sessions += s.MadeAt.Sub(s.RequestedAt)
		}
	}
	p.End = o.ended.Sub(last)
	return p
}

func ended(outcome qgjob.Outcome, cause qgjob.Cause, format string, args ...any) qgjob.Result {
	return qgjob.Result{Outcome: outcome, Cause: cause, Message: fmt.Sprintf(format, args...)}
}

func errored(cause qgjob.Cause, format string, args ...any) qgjob.Result {
	return ended(qgjob.OutcomeErrored, cause, format, args...)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func tailLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(stripANSI(s)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
