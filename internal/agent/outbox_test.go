package agent

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"qgjob"
	"qgjob/internal/api"
)

func TestAnyResultFitsARequest(t *testing.T) {
	var tests []qgjob.TestResult
	long := strings.Repeat("\xff<é", 10_000)
	for i := range 6000 {
		status := qgjob.TestSkipped
		if i > 5000 {
			status = qgjob.TestFailed
		}
		tests = append(tests, qgjob.TestResult{Title: strings.Repeat("ü", 3000), Status: status, Error: long})
	}
	r := fit(qgjob.Result{Outcome: qgjob.OutcomeFailed, Cause: qgjob.CauseTestFailed, Message: strings.Repeat("é", 100_000), Report: qgjob.Report{Tests: tests}})
	data, err := json.Marshal(api.PollRequest{Results: []api.AttemptResult{{Result: r}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > api.MaxJSONBody {
		t.Errorf("the request has %d bytes", len(data))
	}
	if len(r.Message) > 16384 || !utf8.ValidString(r.Message) || !strings.HasSuffix(r.Message, " [cut]") {
		t.Errorf("the message has %d bytes and ends with %q", len(r.Message), r.Message[len(r.Message)-20:])
	}
	if len(r.Report.Tests) != 999 || r.Report.Tests[0].Status != qgjob.TestFailed {
		t.Errorf("%d tests are left, the first is %s", len(r.Report.Tests), r.Report.Tests[0].Status)
	}
}

func TestManyResultsAreHandedInBitByBit(t *testing.T) {
	a := &Agent{}
	for range 300 {
		var out outgoing
		out.Message = strings.Repeat("x", maxMessage)
		a.outbox = append(a.outbox, out)
	}
	results := a.handIn(maxResults)
	data, err := json.Marshal(api.PollRequest{Results: results})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) < 50 || len(data) > api.MaxJSONBody {
		t.Errorf("%d results in %d bytes", len(results), len(data))
	}
	if got := len(a.handIn(1)); got != 1 {
		t.Errorf("%d results where one was asked for", got)
	}
}
