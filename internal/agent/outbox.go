package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"qgjob"
	"qgjob/internal/api"
)

// Limits of what one result, and one poll, may carry, in bytes: well below api.MaxJSONBody.
const (
	maxMessage  = 16 << 10
	maxErrors   = 1 << 20 // of all tests of a result together
	maxTests    = 4000
	maxHandedIn = 2 << 20
)

// finish puts the result of an attempt on its way, on disk first, and with it the offer of its device when
// that is ready. A lost attempt has no result to report.
func (a *Agent) finish(at *attempt, result qgjob.Result, ready bool) {
	out := outgoing{AttemptResult: api.AttemptResult{Lease: at.Lease, Result: fit(result)}, JobID: at.Job.ID, Server: a.o.Client.BaseURL}
	lost := errors.Is(context.Cause(at.ctx), errLeaseLost)
	a.o.Logger.Info("attempt ended", "attempt", at.AttemptID, "job", at.Job.ID, "device", at.slot.id,
		"outcome", result.Outcome, "cause", result.Cause, "message", result.Message, "lost", lost)
	if !lost {
		if err := a.own.keep(out); err != nil {
			a.o.Logger.Error("a result cannot be written to the disk: it is lost if this process dies now", "attempt", at.AttemptID, "error", err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	at.ended = true
	if ready {
		at.slot.attempt = nil
		a.beat.set() // another app may be installed now
	}
	if lost {
		delete(a.attempts, at.AttemptID)
	} else {
		a.outbox = append(a.outbox, out)
	}
	a.changed.set()
}

// handIn returns the results that the next poll carries: all, or as many as one request may hold, but no
// more than limit. The caller holds mu.
func (a *Agent) handIn(limit int) []api.AttemptResult {
	results, size := []api.AttemptResult{}, 0
	for _, out := range a.outbox {
		size += weight(out.Result)
		if len(results) > 0 && size > maxHandedIn || len(results) == limit {
			break
		}
		results = append(results, out.AttemptResult)
	}
	return results
}

// delivered forgets an attempt whose result was answered, and returns its job.
func (a *Agent) delivered(attemptID string) (job string) {
	a.own.drop(attemptID)
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.outbox, func(o outgoing) bool { return o.AttemptID == attemptID })
	if i >= 0 {
		job = a.outbox[i].JobID
		a.outbox = slices.Delete(a.outbox, i, i+1)
	}
	delete(a.attempts, attemptID)
	return job
}

// fit shortens what a runner said to what one request may carry.
func fit(r qgjob.Result) qgjob.Result {
	r.Message = cut(r.Message, maxMessage)
	tests := slices.Clone(r.Report.Tests)
	if len(tests) > maxTests {
		tests = slices.DeleteFunc(tests, func(t qgjob.TestResult) bool { return t.Status == qgjob.TestSkipped })
		tests = tests[:min(len(tests), maxTests)]
	}
	for i := range tests {
		tests[i].Error = cut(tests[i].Error, min(maxMessage, maxErrors/len(tests)))
		tests[i].Title = cut(tests[i].Title, 256)
	}
	r.Report.Tests = tests
	return r
}

// weight is about how many bytes a result takes in a request.
func weight(r qgjob.Result) int {
	n := 1024 + len(r.Message)
	for _, t := range r.Report.Tests {
		n += 256 + len(t.Title) + len(t.Error) + len(t.File)
	}
	return n
}

// cut shortens s to at most n bytes of valid UTF-8 and says so.
func cut(s string, n int) string {
	const mark = " [cut]"
	if len(s) <= n && utf8.ValidString(s) {
		return s
	}
	s = strings.ToValidUTF8(s[:min(len(s), n)], "")
	if room := n - len(mark); len(s) > room {
		s = strings.ToValidUTF8(s[:max(0, room)], "")
	}
	return s + mark
}
