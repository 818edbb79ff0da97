package agent

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"qgjob"
	"qgjob/internal/api"
)

// printer writes the lines that people and their scripts read, whole. Several goroutines may call it.
type printer struct {
	mu    sync.Mutex
	w     io.Writer // the contract's texts
	notes io.Writer // what hinders devices and jobs, and its end
}

func (p *printer) line(format string, args ...any) { p.to(p.w, format, args...) }

func (p *printer) note(format string, args ...any) { p.to(p.notes, format, args...) }

func (p *printer) to(w io.Writer, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(w, format+"\n", args...)
}

func (p *printer) started() { p.line("Worker has started! Polling for jobs...") }

func (p *printer) waiting(j qgjob.Job) {
	p.line("Waiting for job: %s | App Version: %s | Priority: %d | Test: %s to complete...", j.ID, j.AppVersionID, j.Priority, j.TestPath)
}

func (p *printer) noJobs(n, of int) { p.line("No jobs available. Retrying... (%d/%d)", n, of) }

func (p *printer) goodbye() { p.line("Goodbye.") }

func (p *printer) stopping(reason error) {
	switch {
	case errors.Is(reason, errIdle):
		p.line("Worker is shutting down after too many idle cycles.")
	case errors.Is(reason, ErrThirdFailure):
		p.line("Worker is shutting down after a job's third failure.")
	default:
		p.line("Worker is shutting down: running jobs are finished or handed back.")
	}
}

// settled says what became of a job whose attempt ended with the result.
func (p *printer) settled(job string, r qgjob.Result, a api.ResultAnswer) {
	switch {
	case a.Trigger == qgjob.HandBack:
		p.line("Job %s was handed back. It runs again.", job)
	case a.Trigger != qgjob.Retry:
		p.line("Job %s completed with status: %s", job, a.State)
	case r.Outcome == qgjob.OutcomeFailed:
		p.line("Job %s failed. Retrying job... (%d/%d)", job, a.Retry, a.Retries)
	case r.Outcome == qgjob.OutcomeTimedOut:
		p.line("Job %s timed out. Retrying job... (%d/%d)", job, a.Retry, a.Retries)
	default:
		p.line("Job %s %s (%s). Retrying job... (%d/%d)", job, r.Outcome, r.Cause, a.Retry, a.Retries)
	}
}

func (p *printer) noDevice() {
	p.line("No device found. Connect a phone with USB debugging turned on, start an emulator, " +
		"or let qgjob simulate a phone: qgjob phone, or qgjob dev --phones 2.")
}

func (p *printer) device(id string, state qgjob.DeviceState, message string) {
	if message == "" {
		p.note("Device %s is %s.", id, state)
		return
	}
	p.note("Device %s is %s: %s", id, state, sentence(message))
}

func (p *printer) recovered(id string) { p.note("Device %s answers again.", id) }

func (p *printer) trouble(what, why string) { p.note("%s: %s", what, sentence(why)) }

func (p *printer) away(err error) {
	p.note("%s Trying again until it works.", upper(sentence(err.Error())))
}

func (p *printer) back() { p.note("The server answers again.") }

func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" || strings.ContainsAny(s[len(s)-1:], ".!?") {
		return s
	}
	return s + "."
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
