package qgjob_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"qgjob"
)

func TestTestPaths(t *testing.T) {
	good := map[string]string{
		"tests/a.spec.js":           "tests/a.spec.js",
		"./tests//a.spec.js":        "tests/a.spec.js",
		"tests/x/../a.spec.js":      "tests/a.spec.js",
		"tests/ünïcode (1).spec.ts": "tests/ünïcode (1).spec.ts",
	}
	for in, want := range good {
		if got, err := qgjob.CleanTestPath(in); err != nil || got != want {
			t.Errorf("CleanTestPath(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	bad := []string{
		"", "  ", ".", "..", "../a.spec.js", "tests/../../a.spec.js", "/etc/passwd", `C:\a.spec.js`, "C:/a.spec.js",
		`tests\a.spec.js`, "tests/a\x00.spec.js", "tests/a\n.spec.js", "tests/\xff.spec.js", strings.Repeat("a", 10_000),
	}
	for _, in := range bad {
		if got, err := qgjob.CleanTestPath(in); qgjob.ErrorCode(err) != qgjob.CodeInvalid {
			t.Errorf("CleanTestPath(%.40q) = %q, %v; want an invalid error", in, got, err)
		}
	}
}

func FuzzCleanTestPath(f *testing.F) {
	for _, s := range []string{"tests/a.spec.js", "../x", "/x", "a/../..", "a\\b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		clean, err := qgjob.CleanTestPath(s)
		if err != nil {
			return
		}
		if again, err := qgjob.CleanTestPath(clean); err != nil || again != clean {
			t.Errorf("CleanTestPath(%q) = %q, which cleans to %q, %v", s, clean, again, err)
		}
		if strings.HasPrefix(clean, "/") || clean == ".." || strings.HasPrefix(clean, "../") || strings.Contains(clean, "/../") {
			t.Errorf("CleanTestPath(%q) = %q leaves the project", s, clean)
		}
	})
}

func TestIDs(t *testing.T) {
	for _, id := range []string{"qualgent", "xyz123", "com.example@1.2.3+45", "a", strings.Repeat("x", qgjob.MaxIDLength)} {
		if err := qgjob.CheckID("org_id", id); err != nil {
			t.Errorf("CheckID(%.20q): %v", id, err)
		}
	}
	for _, id := range []string{"", " ", "a b", "a/b", "..", "a\x00b", "a\nb", "a,b", "ä", strings.Repeat("x", 10_000)} {
		if err := qgjob.CheckID("org_id", id); qgjob.ErrorCode(err) != qgjob.CodeInvalid {
			t.Errorf("CheckID(%.20q) = %v; want an invalid error", id, err)
		}
	}
}

func TestTargets(t *testing.T) {
	anyTarget, err := qgjob.ParseTarget("")
	if err != nil || anyTarget != qgjob.TargetAny {
		t.Fatalf("an omitted target is %q, %v", anyTarget, err)
	}
	if anyTarget.Accepts(qgjob.TargetBrowserStack) {
		t.Error("an omitted target reached a paid cloud")
	}
	if !anyTarget.Accepts(qgjob.TargetDevice) || !anyTarget.Accepts(qgjob.TargetEmulator) {
		t.Error("an omitted target must accept own phones and emulators")
	}
	if qgjob.TargetDevice.Accepts(qgjob.TargetEmulator) {
		t.Error("a job for a phone ran on an emulator")
	}
	if _, err := qgjob.ParseTarget("toaster"); qgjob.ErrorCode(err) != qgjob.CodeInvalid {
		t.Errorf("ParseTarget(toaster) = %v", err)
	}
}

// TestVerdictIsFinal: no trigger moves a job out of a verdict.
func TestVerdictIsFinal(t *testing.T) {
	for _, tr := range qgjob.Transitions() {
		if tr.From.IsVerdict() {
			t.Errorf("%s leaves a verdict", tr.From)
		}
	}
	for _, s := range qgjob.JobStates {
		next, err := s.Next(qgjob.Pass)
		if (err == nil) != (s == qgjob.Running) {
			t.Errorf("%s on pass = %s, %v", s, next, err)
		}
	}
}

// TestBudgets plays a job's attempts and asserts its verdict, the number of attempts and what they spent.
func TestBudgets(t *testing.T) {
	type end struct {
		o qgjob.Outcome
		c qgjob.Cause
	}
	fail := end{qgjob.OutcomeFailed, qgjob.CauseTestFailed}
	slow := end{qgjob.OutcomeTimedOut, qgjob.CauseTestTimedOut}
	offline := end{qgjob.OutcomeErrored, qgjob.CauseDeviceOffline}
	lost := end{qgjob.OutcomeLost, qgjob.CauseLeaseExpired}
	unheard := end{qgjob.OutcomeLost, qgjob.CauseNotDelivered}
	handBack := end{qgjob.OutcomeCanceled, qgjob.CauseHandedBack}
	pass := end{qgjob.OutcomePassed, ""}
	cases := []struct {
		name string
		ends []end
		want qgjob.JobState
	}{
		{"passes", []end{pass}, qgjob.Passed},
		{"passes at the third try", []end{fail, slow, pass}, qgjob.Passed},
		{"fails after two retries", []end{fail, fail, fail}, qgjob.Failed},
		{"time-outs and failures share a budget", []end{slow, fail, slow}, qgjob.Failed},
		{"infrastructure has a budget of its own", []end{offline, lost, offline, fail, fail, pass}, qgjob.Passed},
		{"infrastructure gives up", []end{offline, lost, offline, lost}, qgjob.Errored},
		{"no test is final at once", []end{{qgjob.OutcomeErrored, qgjob.CauseNoTestsMatched}}, qgjob.Errored},
		{"hand-backs cost nothing", []end{handBack, unheard, handBack, unheard, handBack, fail, fail, pass}, qgjob.Passed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			j := qgjob.Job{State: qgjob.Queued}
			for i, e := range c.ends {
				var err error
				if j.State, err = j.State.Next(qgjob.Assign); err != nil {
					t.Fatalf("attempt %d: %v", i+1, err)
				}
				s, err := j.Settle(e.o, e.c)
				if err != nil {
					t.Fatalf("attempt %d: %v", i+1, err)
				}
				j.TestFailures += s.TestFailures
				j.InfraErrors += s.InfraErrors
				if j.State, err = j.State.Next(s.Trigger); err != nil {
					t.Fatalf("attempt %d: %v", i+1, err)
				}
			}
			if j.State != c.want {
				t.Errorf("job is %s, want %s", j.State, c.want)
			}
		})
	}
}

