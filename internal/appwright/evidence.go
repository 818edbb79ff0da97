package appwright

import (
	"time"

	"qgjob"
)

// Evidence is what was seen of a run besides its report. The worker combines it with its own look at the
// device.
type Evidence struct {
	// AskDevice says that the outcome could be the device's doing as well as the test's: a look at the
	// device decides. When the device does not answer, that is the cause; when it does, the result stands.
	AskDevice bool

	Sessions        []Session
	SessionRequests int              // with those answered at once after a known failure
	Commands        int              // sent to sessions
	Errors          []CommandError   // in order; of those that are a test's everyday, the first hundred
	Unanswered      []PendingCommand // sent, and never answered while somebody waited
	Phases          Phases
	Parked          *Parked // a session that is left open for the next run on the device; nil: none is
}

// Phases says where the time of a run went. A phase that was not reached is zero.
type Phases struct {
	Start    time.Duration // from the start of Node until the config was evaluated
	Load     time.Duration // from then until the first test began: global setup, loading the spec, a worker process
	Sessions time.Duration // making sessions, in all
	Tests    time.Duration // in tests, their sessions included
	End      time.Duration // from the last test's end until the runner had ended
}

// Session is one request for an Appium session that reached Appium.
type Session struct {
	ID          string // empty when none was made
	RequestedAt time.Time
	MadeAt      time.Time // zero when none was made
	EndedAt     time.Time // deleted, or refused; zero when Appium never answered
	EndedBy     string    // why the proxy ended it; empty when the test did
	HandedOn    bool      // it was open already, from the test before
	Error       string    // why none was made
}

// CommandError is one answer of Appium that was an error. Cause is empty where it is nothing to do with the
// infrastructure: an element that is not there is a test's everyday.
type CommandError struct {
	At        time.Time
	Method    string
	Command   string // the path after the session's id; "session" for the request for one
	SessionID string
	Code      string // as the WebDriver specification names it
	Message   string
	Cause     qgjob.Cause
}

// ending says that the command was to end the session, which a test does after all else.
func (e CommandError) ending() bool { return e.Method == "DELETE" && e.Command == "" }

// PendingCommand is a command without an answer. GivenUpAt is zero while somebody still waits.
type PendingCommand struct {
	Method    string
	Command   string
	SessionID string
	SentAt    time.Time
	GivenUpAt time.Time
}

// keptErrors bounds the errors kept: those of the infrastructure, which decide, and the others.
const (
	keptErrors = 100
	keptCauses = 1000
)

func (e *Evidence) add(seen CommandError) {
	kept, room := 0, keptErrors
	if seen.Cause != "" {
		room = keptCauses
	}
	for _, known := range e.Errors {
		if (known.Cause != "") == (seen.Cause != "") {
			kept++
		}
	}
	if kept < room {
		e.Errors = append(e.Errors, seen)
	}
}

// made counts the sessions that came to be.
func (e *Evidence) made() int {
	n := 0
	for _, s := range e.Sessions {
		if s.ID != "" {
			n++
		}
	}
	return n
}
