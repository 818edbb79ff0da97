package report

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"qgjob"
)

// The JUnit XML that CI systems agree on, as Jenkins' xunit plugin publishes its schema
// (https://github.com/jenkinsci/xunit-plugin, junit-10.xsd): re-executions are Maven Surefire's elements.
type (
	xmlSuites struct {
		XMLName  xml.Name   `xml:"testsuites"`
		Name     string     `xml:"name,attr"`
		Time     string     `xml:"time,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Errors   int        `xml:"errors,attr"`
		Suites   []xmlSuite `xml:"testsuite"`
	}
	xmlSuite struct {
		Name       string        `xml:"name,attr"`
		Tests      int           `xml:"tests,attr"`
		Failures   int           `xml:"failures,attr"`
		Errors     int           `xml:"errors,attr"`
		Skipped    int           `xml:"skipped,attr"`
		Time       string        `xml:"time,attr"`
		Timestamp  string        `xml:"timestamp,attr"`
		Hostname   string        `xml:"hostname,attr,omitempty"`
		ID         string        `xml:"id,attr"`
		File       string        `xml:"file,attr"`
		Properties []xmlProperty `xml:"properties>property"`
		Cases      []xmlCase     `xml:"testcase"`
	}
	xmlProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	xmlCase struct {
		Name      string     `xml:"name,attr"`
		Class     string     `xml:"classname,attr"`
		Time      string     `xml:"time,attr"`
		Skipped   *xmlReason `xml:"skipped"`
		Error     *xmlReason `xml:"error"`
		Failure   *xmlReason `xml:"failure"`
		Reruns    []xmlRerun `xml:"rerunFailure"`
		Flaky     []xmlRerun `xml:"flakyFailure"`
		SystemOut string     `xml:"system-out,omitempty"`
	}
	xmlReason struct {
		Message string `xml:"message,attr,omitempty"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
	xmlRerun struct {
		Message    string `xml:"message,attr,omitempty"`
		Type       string `xml:"type,attr"`
		StackTrace string `xml:"stackTrace,omitempty"`
	}
)

// JUnit writes the report as JUnit XML: a suite for each job, a case for each test. A job that ended as
// anything but passed or failed is a case with an error, so that the file is red when the run is.
func (r *Report) JUnit(w io.Writer) error {
	suites := xmlSuites{Name: "qgjob run " + r.Run.ID, Time: seconds(r.Took())}
	for i, j := range r.Jobs {
		s := r.suite(j, i)
		suites.Tests += s.Tests
		suites.Failures += s.Failures
		suites.Errors += s.Errors
		suites.Suites = append(suites.Suites, s)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(suites); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (r *Report) suite(j Job, n int) xmlSuite {
	s := xmlSuite{
		Name: clean(j.Name()), Time: seconds(j.Took()), Timestamp: j.SubmittedAt.UTC().Format("2006-01-02T15:04:05"),
		Hostname: clean(j.Device()), ID: strconv.Itoa(n), File: clean(j.TestPath), Properties: r.properties(j),
	}
	for _, t := range j.Tests {
		if !j.HasVerdict() && t.Status != qgjob.TestPassed {
			continue
		}
		c := t.testCase(j)
		switch {
		case c.Failure != nil:
			s.Failures++
		case c.Skipped != nil:
			s.Skipped++
		}
		s.Cases = append(s.Cases, c)
	}
	if !j.HasVerdict() || j.State == qgjob.Failed && s.Failures == 0 {
		s.Errors++
		s.Cases = append(s.Cases, xmlCase{
			Name: clean(j.Name()), Class: clean(j.TestPath), Time: seconds(0),
			Error: &xmlReason{Message: clean(j.Reason()), Type: string(j.Cause), Text: clean(errorText(j))},
		})
	}
	s.Tests = len(s.Cases)
	return s
}

// errorText tells of each attempt of a job that ended in an error.
func errorText(j Job) string {
	lines := []string{"Job " + j.ID + " is " + string(j.State) + "."}
	if advice := j.Cause.Advice(); advice != "" {
		lines = append(lines, "Advice: "+advice)
	}
	for _, a := range j.AttemptList {
		lines = append(lines, fmt.Sprintf("Attempt %d on %s: %s %s: %s", a.Number, a.DeviceID, a.Outcome, a.Cause, a.Message))
	}
	return strings.Join(lines, "\n")
}

func (r *Report) properties(j Job) []xmlProperty {
	var list []xmlProperty
	add := func(name, value string) {
		if value != "" {
			list = append(list, xmlProperty{name, clean(value)})
		}
	}
	add("qgjob.run", r.Run.ID)
	add("qgjob.job", j.ID)
	add("qgjob.organization", j.OrgID)
	add("qgjob.app_version", j.AppVersionID)
	add("qgjob.build_sha256", j.BuildSHA256)
	add("qgjob.state", string(j.State))
	add("qgjob.cause", string(j.Cause))
	add("qgjob.flaky", strconv.FormatBool(j.Flaky))
	add("qgjob.target", string(j.Target))
	add("qgjob.attempts", strconv.Itoa(len(j.AttemptList)))
	for _, a := range j.AttemptList {
		add(fmt.Sprintf("qgjob.attempt.%d", a.Number), strings.TrimSpace(fmt.Sprintf("%s %s", a.Outcome, a.Cause)))
		add(fmt.Sprintf("qgjob.attempt.%d.device", a.Number), a.DeviceID)
	}
	if r.Server != "" {
		add("qgjob.link.job", r.Server+"/v1/jobs/"+j.ID)
		add("qgjob.link.log", r.Server+"/v1/jobs/"+j.ID+"/log")
	}
	if r.Run.CI != nil {
		add("ci.repository", r.Run.CI.Repository)
		add("ci.commit", r.Run.CI.Commit)
		add("ci.branch", r.Run.CI.Branch)
		add("ci.url", r.Run.CI.URL)
	}
	return list
}

func (t Test) testCase(j Job) xmlCase {
	c := xmlCase{Name: clean(t.Title), Class: clean(j.Name()), Time: seconds(t.Duration)}
	if t.File != "" {
		c.SystemOut = clean(fmt.Sprintf("at %s:%d:%d", t.File, t.Line, t.Column))
	}
	if t.Status == qgjob.TestSkipped {
		c.Skipped = &xmlReason{Message: "skipped in the spec"}
		return c
	}
	if t.Excused {
		c.Skipped = &xmlReason{Message: clean("quarantined: " + firstLine(t.Error))}
		return c
	}
	failures := t.failures()
	switch {
	case t.Failed():
		last := failures[len(failures)-1]
		c.Failure = &xmlReason{Message: last.Message, Type: last.Type, Text: clean(fmt.Sprintf("%s\n    at %s:%d:%d", t.Error, t.File, t.Line, t.Column))}
		c.Reruns = failures[:len(failures)-1]
	case t.Flaky:
		c.Flaky = failures
	}
	return c
}

// failures are the executions that did not pass.
func (t Test) failures() []xmlRerun {
	var list []xmlRerun
	for _, try := range t.Tries {
		if isFailure(try.Status) {
			first, _, _ := strings.Cut(strings.TrimSpace(try.Error), "\n")
			list = append(list, xmlRerun{
				Message: clean(fmt.Sprintf("attempt %d on %s: %s", try.Attempt, try.DeviceID, first)), Type: string(try.Status), StackTrace: clean(try.Error),
			})
		}
	}
	return list
}

// seconds is a duration as the schema wants it, without exponent and with milliseconds.
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }

// clean leaves out what XML 1.0 cannot hold (https://www.w3.org/TR/xml/#charsets).
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t', r == '\n', r == '\r', r >= 0x20 && r <= 0xD7FF, r >= 0xE000 && r < 0xFFFE && r != utf8.RuneError, r >= 0x10000:
			return r
		case r == utf8.RuneError:
			return '?'
		}
		return -1
	}, s)
}

// JSON writes the report as one JSON document.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
