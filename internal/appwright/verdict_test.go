package appwright

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"qgjob"
)

// recorded is a report that the real AppWright wrote, against the real Appium and a simulated phone. Output,
// steps and the config are taken out, and the project's directory is called /project.
func recorded(t testing.TB, name string) *report {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "reports", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseReport(data)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return r
}

func inProject(file string) string { return strings.TrimPrefix(file, "/project/") }

func observed(r *report, code int) observation {
	o := observation{spec: "tests/a.spec.ts", exit: exit{code: code}, report: r, deadline: time.Minute}
	o.began = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	o.ended = o.began.Add(24 * time.Hour)
	return o
}

const instrumentation = "'POST /elements' cannot be proxied to UiAutomator2 server because the instrumentation process is not running (probably crashed)"

func TestVerdictsOnRecordedReports(t *testing.T) {
	for _, c := range []struct {
		report  string
		code    int
		outcome qgjob.Outcome
		cause   qgjob.Cause
		says    string
		tests   string
	}{
		{"passed", 0, qgjob.OutcomePassed, "", "", "passed"},
		{"odd-path", 0, qgjob.OutcomePassed, "", "", "passed"},
		{"mixed", 1, qgjob.OutcomeFailed, qgjob.CauseTestFailed, "bad: Error: Element was not found on the screen (tests/mixed.spec.ts:3:76)", "passed failed skipped"},
		{"expected-to-fail", 0, qgjob.OutcomePassed, "", "", "passed"},
		{"passed-unexpectedly", 1, qgjob.OutcomeFailed, qgjob.CauseTestFailed, "Expected to fail, but passed.", "failed"},
		{"retries-of-its-own", 0, qgjob.OutcomePassed, "", "", "passed"},
		{"skipped", 0, qgjob.OutcomeErrored, qgjob.CauseAllTestsSkipped, "all 2 tests", "skipped skipped"},
		{"empty", 1, qgjob.OutcomeErrored, qgjob.CauseNoTestsMatched, "tests/a.spec.ts", ""},
		{"syntax-error", 1, qgjob.OutcomeErrored, qgjob.CauseProjectInvalid, "(tests/syntax.spec.ts:3:8)", ""},
		{"throws-at-load", 1, qgjob.OutcomeErrored, qgjob.CauseProjectInvalid, "at load (tests/throws.spec.ts:2:7)", ""},
		{"missing-import", 1, qgjob.OutcomeErrored, qgjob.CauseProjectInvalid, "Cannot find module 'nowhere-to-be-found'", ""},
		{"exits", 1, qgjob.OutcomeFailed, qgjob.CauseTestFailed, "worker process exited unexpectedly (code=3", "failed"},
		{"worker-killed", 1, qgjob.OutcomeErrored, qgjob.CauseRunnerCrashed, "signal=SIGKILL", "failed"},
		{"after-all", 1, qgjob.OutcomeFailed, qgjob.CauseTestFailed, "in afterAll", "failed"},
		{"worker-teardown", 1, qgjob.OutcomeFailed, qgjob.CauseTestFailed, "the tests passed, and then", "passed passed"},
		{"slow", 1, qgjob.OutcomeTimedOut, qgjob.CauseTestTimedOut, "Test timeout of 10000ms exceeded.", "timed_out"},
		{"no-device", 1, qgjob.OutcomeErrored, qgjob.CauseDeviceOffline, "was not in the list of connected devices", "failed failed"},

		// reports that do not fit the exit code
		{"passed", 1, qgjob.OutcomeErrored, qgjob.CauseReportInvalid, "exit code 1", "passed"},
		{"mixed", 0, qgjob.OutcomeErrored, qgjob.CauseReportInvalid, "exit code 0", "passed failed skipped"},
		{"empty", 0, qgjob.OutcomeErrored, qgjob.CauseReportInvalid, "exit code 0", ""},
	} {
		o := observed(recorded(t, c.report), c.code)
		result := o.result(inProject)
		var statuses []string
		for _, test := range result.Report.Tests {
			statuses = append(statuses, string(test.Status))
		}
		if result.Outcome != c.outcome || result.Cause != c.cause || !strings.Contains(result.Message, c.says) || strings.Join(statuses, " ") != c.tests {
			t.Errorf("%s, exit code %d: %s %s %q %v", c.report, c.code, result.Outcome, result.Cause, result.Message, statuses)
		}
		if err := result.Check(); err != nil {
			t.Errorf("%s: %v", c.report, err)
		}
	}
}

