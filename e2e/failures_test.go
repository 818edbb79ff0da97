package e2e

import (
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/phonesim"
)

// TestFailuresAreNamed breaks a phone in the ways that phones break, under the real AppWright and Appium, and asserts how the
// attempt on it ended, which retry budget that spent, and where the job went next.
func TestFailuresAreNamed(t *testing.T) {
	cases := []struct {
		name    string
		fault   phonesim.Fault
		outcome qgjob.Outcome
		cause   qgjob.Cause
		test    int // spent of the test's budget by the first attempt
		infra   int // of the infrastructure's
		final   bool
		state   qgjob.JobState
		args    []string // of the worker with the broken phone
	}{
		{"StorageFull", phonesim.Fault{Kind: phonesim.FaultLowStorage}, qgjob.OutcomeErrored, qgjob.CauseInstallRefused, 0, 1, false, qgjob.Passed, nil},
		{"TooOldForTheBuild", phonesim.Fault{Kind: phonesim.FaultRefuseInstall, Code: "INSTALL_FAILED_OLDER_SDK"}, qgjob.OutcomeErrored, qgjob.CauseInstallRefused, 0, 1, false, qgjob.Passed, nil},
		{"BadBuild", phonesim.Fault{Kind: phonesim.FaultRefuseInstall, Code: "INSTALL_PARSE_FAILED_NOT_APK"}, qgjob.OutcomeErrored, qgjob.CauseBadBuild, 0, 0, true, qgjob.Errored, nil},
		{"SessionDies", phonesim.Fault{Kind: phonesim.FaultSessionDies, AfterCommands: 4}, qgjob.OutcomeErrored, qgjob.CauseSessionDied, 0, 1, false, qgjob.Passed, nil},
		{"AppCrashes", phonesim.Fault{Kind: phonesim.FaultAppCrash, AfterCommands: 4}, qgjob.OutcomeFailed, qgjob.CauseAppCrashed, 1, 0, false, qgjob.Passed, nil},
		{"InstallHangs", phonesim.Fault{Kind: phonesim.FaultInstallHangs}, qgjob.OutcomeErrored, qgjob.CauseSetupTimedOut, 0, 1, false, qgjob.Passed, []string{"--setup-timeout=40s"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, 2)
			dir := s.project(nil)
			if err := s.phones[0].SetFault(c.fault); err != nil {
				t.Fatal(err)
			}
			id := s.submit(dir, "tests/onboarding.spec.ts")
			w := s.worker(s.phones[:1], append(c.args, "--forever")...)
			s.waitFor(id, 2*time.Minute, "has an attempt", func(d api.JobDetail) bool { return len(d.AttemptList) > 0 })
			other := s.worker(s.phones[1:], "--forever")
			d := s.waitFor(id, 4*time.Minute, "has a verdict", hasVerdict)
			first := d.AttemptList[0]
			if first.Outcome != c.outcome || first.Cause != c.cause || d.State != c.state {
				t.Errorf("the first attempt is %s %s (%s), the job %s %s; want %s %s, %s", first.Outcome, first.Cause, first.Message, d.State, d.Message, c.outcome, c.cause, c.state)
			}
			if d.TestFailures != c.test || d.InfraErrors != c.infra {
				t.Errorf("spent %d of the test's and %d of the infrastructure's budget, want %d and %d", d.TestFailures, d.InfraErrors, c.test, c.infra)
			}
			switch {
			case c.final && len(d.AttemptList) != 1:
				t.Errorf("%d attempts at what no device can mend", len(d.AttemptList))
			case !c.final && len(d.AttemptList) != 2:
				t.Errorf("%d attempts, want 2", len(d.AttemptList))
			case !c.final && (d.AttemptList[1].DeviceID == first.DeviceID) != (c.test > 0):
				t.Errorf("the retry of a job whose attempt was %s ran on %s, after %s", first.Outcome, d.AttemptList[1].DeviceID, first.DeviceID)
			}
			for _, p := range []*process{w, other} {
				p.signal(15)
				p.exit(time.Minute)
			}
			s.nothingLeft()
		})
	}
}
