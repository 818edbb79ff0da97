package appwright

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"qgjob"
)

// testRun is a run of a spec by the real AppWright, against f.
func testRun(t *testing.T, f *fakeAppium, project Project, playwright, spec string) Run {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a run's own directory") // not a name that a shell takes unquoted
	app := testApp
	app.Path = filepath.Join(t.TempDir(), strings.Repeat("0", 64)) // as a cache names it
	if err := os.WriteFile(app.Path, []byte("an APK"), 0o644); err != nil {
		t.Fatal(err)
	}
	return Run{
		ProjectDir: project.Dir, ConfigPath: project.ConfigPath, Playwright: playwright, Spec: spec,
		WorkDir: filepath.Join(dir, "work"), ArtifactsDir: filepath.Join(dir, "artifacts"),
		Upstream: Upstream{URL: f.URL, Capabilities: map[string]any{"appium:udid": "serial-1", "appium:adbPort": 5999}},
		App:      app, TestTimeout: time.Minute, Deadline: 2 * time.Minute, Env: []string{"CI=1", "FROM_THE_CI=yes", "NODE_OPTIONS=--bad"},
	}
}

func inspected(t *testing.T, dir string) Project {
	t.Helper()
	project, err := Inspect(t.Context(), dir, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// TestRealAppWright runs specs by the real AppWright and Playwright; only the phone and its Appium are not real.
func TestRealAppWright(t *testing.T) {
	t.Setenv("SECRET_OF_THE_WORKER", "x")
	project := inspected(t, nodeProject(t, "project"))
	for _, c := range []struct {
		spec, playwright string
		outcome          qgjob.Outcome
		cause            qgjob.Cause
		tests            []string
		sessions         int
	}{
		{"tests/passes.spec.ts", "phone", qgjob.OutcomePassed, "", []string{"signing in > greets passed tests/passes.spec.ts:4"}, 1},
		{"tests/fails.spec.ts", "emulator", qgjob.OutcomeFailed, qgjob.CauseTestFailed, []string{"finds what is there passed tests/fails.spec.ts:3", "misses what is not failed tests/fails.spec.ts:8"}, 2},
		{"tests/odd (1)/a+b [ü].spec.ts", "phone", qgjob.OutcomePassed, "", []string{"only this file runs passed tests/odd (1)/a+b [ü].spec.ts:3"}, 1},
		{"tests/shares.spec.ts", "phone", qgjob.OutcomePassed, "", []string{"first passed tests/shares.spec.ts:16", "second passed tests/shares.spec.ts:20"}, 1},
		{"tests/looks-around.spec.ts", "phone", qgjob.OutcomePassed, "", []string{"sees what it should and nothing else passed tests/looks-around.spec.ts:4"}, 0},
		{"tests/broken.spec.ts", "phone", qgjob.OutcomeErrored, qgjob.CauseProjectInvalid, nil, 0},
		{"tests/focused.spec.ts", "phone", qgjob.OutcomeErrored, qgjob.CauseProjectInvalid, nil, 0},
		{"tests/missing.spec.ts", "phone", qgjob.OutcomeErrored, qgjob.CauseNoTestsMatched, nil, 0},
	} {
		f := startAppium(t)
		r := testRun(t, f, project, c.playwright, c.spec)
		var log bytes.Buffer
		result, evidence, err := r.Do(t.Context(), &log)
		if err != nil {
			t.Fatalf("%s: %v", c.spec, err)
		}
		var tests []string
		for _, test := range result.Report.Tests {
			tests = append(tests, test.Title+" "+string(test.Status)+" "+test.File+":"+strconv.Itoa(test.Line))
		}
		if result.Outcome != c.outcome || result.Cause != c.cause || !slices.Equal(tests, c.tests) || result.Check() != nil {
			t.Errorf("%s: %s %s %q %q, %v\n%s", c.spec, result.Outcome, result.Cause, result.Message, tests, result.Check(), &log)
		}
		if f.made != c.sessions || len(evidence.Sessions) != c.sessions || f.left() != 0 {
			t.Errorf("%s: %d sessions made, %d seen, %d left", c.spec, f.made, len(evidence.Sessions), f.left())
		}
		if _, err := os.Stat(filepath.Join(r.ArtifactsDir, "report.json")); err != nil {
			t.Errorf("%s: %v", c.spec, err)
		}
	}
}

// logWatch is a log that tells when a text has appeared in it.
type logWatch struct {
	mu   sync.Mutex
	text string
	seen chan struct{}
	log  bytes.Buffer
}

func (l *logWatch) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := strings.Contains(l.log.String(), l.text)
	l.log.Write(b)
	if !before && strings.Contains(l.log.String(), l.text) {
		close(l.seen)
	}
	return len(b), nil
}

func TestACanceledRunLeavesNothing(t *testing.T) {
	t.Parallel()
	project := inspected(t, nodeProject(t, "project"))
	f := startAppium(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	log := &logWatch{text: "STAYS", seen: make(chan struct{})}
	type end struct {
		result   qgjob.Result
		evidence Evidence
		err      error
	}
	ended := make(chan end, 1)
	go func() {
		result, evidence, err := testRun(t, f, project, "phone", "tests/stays.spec.ts").Do(ctx, log)
		ended <- end{result, evidence, err}
	}()
	select {
	case <-log.seen:
		cancel()
	case e := <-ended:
		t.Fatalf("the run ended early: %+v\n%s", e, &log.log)
	}
	e := <-ended
	if e.err != nil || e.result.Outcome != qgjob.OutcomeCanceled || e.result.Report.Tests[0].Status != qgjob.TestInterrupted {
		t.Errorf("%+v, %v", e.result, e.err)
	}
	if f.made != 1 || f.left() != 0 {
		t.Errorf("%d sessions made, %d left", f.made, f.left())
	}
}

func TestTimeLimits(t *testing.T) {
	project := inspected(t, nodeProject(t, "project"))
	for name, c := range map[string]struct {
		test, deadline time.Duration
		late           time.Duration // after which the phone refuses a session; 0: it makes one
		outcome        qgjob.Outcome
		cause          qgjob.Cause
	}{
		"of a test":            {5 * time.Second, 2 * time.Minute, 0, qgjob.OutcomeTimedOut, qgjob.CauseTestTimedOut},
		"of silence":           {time.Minute, 2 * time.Minute, 0, qgjob.OutcomeTimedOut, qgjob.CauseTestSilent},
		"of the run":           {time.Minute, 25 * time.Second, 0, qgjob.OutcomeTimedOut, qgjob.CauseRunTimedOut},
		"of a session":         {2 * time.Second, 2 * time.Minute, 8 * time.Second, qgjob.OutcomeErrored, qgjob.CauseDeviceHung},
		"of all in the set-up": {time.Minute, 25 * time.Second, 40 * time.Second, qgjob.OutcomeErrored, qgjob.CauseSetupTimedOut},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startAppium(t)
			if c.late > 0 {
				f.create = func() (int, string) {
					<-time.After(c.late)
					return 500, w3cError(codeNotCreated, "late")
				}
			}
			r := testRun(t, f, project, "phone", "tests/stays.spec.ts")
			r.TestTimeout, r.Deadline = c.test, c.deadline
			if name == "of silence" {
				r.Silence = 15 * time.Second
			}
			var log bytes.Buffer
			result, evidence, err := r.Do(t.Context(), &log)
			if err != nil || result.Outcome != c.outcome || result.Cause != c.cause || f.left() != 0 {
				t.Errorf("%s %s %q, %v, evidence %+v\n%s", result.Outcome, result.Cause, result.Message, err, evidence, &log)
			}
		})
	}
}