// TestWhenTheInfrastructureBreaks lays what the proxy saw beside one report: a test that began at second 0,
// whose body ended at second 8 and which ended at second 10.
func TestWhenTheInfrastructureBreaks(t *testing.T) {
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at := func(second float64) time.Time { return start.Add(time.Duration(second * float64(time.Second))) }
	broke := func(second float64, method, command, message string) CommandError {
		return CommandError{At: at(second), Method: method, Command: command, SessionID: "s", Code: codeUnknown, Message: message, Cause: qgjob.CauseSessionDied}
	}
	assertion := "Error: Element was not found on the screen"
	for name, c := range map[string]struct {
		status   string
		text     string
		evidence Evidence
		outcome  qgjob.Outcome
		cause    qgjob.Cause
		ask      bool
	}{
		"an assertion alone": {"failed", assertion, Evidence{}, qgjob.OutcomeFailed, qgjob.CauseTestFailed, false},
		// AppWright's isVisible swallows errors: a lost session looks like a missing element.
		"the session lost before the assertion":  {"failed", assertion, Evidence{Errors: []CommandError{broke(5, "POST", "elements", instrumentation)}}, qgjob.OutcomeErrored, qgjob.CauseSessionDied, true},
		"the session lost after the body":        {"failed", assertion, Evidence{Errors: []CommandError{broke(9, "GET", "screenshot", instrumentation)}}, qgjob.OutcomeFailed, qgjob.CauseTestFailed, true},
		"the session lost after the test":        {"failed", assertion, Evidence{Errors: []CommandError{broke(12, "POST", "elements", instrumentation)}}, qgjob.OutcomeFailed, qgjob.CauseTestFailed, true},
		"a failed deletion after an assertion":   {"failed", assertion, Evidence{Errors: []CommandError{broke(9, "DELETE", "", instrumentation)}}, qgjob.OutcomeFailed, qgjob.CauseTestFailed, true},
		"a failed deletion after a good body":    {"failed", "unknown error: " + instrumentation, Evidence{Errors: []CommandError{broke(9, "DELETE", "", instrumentation)}}, qgjob.OutcomeErrored, qgjob.CauseSessionDied, true},
		"a deletion that is then repeated":       {"failed", "invalid session id: A session is gone", Evidence{Errors: []CommandError{broke(9, "DELETE", "", "adb timed out after 20000ms"), {At: at(9.1), Method: "DELETE", Code: codeInvalidSession, Message: "A session is gone"}}}, qgjob.OutcomeErrored, qgjob.CauseSessionDied, true},
		"a missing element is a test's everyday": {"failed", assertion, Evidence{Errors: []CommandError{{At: at(5), Method: "POST", Command: "element", Code: "no such element"}}}, qgjob.OutcomeFailed, qgjob.CauseTestFailed, false},
		"no evidence, but webdriver's text":      {"failed", "WebDriverError: unknown error: " + instrumentation, Evidence{}, qgjob.OutcomeErrored, qgjob.CauseSessionDied, true},
		"an app's text that sounds like it":      {"failed", "Error: expected banner to say: socket hang up", Evidence{}, qgjob.OutcomeFailed, qgjob.CauseTestFailed, false},

		"time-out, all answered":             {"timedOut", "Test timeout of 10000ms exceeded.", Evidence{}, qgjob.OutcomeTimedOut, qgjob.CauseTestTimedOut, false},
		"time-out, a command just sent":      {"timedOut", "Test timeout of 10000ms exceeded.", Evidence{Unanswered: []PendingCommand{{SentAt: at(9)}}}, qgjob.OutcomeTimedOut, qgjob.CauseTestTimedOut, true},
		"time-out, a session never made":     {"timedOut", `Test timeout of 10000ms exceeded while setting up "device".`, Evidence{Sessions: []Session{{RequestedAt: at(1)}}}, qgjob.OutcomeErrored, qgjob.CauseDeviceHung, true},
		"time-out, a session made too late":  {"timedOut", `Test timeout of 10000ms exceeded while setting up "device".`, Evidence{Sessions: []Session{{ID: "s", RequestedAt: at(1), MadeAt: at(20)}}}, qgjob.OutcomeErrored, qgjob.CauseDeviceHung, true},
		"time-out, a session made in time":   {"timedOut", "Test timeout of 10000ms exceeded.", Evidence{Sessions: []Session{{ID: "s", RequestedAt: at(1), MadeAt: at(2)}}}, qgjob.OutcomeTimedOut, qgjob.CauseTestTimedOut, false},
		"passed, though something was amiss": {"passed", "", Evidence{Errors: []CommandError{broke(5, "POST", "elements", instrumentation)}}, qgjob.OutcomePassed, "", false},
	} {
		test := reportedTest{ID: "t", Title: "t", File: "/project/tests/a.spec.ts", Status: "unexpected", ExpectedStatus: "passed", Executed: true}
		test.Last = reportedResult{Status: c.status, Start: start, Duration: 10 * time.Second, Errors: []reportedError{{Text: c.text}}}
		code := 1
		if c.status == "passed" {
			test.Status, test.Last.Errors, code = "expected", nil, 0
		}
		o := observed(&report{Tests: []reportedTest{test}}, code)
		o.evidence = c.evidence
		o.events.Tests = []eventTest{{ID: "t", Began: start, BodyEnded: at(8), Ended: at(10)}}
		result := o.result(inProject)
		if result.Outcome != c.outcome || result.Cause != c.cause || o.askDevice(result) != c.ask {
			t.Errorf("%s: %s %s %q, ask the device: %t", name, result.Outcome, result.Cause, result.Message, o.askDevice(result))
		}
	}
}