// TestCanceledJobIsNotRetried: whatever the attempt reports after a cancel, the job ends as canceled.
func TestCanceledJobIsNotRetried(t *testing.T) {
	for _, o := range qgjob.Outcomes {
		s, err := qgjob.Job{State: qgjob.Canceling}.Settle(o, qgjob.CauseDeviceOffline)
		if err != nil || s.Trigger != qgjob.Stop {
			t.Errorf("a canceling job whose attempt %s takes %v, %v", o, s.Trigger, err)
		}
	}
}

// TestNothingUnknownIsGreen: a result may say passed only when a test passed and none did not.
func TestNothingUnknownIsGreen(t *testing.T) {
	report := func(s ...qgjob.TestStatus) qgjob.Report {
		var r qgjob.Report
		for i, st := range s {
			r.Tests = append(r.Tests, qgjob.TestResult{Title: fmt.Sprint(i), Status: st})
		}
		return r
	}
	bad := []qgjob.Result{
		{Outcome: qgjob.OutcomePassed},
		{Outcome: qgjob.OutcomePassed, Report: report(qgjob.TestSkipped)},
		{Outcome: qgjob.OutcomePassed, Report: report(qgjob.TestPassed, qgjob.TestFailed)},
		{Outcome: qgjob.OutcomePassed, Report: report(qgjob.TestPassed), Cause: qgjob.CauseTestFailed},
		{Outcome: qgjob.OutcomeFailed},
		{Outcome: qgjob.OutcomeErrored, Cause: "made_up"},
		{Outcome: qgjob.OutcomeLost, Cause: qgjob.CauseLeaseExpired},
	}
	for _, r := range bad {
		if err := r.Check(); qgjob.ErrorCode(err) != qgjob.CodeInvalid {
			t.Errorf("%+v: %v; want an invalid error", r, err)
		}
	}
	good := qgjob.Result{Outcome: qgjob.OutcomePassed, Report: report(qgjob.TestPassed, qgjob.TestSkipped)}
	if err := good.Check(); err != nil {
		t.Errorf("a test passed, one was skipped: %v", err)
	}
}

func TestRunState(t *testing.T) {
	q, r, p, f, e, c := qgjob.Queued, qgjob.Running, qgjob.Passed, qgjob.Failed, qgjob.Errored, qgjob.Canceled
	cases := []struct {
		jobs []qgjob.JobState
		want qgjob.JobState
	}{
		{nil, e},
		{[]qgjob.JobState{q, q}, q},
		{[]qgjob.JobState{q, p}, r},
		{[]qgjob.JobState{r, f}, r},
		{[]qgjob.JobState{p, p}, p},
		{[]qgjob.JobState{p, f}, f},
		{[]qgjob.JobState{f, e}, e},
		{[]qgjob.JobState{p, c}, c},
	}
	for _, k := range cases {
		if got := qgjob.RunState(k.jobs); got != k.want {
			t.Errorf("RunState(%v) = %s, want %s", k.jobs, got, k.want)
		}
	}
}

func TestErrorCodes(t *testing.T) {
	inner := errors.New("disk on fire")
	err := fmt.Errorf("submit: %w", qgjob.Errorf(qgjob.CodeUnavailable, "the store is away: %w", inner))
	if qgjob.ErrorCode(err) != qgjob.CodeUnavailable || !errors.Is(err, inner) {
		t.Errorf("%v lost its code or its cause", err)
	}
	if qgjob.ErrorCode(inner) != qgjob.CodeInternal || qgjob.ErrorCode(nil) != "" {
		t.Error("an error without a code is internal, nil has none")
	}
}

// TestHoldsReadAsSentences puts every kind of hold into the sentence that people are told.
func TestHoldsReadAsSentences(t *testing.T) {
	until := time.Date(2026, 1, 2, 15, 4, 0, 0, time.UTC)
	for _, c := range []struct {
		hold qgjob.Hold
		says string
	}{
		{qgjob.Hold{Kind: qgjob.HoldDrain}, "is drained (until qgjob devices release)"},
		{qgjob.Hold{Kind: qgjob.HoldMaintain, Reason: "new battery"}, "is in maintenance: new battery (until qgjob devices release)"},
		{qgjob.Hold{Kind: qgjob.HoldReserve, Reason: "Ada", Until: &until}, "is reserved: Ada (until 15:04 UTC)"},
		{qgjob.Hold{Kind: qgjob.HoldCheck}, "is waiting for its health check (until it passes a check, or qgjob devices release)"},
		{qgjob.Hold{Kind: qgjob.HoldQuarantine, Reason: "it failed"}, "is in quarantine: it failed (until it passes a check, or qgjob devices release)"},
	} {
		if got := "is " + c.hold.String(); got != c.says {
			t.Errorf("%q, want %q", got, c.says)
		}
	}
}
