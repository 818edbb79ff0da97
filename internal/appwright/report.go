package appwright

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"qgjob"
)

// maxErrorText bounds the text of one test's error in a result.
const maxErrorText = 4 << 10

// report is the part of Playwright's JSON report that decides the verdict.
type report struct {
	Tests  []reportedTest
	Errors []reportedError // those that belong to no test
}

type reportedTest struct {
	ID      string
	Title   string // describe blocks and title
	Project string
	File    string // absolute
	Line    int
	Column  int

	Status         string // expected, unexpected, flaky, skipped: what became of it, seen against what was expected
	ExpectedStatus string
	Last           reportedResult // of the last execution; zero when it was never executed
	Executed       bool
}

type reportedResult struct {
	Retry    int
	Status   string // passed, failed, timedOut, skipped, interrupted
	Start    time.Time
	Duration time.Duration
	Errors   []reportedError
}

type reportedError struct {
	Text   string // without terminal colours
	File   string // absolute; empty where unknown
	Line   int
	Column int
}

// The report as Playwright writes it (playwright/types/testReporter.d.ts, JSONReport).
type (
	jsonReport struct {
		Config *struct {
			RootDir string `json:"rootDir"`
		} `json:"config"`
		Suites []jsonSuite `json:"suites"`
		Errors []jsonError `json:"errors"`
		Stats  *struct {
			Expected   int `json:"expected"`
			Skipped    int `json:"skipped"`
			Unexpected int `json:"unexpected"`
			Flaky      int `json:"flaky"`
		} `json:"stats"`
	}
	jsonSuite struct {
		Title  string      `json:"title"`
		Specs  []jsonSpec  `json:"specs"`
		Suites []jsonSuite `json:"suites"`
	}
	jsonSpec struct {
		ID     string     `json:"id"`
		Title  string     `json:"title"`
		File   string     `json:"file"`
		Line   int        `json:"line"`
		Column int        `json:"column"`
		Tests  []jsonTest `json:"tests"`
	}
	jsonTest struct {
		ProjectName    string       `json:"projectName"`
		ExpectedStatus string       `json:"expectedStatus"`
		Status         string       `json:"status"`
		Results        []jsonResult `json:"results"`
	}
	jsonResult struct {
		Status        string        `json:"status"`
		Retry         int           `json:"retry"`
		StartTime     time.Time     `json:"startTime"`
		Duration      float64       `json:"duration"`
		Error         *jsonError    `json:"error"`
		Errors        []jsonError   `json:"errors"`
		ErrorLocation *jsonLocation `json:"errorLocation"`
	}
	jsonError struct {
		Message  string        `json:"message"`
		Stack    string        `json:"stack"`
		Value    string        `json:"value"`
		Location *jsonLocation `json:"location"`
	}
	jsonLocation struct {
		File   string `json:"file"`
		Line   int    `json:"line"`
		Column int    `json:"column"`
	}
)

// parseReport reads Playwright's JSON report. It refuses a report that contradicts itself: one that lacks a
// part, has a status that is unknown, or counts other tests than it lists.
func parseReport(data []byte) (*report, error) {
	var raw jsonReport
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, err
	}
	if raw.Config == nil || raw.Stats == nil {
		return nil, errors.New("it has no config or no stats")
	}
	parsed := &report{}
	for _, e := range raw.Errors {
		parsed.Errors = append(parsed.Errors, e.read(nil))
	}
	for _, file := range raw.Suites {
		if err := parsed.addSuite(raw.Config.RootDir, nil, file); err != nil {
			return nil, err
		}
	}
	count := map[string]int{}
	for _, t := range parsed.Tests {
		count[t.Status]++
	}
	stats := map[string]int{"expected": raw.Stats.Expected, "skipped": raw.Stats.Skipped, "unexpected": raw.Stats.Unexpected, "flaky": raw.Stats.Flaky}
	for status, n := range stats {
		if count[status] != n {
			return nil, fmt.Errorf("it counts %d tests as %s and lists %d", n, status, count[status])
		}
	}
	return parsed, nil
}

// addSuite adds the tests of a file (outer is nil) or of a describe block.
func (r *report) addSuite(rootDir string, outer []string, suite jsonSuite) error {
	for _, spec := range suite.Specs {
		titles := append(append([]string{}, outer...), spec.Title)
		for _, t := range spec.Tests {
			test, err := t.read()
			if err != nil {
				return fmt.Errorf("test %q: %w", strings.Join(titles, " > "), err)
			}
			test.ID, test.Title = spec.ID, strings.Join(titles, " > ")
			test.File = filepath.Join(rootDir, filepath.FromSlash(spec.File))
			test.Line, test.Column = spec.Line, spec.Column
			r.Tests = append(r.Tests, test)
		}
	}
	for _, inner := range suite.Suites {
		if err := r.addSuite(rootDir, append(append([]string{}, outer...), inner.Title), inner); err != nil {
			return err
		}
	}
	return nil
}