func TestACommandUnansweredForLong(t *testing.T) {
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	test := reportedTest{ID: "t", Status: "unexpected", ExpectedStatus: "passed", Executed: true}
	test.Last = reportedResult{Status: "timedOut", Start: start, Duration: time.Minute}
	o := observed(&report{Tests: []reportedTest{test}}, 1)
	o.evidence.Unanswered = []PendingCommand{{Method: "POST", Command: "elements", SentAt: start.Add(10 * time.Second)}}
	if result := o.result(inProject); result.Cause != qgjob.CauseDeviceHung || !strings.Contains(result.Message, "POST elements within 50s") {
		t.Errorf("%s %s %q", result.Outcome, result.Cause, result.Message)
	}
}

// TestAFailureOnAnIPhoneAsksTheDevice: its driver finds no elements on a device that is gone, and says nothing else.
func TestAFailureOnAnIPhoneAsksTheDevice(t *testing.T) {
	for platform, ask := range map[string]bool{qgjob.PlatformIOS: true, qgjob.PlatformAndroid: false} {
		o := observed(recorded(t, "mixed"), 1)
		o.platform = platform
		if result := o.result(inProject); result.Outcome != qgjob.OutcomeFailed || o.askDevice(result) != ask {
			t.Errorf("%s: %s %s, ask the device: %t", platform, result.Outcome, result.Cause, o.askDevice(result))
		}
	}
}

func TestASickDeviceEndsTheRun(t *testing.T) {
	o := observed(nil, 0)
	o.exit, o.sick = exit{code: -1, signal: "terminated"}, &Failure{Cause: qgjob.CauseDeviceHung, Message: "device R58M does not answer"}
	if result := o.result(inProject); result.Outcome != qgjob.OutcomeErrored || result.Cause != qgjob.CauseDeviceHung || !strings.Contains(result.Message, "R58M") {
		t.Errorf("%s %s %q", result.Outcome, result.Cause, result.Message)
	}
}

// TestARealFailureOutweighsTheInfrastructure: one test failed by itself, the device broke in the next.
func TestARealFailureOutweighsTheInfrastructure(t *testing.T) {
	o := observed(recorded(t, "device-lost"), 1)
	o.report.Tests[0].Last.Errors[0].Text = "Error: expect(received).toBe(expected)"
	second := o.report.Tests[1]
	o.evidence.Errors = []CommandError{{At: second.Last.Start.Add(time.Second), Method: "POST", Command: "session", Cause: qgjob.CauseDeviceOffline}}
	if result := o.result(inProject); result.Outcome != qgjob.OutcomeFailed || !o.askDevice(result) {
		t.Errorf("%s %s %q", result.Outcome, result.Cause, result.Message)
	}
}

