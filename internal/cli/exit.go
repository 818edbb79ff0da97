package cli

import (
	"errors"
	"fmt"
	"strings"

	"qgjob"
)

// exitCode is the process's exit code. People script against these numbers.
type exitCode int

const (
	exitPassed         exitCode = 0
	exitTestFailed     exitCode = 1
	exitUsage          exitCode = 2
	exitNoTestMatched  exitCode = 3
	exitNoDevice       exitCode = 18
	exitCanceled       exitCode = 19
	exitInfrastructure exitCode = 20
	exitNotFinished    exitCode = 21
)

// exitCodes is the one table of exit codes, in the order in which help lists them.
var exitCodes = []struct {
	code    exitCode
	meaning string
}{
	{exitPassed, "success; with --wait: every test was executed and passed"},
	{exitTestFailed, "a test failed; a worker: a job failed for the third time"},
	{exitUsage, "the command line or the request is wrong"},
	{exitNoTestMatched, "no test counted: none matched, or all are skipped or quarantined"},
	{exitNoDevice, "no known device can run it"},
	{exitCanceled, "canceled"},
	{exitInfrastructure, "infrastructure (server, worker, device, network), the token, a project or build that cannot run, or a report that cannot be written: the message says which"},
	{exitNotFinished, "waited too long: the wait ended and the job goes on, or no device took it within --queue-timeout"},
}

// exitHelp is the table as help texts show it.
func exitHelp() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "  %2d  %s\n", e.code, e.meaning)
	}
	return strings.TrimRight(b.String(), "\n")
}

// verdictExit is the exit code for a job in the given state: never 0 unless it passed.
func verdictExit(state qgjob.JobState, cause qgjob.Cause) exitCode {
	switch state {
	case qgjob.Passed:
		if cause == qgjob.CauseAllTestsQuarantined {
			return exitNoTestMatched
		}
		return exitPassed
	case qgjob.Failed:
		return exitTestFailed
	case qgjob.Canceled:
		if cause == qgjob.CauseQueueTimedOut {
			return exitNotFinished
		}
		return exitCanceled
	case qgjob.Errored:
		if cause == qgjob.CauseNoTestsMatched || cause == qgjob.CauseAllTestsSkipped {
			return exitNoTestMatched
		}
		return exitInfrastructure
	}
	return exitNotFinished
}

// runExit is the exit code for a run: never 0 unless every job of it passed.
func runExit(run qgjob.Run) exitCode {
	if run.State == qgjob.Passed {
		for _, j := range run.Jobs {
			if verdictExit(j.State, j.Cause) == exitPassed {
				return exitPassed
			}
		}
		return exitNoTestMatched // no test that counts was executed
	}
	switch run.State {
	case qgjob.Errored:
	case qgjob.Canceled:
		for _, j := range run.Jobs { // of those that were canceled, each for lack of a device
			if j.State == qgjob.Canceled && j.Cause != qgjob.CauseQueueTimedOut {
				return exitCanceled
			}
		}
		return exitNotFinished
	default:
		return verdictExit(run.State, "")
	}
	for _, j := range run.Jobs { // an errored run has an errored job; one that no missing test explains counts first
		if j.State == qgjob.Errored && verdictExit(j.State, j.Cause) != exitNoTestMatched {
			return exitInfrastructure
		}
	}
	return exitNoTestMatched
}

// codeExits maps the codes of errors to exit codes: what another command line would mend is 2.
var codeExits = map[qgjob.Code]exitCode{
	qgjob.CodeInvalid:      exitUsage,
	qgjob.CodeNotFound:     exitUsage,
	qgjob.CodeConflict:     exitUsage,
	qgjob.CodeUnmatched:    exitNoDevice,
	qgjob.CodeTooLarge:     exitUsage,
	qgjob.CodeUnauthorized: exitInfrastructure,
	qgjob.CodeLeaseLost:    exitInfrastructure,
	qgjob.CodeUnavailable:  exitInfrastructure,
	qgjob.CodeInternal:     exitInfrastructure,
}

// exitError ends a command with a code. An empty message prints nothing: all was said before.
type exitError struct {
	code    exitCode
	message string
}

func (e *exitError) Error() string { return e.message }

// exitf makes an error that ends the command with the code and prints the message to stderr.
func exitf(code exitCode, format string, args ...any) error {
	return &exitError{code: code, message: fmt.Sprintf(format, args...)}
}

// exitWith ends the command with a code and says nothing more; nil for 0.
func exitWith(code exitCode) error {
	if code == exitPassed {
		return nil
	}
	return &exitError{code: code}
}

// exitOf returns the exit code for an error that a command returned.
func exitOf(err error) exitCode {
	if err == nil {
		return exitPassed
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	if code, ok := codeExits[qgjob.ErrorCode(err)]; ok {
		return code
	}
	return exitInfrastructure
}
