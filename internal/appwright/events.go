package appwright

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	"qgjob"
)

// maxEventLine bounds a line of the events file; a longer one is no event of ours.
const maxEventLine = 1 << 20

// events is what the event reporter wrote, read: what is known of a run even when no report came.
type events struct {
	Configured bool // the config was evaluated
	Projects   []eventProject
	Tests      []eventTest

	configuredAt time.Time
}

type eventProject struct {
	Name      string `json:"name"`
	Provider  string `json:"provider"`
	Platform  string `json:"platform"`
	BuildPath string `json:"build_path"`
}

// eventTest is one execution of a test. BodyEnded and Ended are zero while they have not come.
type eventTest struct {
	ID           string
	Retry        int
	Title, File  string
	Line, Column int
	Began        time.Time
	BodyEnded    time.Time
	Ended        time.Time
	Status       string
	OK           bool
	Error        string
}

// readEvents reads an events file. Lines that are no events, such as a last line cut short, are passed over:
// the file decides no verdict.
func readEvents(path string) (events, error) {
	file, err := os.Open(path)
	if err != nil {
		return events{}, err
	}
	defer file.Close()
	var seen events
	lines := bufio.NewReaderSize(file, maxEventLine)
	for tooLong := false; ; {
		line, err := lines.ReadSlice('\n')
		switch {
		case err == nil && !tooLong:
			seen.add(line)
		case errors.Is(err, io.EOF):
			return seen, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return seen, err
		}
		tooLong = err != nil
	}
}

func (s *events) add(line []byte) {
	var e struct {
		Kind     string         `json:"kind"`
		AtMS     int64          `json:"at_ms"`
		Projects []eventProject `json:"projects"`
		ID       string         `json:"id"`
		Retry    int            `json:"retry"`
		Title    string         `json:"title"`
		File     string         `json:"file"`
		Line     int            `json:"line"`
		Column   int            `json:"column"`
		Status   string         `json:"status"`
		OK       bool           `json:"ok"`
		Error    string         `json:"error"`
	}
	if json.Unmarshal(line, &e) != nil {
		return
	}
	at := time.UnixMilli(e.AtMS)
	switch e.Kind {
	case "configure":
		s.Configured, s.Projects, s.configuredAt = true, e.Projects, at
	case "test_begin":
		s.Tests = append(s.Tests, eventTest{ID: e.ID, Retry: e.Retry, Title: e.Title, File: e.File, Line: e.Line, Column: e.Column, Began: at})
	case "body_end":
		if t := s.find(e.ID, e.Retry); t != nil {
			t.BodyEnded = at
		}
	case "test_end":
		if t := s.find(e.ID, e.Retry); t != nil {
			t.Ended, t.Status, t.OK, t.Error = at, e.Status, e.OK, stripANSI(e.Error)
		}
	}
}

// find returns the latest execution of a test.
func (s *events) find(id string, retry int) *eventTest {
	for i := len(s.Tests) - 1; i >= 0; i-- {
		if s.Tests[i].ID == id && s.Tests[i].Retry == retry {
			return &s.Tests[i]
		}
	}
	return nil
}

// results are the tests as far as they came: one that had not ended has the given status.
func (s *events) results(name func(file string) string, stopped qgjob.TestStatus, at time.Time) []qgjob.TestResult {
	var results []qgjob.TestResult
	for _, t := range s.Tests {
		r := qgjob.TestResult{Title: t.Title, Status: testStatus(t.Status, t.OK), File: name(t.File), Line: t.Line, Column: t.Column, Error: clip(t.Error, maxErrorText)}
		if t.Ended.IsZero() {
			r.Status, t.Ended = stopped, at
		}
		r.DurationMS = t.Ended.Sub(t.Began).Milliseconds()
		results = append(results, r)
	}
	return results
}