func (t jsonTest) read() (reportedTest, error) {
	test := reportedTest{Project: t.ProjectName, Status: t.Status, ExpectedStatus: t.ExpectedStatus}
	switch t.Status {
	case "expected", "unexpected", "flaky", "skipped":
	default:
		return test, fmt.Errorf("its status %q is unknown", t.Status)
	}
	if len(t.Results) == 0 {
		if t.Status != "skipped" {
			return test, fmt.Errorf("it is %s and has no result", t.Status)
		}
		return test, nil
	}
	last := t.Results[len(t.Results)-1]
	switch last.Status {
	case "passed", "failed", "timedOut", "skipped", "interrupted":
	default:
		return test, fmt.Errorf("the status %q of its result is unknown", last.Status)
	}
	if t.Status == "expected" && last.Status != t.ExpectedStatus {
		return test, fmt.Errorf("it is called %s, and was %s instead of %s", t.Status, last.Status, t.ExpectedStatus)
	}
	test.Executed = last.Status != "skipped"
	test.Last = reportedResult{Retry: last.Retry, Status: last.Status, Start: last.StartTime, Duration: time.Duration(last.Duration * float64(time.Millisecond))}
	for i, e := range last.Errors {
		// The error itself has the bare text, the list has it with a snippet of the source.
		location := e.Location
		if i == 0 && last.Error != nil {
			e = *last.Error
			if location == nil {
				location = last.ErrorLocation
			}
		}
		test.Last.Errors = append(test.Last.Errors, e.read(location))
	}
	if len(last.Errors) == 0 && last.Error != nil {
		test.Last.Errors = append(test.Last.Errors, last.Error.read(last.ErrorLocation))
	}
	return test, nil
}

func (e jsonError) read(location *jsonLocation) reportedError {
	text := e.Message
	if text == "" {
		text = e.Value
	}
	if text == "" {
		text = e.Stack
	}
	read := reportedError{Text: stripANSI(text)}
	if location == nil {
		location = e.Location
	}
	if location != nil {
		read.File, read.Line, read.Column = location.File, location.Line, location.Column
	}
	return read
}

// passed says that the test was executed and ended as it was expected to.
func (t reportedTest) passed() bool {
	return t.Executed && (t.Status == "expected" || t.Status == "flaky")
}

// notRun says that the test was to run, and did not or was stopped in the middle.
func (t reportedTest) notRun() bool {
	return t.Status == "skipped" && t.ExpectedStatus != "skipped"
}

func (t reportedTest) failed() bool { return t.Status == "unexpected" }

// firstError is the text and the place of the first error; the place of the test when that is not known.
func (t reportedTest) firstError() reportedError {
	at := reportedError{File: t.File, Line: t.Line, Column: t.Column}
	switch {
	case len(t.Last.Errors) > 0:
		first := t.Last.Errors[0]
		if first.File == "" {
			first.File, first.Line, first.Column = at.File, at.Line, at.Column
		}
		return first
	case t.failed() && t.Last.Status == "passed":
		at.Text = "Expected to fail, but passed." // test.fail() says that it would
	}
	return at
}

// result is the test in the words of the result. name makes a path relative to the project.
func (t reportedTest) result(name func(file string) string) qgjob.TestResult {
	at := t.firstError()
	status := testStatus(t.Last.Status, t.passed())
	if t.failed() && status == qgjob.TestPassed {
		status = qgjob.TestFailed
	}
	result := qgjob.TestResult{
		Title: t.Title, Status: status, DurationMS: t.Last.Duration.Milliseconds(),
		File: name(at.File), Line: at.Line, Column: at.Column,
	}
	if status != qgjob.TestPassed {
		result.Error = clip(at.Text, maxErrorText)
	}
	return result
}

// testStatus names a status of Playwright's. A test that failed as test.fail() said it would has passed.
func testStatus(status string, ok bool) qgjob.TestStatus {
	switch status {
	case "passed":
		if !ok {
			return qgjob.TestFailed
		}
		return qgjob.TestPassed
	case "failed":
		if ok {
			return qgjob.TestPassed
		}
		return qgjob.TestFailed
	case "timedOut":
		if ok {
			return qgjob.TestPassed
		}
		return qgjob.TestTimedOut
	case "interrupted":
		return qgjob.TestInterrupted
	}
	return qgjob.TestSkipped
}

// ansi matches the control sequences of terminals (ECMA-48, section 5.4).
var ansi = regexp.MustCompile("\x1b\\[[0-9;?]*[ -/]*[@-~]")

func stripANSI(s string) string { return ansi.ReplaceAllString(s, "") }

// CutOff ends the texts of a result that were too long.
const CutOff = "…"

// clip cuts a text to at most n bytes, at a rune's boundary, and makes it valid UTF-8.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	s = s[:n-len(CutOff)]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + CutOff
}
