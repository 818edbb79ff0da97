package cli

import (
	"fmt"
	"strings"

	"qgjob"
	"qgjob/internal/api"
)

// because joins a cause and a message to one line.
func because(cause qgjob.Cause, message string) string {
	message = oneLine(message)
	switch {
	case cause == "" && message == "":
		return "no reason given"
	case message == "":
		return string(cause)
	case cause == "":
		return message
	}
	return string(cause) + ": " + message
}

// oneLine is a text without line breaks and control characters.
func oneLine(s string) string { return strings.Join(strings.Fields(printable(s)), " ") }

// verdict prints how a job ended: the contract's sentence on stdout, what helps to mend it on stderr.
// Ephemeral says that its server ends with the command: nobody can ask for the log later.
func (s *screen) verdict(d api.JobDetail, ephemeral bool) {
	log := !ephemeral && d.Attempts > 0
	switch d.State {
	case qgjob.Passed:
		if d.Cause == qgjob.CauseAllTestsQuarantined {
			s.line("Sorry! No test counts: " + because(d.Cause, "every test that ran is quarantined") + ".")
			return
		}
		s.line("Success! Test passed.")
		if d.Quarantined > 0 {
			s.note("%d quarantined tests failed and do not count.", d.Quarantined)
		}
		if d.Flaky {
			s.note("It is flaky: it passed at attempt %d only.", d.Attempts)
		}
	case qgjob.Failed:
		s.line("Sorry! Test failed.")
		s.note("%s", strings.Join(failures(d), "\n"))
		if advice := d.Cause.Advice(); advice != "" && d.Cause != qgjob.CauseTestFailed { // its error says it
			s.note("What to do: %s.", advice)
		}
		if log {
			s.note("%s", logOf(d.ID))
		}
	case qgjob.Canceled:
		s.line("Sorry! Job canceled: " + because(d.Cause, d.Message) + ".")
	default:
		line := fmt.Sprintf("Sorry! Job %s: %s", d.State, because(d.Cause, d.Message))
		if advice := d.Cause.Advice(); advice != "" {
			line += " (" + advice + ")"
		}
		s.line(line)
		if log {
			s.note("%s", logOf(d.ID))
		}
	}
}

// failures tells what failed in a job's last attempt.
func failures(d api.JobDetail) []string {
	lines := []string{because(d.Cause, d.Message)}
	if n := len(d.AttemptList); n > 0 {
		for _, t := range d.AttemptList[n-1].Report.Tests {
			if t.Status == qgjob.TestPassed || t.Status == qgjob.TestSkipped {
				continue
			}
			lines = append(lines, failedTest(t)...)
		}
	}
	return lines
}

// logOf says how to read a job's log.
func logOf(jobID string) string { return "Log: qgjob logs --job-id=" + jobID }

// failedTest shows a test that did not pass: title, place, and the start of its error.
func failedTest(t qgjob.TestResult) []string {
	head := fmt.Sprintf("  %s: %s", t.Status, printable(t.Title))
	if t.File != "" {
		head += fmt.Sprintf(" (%s:%d)", printable(t.File), t.Line)
	}
	lines := []string{head}
	const most = 8
	for i, line := range strings.Split(strings.TrimSpace(t.Error), "\n") {
		if i == most {
			lines = append(lines, "    ...")
			break
		}
		if line = strings.TrimRight(printable(line), " "); line != "" {
			lines = append(lines, "    "+line)
		}
	}
	return lines
}