func TestRunsWithoutABelievableReport(t *testing.T) {
	began := events{Configured: true, Tests: []eventTest{{ID: "t", Title: "pays", Began: time.Now()}}}
	for name, c := range map[string]struct {
		change  func(o *observation)
		outcome qgjob.Outcome
		cause   qgjob.Cause
	}{
		"killed":                    {func(o *observation) { o.exit, o.events = exit{-1, "killed"}, began }, qgjob.OutcomeErrored, qgjob.CauseRunnerCrashed},
		"ended well, no report":     {func(o *observation) { o.exit, o.events = exit{}, began }, qgjob.OutcomeErrored, qgjob.CauseRunnerCrashed},
		"a config that fails":       {func(o *observation) { o.exit, o.output = exit{code: 1}, "SyntaxError" }, qgjob.OutcomeErrored, qgjob.CauseProjectInvalid},
		"a report that is garbage":  {func(o *observation) { _, o.reportErr = parseReport([]byte("{")) }, qgjob.OutcomeErrored, qgjob.CauseReportInvalid},
		"killed after its report":   {func(o *observation) { o.exit, o.report = exit{-1, "killed"}, recorded(t, "passed") }, qgjob.OutcomeErrored, qgjob.CauseRunnerCrashed},
		"canceled after its report": {func(o *observation) { o.canceled, o.report = true, recorded(t, "passed") }, qgjob.OutcomeCanceled, qgjob.CauseCanceled},
		"overdue in a test": {func(o *observation) {
			o.overdue, o.events, o.evidence = true, began, Evidence{SessionRequests: 1, Sessions: []Session{{ID: "s"}}}
		}, qgjob.OutcomeTimedOut, qgjob.CauseRunTimedOut},
		"overdue before any test":   {func(o *observation) { o.overdue = true }, qgjob.OutcomeErrored, qgjob.CauseSetupTimedOut},
		"overdue without a session": {func(o *observation) { o.overdue, o.events, o.evidence = true, began, Evidence{SessionRequests: 1} }, qgjob.OutcomeErrored, qgjob.CauseSetupTimedOut},
	} {
		o := observed(nil, 1)
		c.change(&o)
		if result := o.result(inProject); result.Outcome != c.outcome || result.Cause != c.cause || result.Check() != nil {
			t.Errorf("%s: %s %s %q", name, result.Outcome, result.Cause, result.Message)
		}
	}
}

// The text is Playwright 1.49.1's.
func TestTheConfigsGlobalTimeout(t *testing.T) {
	r := recorded(t, "passed")
	r.Tests[0].Status, r.Tests[0].Last.Status = "skipped", "interrupted"
	r.Errors = []reportedError{{Text: "Timed out waiting 3s for the test suite to run"}}
	if result := observed(r, 1).result(inProject); result.Outcome != qgjob.OutcomeTimedOut {
		t.Errorf("%s %s %q", result.Outcome, result.Cause, result.Message)
	}
}

func TestReportsThatContradictThemselves(t *testing.T) {
	for name, content := range map[string]string{
		"no JSON":                 `x`,
		"null":                    `null`,
		"no stats":                `{"config":{"rootDir":"/"},"suites":[]}`,
		"other counts":            `{"config":{},"stats":{"expected":1},"suites":[]}`,
		"an unknown status":       `{"config":{},"stats":{},"suites":[{"specs":[{"tests":[{"status":"fine","results":[{"status":"passed"}]}]}]}]}`,
		"an unknown result":       `{"config":{},"stats":{"expected":1},"suites":[{"specs":[{"tests":[{"status":"expected","expectedStatus":"fine","results":[{"status":"fine"}]}]}]}]}`,
		"passed without a result": `{"config":{},"stats":{"expected":1},"suites":[{"specs":[{"tests":[{"status":"expected","expectedStatus":"passed","results":[]}]}]}]}`,
		"passed and failed":       `{"config":{},"stats":{"expected":1},"suites":[{"specs":[{"tests":[{"status":"expected","expectedStatus":"passed","results":[{"status":"failed"}]}]}]}]}`,
	} {
		if _, err := parseReport([]byte(content)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParseReport(f *testing.F) {
	files, err := filepath.Glob("testdata/reports/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal(err, files)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, 0)
		f.Add(data, 1)
	}
	f.Fuzz(func(t *testing.T, data []byte, code int) {
		o := observed(nil, code)
		o.report, o.reportErr = parseReport(data)
		result := o.result(inProject)
		if err := result.Check(); err != nil {
			t.Errorf("%v: %+v", err, result)
		}
		if result.Outcome == qgjob.OutcomePassed && (code != 0 || o.report == nil) {
			t.Errorf("passed without a report, or with exit code %d", code)
		}
	})
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"kind":"test_begin","id":"a","at_ms":1}`), []byte(`{"kind":"test_end","id":"a","at_ms":2,"status":"failed"}`))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var seen events
		seen.add(one)
		seen.add(two)
		if results := seen.results(inProject, qgjob.TestInterrupted, time.Now()); len(results) != len(seen.Tests) {
			t.Errorf("%d results of %d tests", len(results), len(seen.Tests))
		}
	})
}
