package agent

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/device"
)

func TestIdleWorkerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		phones := newPhones("P1")
		run, out := inBubble(t, &script{}, Options{Drivers: []device.Driver{phones}})
		began := time.Now()
		if err := run(t.Context()); err != nil {
			t.Errorf("an idle worker ended with %v", err)
		}
		if took := time.Since(began); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("five polls of two seconds took %v", took)
		}
		const want = `Worker has started! Polling for jobs...
No jobs available. Retrying... (1/5)
No jobs available. Retrying... (2/5)
No jobs available. Retrying... (3/5)
No jobs available. Retrying... (4/5)
No jobs available. Retrying... (5/5)
Worker is shutting down after too many idle cycles.
Goodbye.
`
		if out.String() != want {
			t.Errorf("it printed:\n%s", out)
		}
		if open := phones.opened(); len(open) > 0 {
			t.Errorf("it left %v open", open)
		}
	})
}

func TestJobsStartTheIdleCountAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		slow := func(ctx context.Context, log io.Writer) (Verdict, error) {
			time.Sleep(30 * time.Second) // in the bubble's time
			return passes(ctx, log)
		}
		run, out := inBubble(t, s, Options{
			Drivers: []device.Driver{newPhones("P1", "P2")}, ProjectDir: projectDir(t), Runner: specs{"tests/slow.spec.js": slow},
		})
		done := make(chan error, 1)
		go func() { done <- run(t.Context()) }()
		time.Sleep(7 * time.Second)
		s.mu.Lock()
		s.jobs = oneJob("P1", "tests/slow.spec.js")
		s.mu.Unlock()
		if err := <-done; err != nil {
			t.Errorf("the worker ended with %v", err)
		}
		const want = `Worker has started! Polling for jobs...
No jobs available. Retrying... (1/5)
No jobs available. Retrying... (2/5)
No jobs available. Retrying... (3/5)
No jobs available. Retrying... (4/5)
Waiting for job: job-1 | App Version: xyz123 | Priority: 3 | Test: tests/slow.spec.js to complete...
Job job-1 completed with status: passed
No jobs available. Retrying... (1/5)
No jobs available. Retrying... (2/5)
No jobs available. Retrying... (3/5)
No jobs available. Retrying... (4/5)
No jobs available. Retrying... (5/5)
Worker is shutting down after too many idle cycles.
Goodbye.
`
		if out.String() != want {
			t.Errorf("it printed:\n%s", out)
		}
	})
}

func TestForeverStaysWithoutWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		run, out := inBubble(t, &script{}, Options{Drivers: []device.Driver{newPhones("P1")}, Forever: true})
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		time.Sleep(time.Hour)
		select {
		case err := <-done:
			t.Fatalf("it ended with %v", err)
		default:
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("it ended with %v", err)
		}
		if strings.Contains(out.String(), "No jobs available") {
			t.Errorf("it printed:\n%s", out)
		}
	})
}

func TestServerAwayForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{jobs: oneJob("P1", "a")}
		started, letGo := make(chan string, 2), make(chan struct{})
		run, out := inBubble(t, s, Options{
			Drivers: []device.Driver{newPhones("P1")}, ProjectDir: projectDir(t), Runner: specs{"a": runsUntil(started, "a", letGo)},
		})
		done := make(chan error, 1)
		go func() { done <- run(t.Context()) }()
		<-started
		time.Sleep(15 * time.Second)
		s.set(true)
		time.Sleep(10 * time.Second)
		close(letGo)
		time.Sleep(10 * time.Second)
		if got := s.handedIn(); len(got) != 0 {
			t.Fatalf("a server that is away took %v", got)
		}
		s.set(false)
		if err := <-done; err != nil {
			t.Errorf("the worker ended with %v", err)
		}
		if got := s.handedIn(); len(got) != 1 || got[0].Outcome != qgjob.OutcomePassed || got[0].Token != "1.secret" {
			t.Errorf("the server took %+v", got)
		}
		for _, line := range []string{"cannot be reached", "The server answers again.", "completed with status: passed"} {
			if n := strings.Count(out.String(), line); n != 1 {
				t.Errorf("%q was printed %d times:\n%s", line, n, out)
			}
		}
	})
}

func TestLeaseThatRanOutEndsTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{jobs: oneJob("P1", "a")}
		started := make(chan string, 2)
		run, out := inBubble(t, s, Options{
			Drivers: []device.Driver{newPhones("P1")}, ProjectDir: projectDir(t), Runner: specs{"a": runsUntil(started, "a", nil)},
		})
		done := make(chan error, 1)
		go func() { done <- run(t.Context()) }()
		<-started
		time.Sleep(101 * time.Second) // heartbeats keep it alive
		s.set(true)
		away := time.Now()
		if got := <-started; got != "a stopped" {
			t.Fatal(got)
		}
		if after := time.Since(away); after < 34*time.Second || after > 46*time.Second {
			t.Errorf("the test was stopped %v after the server went away, with a lease of 45 s and heartbeats every 10 s", after)
		}
		time.Sleep(time.Minute)
		s.set(false)
		if err := <-done; err != nil {
			t.Errorf("the worker ended with %v", err)
		}
		if got := s.handedIn(); len(got) != 1 || got[0].Cause != qgjob.CauseLeaseExpired || got[0].Outcome != qgjob.OutcomeErrored {
			t.Errorf("the server took %+v", got)
		}
		if n := strings.Count(out.String(), "cannot be reached"); n != 1 {
			t.Errorf("that the server is away was said %d times:\n%s", n, out)
		}
	})
}

func TestServerThatIsAwayIsAskedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{down: true}
		ctx, cancel := context.WithCancel(t.Context())
		run, _ := inBubble(t, s, Options{Drivers: []device.Driver{newPhones("P1")}, Forever: true})
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		time.Sleep(10 * time.Minute)
		if n := s.seen(); n < 60 || n > 200 {
			t.Errorf("a server that is away was asked %d times in ten minutes", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
}

func TestNoDeviceIsSaidSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		phones := newPhones()
		ctx, cancel := context.WithCancel(t.Context())
		run, out := inBubble(t, &script{}, Options{Drivers: []device.Driver{phones}, Forever: true})
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		time.Sleep(25 * time.Minute)
		if n := strings.Count(out.String(), "No device found. Connect a phone with USB debugging"); n != 3 {
			t.Errorf("it was said %d times in 25 minutes:\n%s", n, out)
		}
		phones.plug("P1")
		time.Sleep(5 * time.Second)
		if open := phones.opened(); len(open) != 1 {
			t.Errorf("a phone that was plugged in later is not used: %v", open)
		}
		cancel()
		<-done
	})
}

func TestResultOfAWorkerThatDiedIsDeliveredByTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, s := t.TempDir(), &script{jobs: oneJob("P1", "a")}
		o := Options{DataDir: dir, Drivers: []device.Driver{newPhones("P1")}, ProjectDir: projectDir(t)}
		started, letGo := make(chan string, 2), make(chan struct{})
		o.Runner = specs{"a": runsUntil(started, "a", letGo)}
		ctx, cancel := context.WithCancel(t.Context())
		run, _ := inBubble(t, s, o)
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		<-started
		s.set(true)
		close(letGo)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the first worker ended with %v", err)
		}
		if got := s.handedIn(); len(got) != 0 {
			t.Fatalf("a server that is away took %v", got)
		}

		other := &script{}
		elsewhere, _ := inBubble(t, other, o, "http://other.test")
		if err := elsewhere(t.Context()); err != nil {
			t.Error(err)
		}
		if got := other.handedIn(); len(got) != 0 {
			t.Errorf("another server was handed %+v", got)
		}

		s.set(false)
		run, out := inBubble(t, s, o)
		if err := run(t.Context()); err != nil {
			t.Errorf("the second worker ended with %v", err)
		}
		if got := s.handedIn(); len(got) != 1 || got[0].Outcome != qgjob.OutcomePassed {
			t.Errorf("the server took %+v", got)
		}
		if !strings.Contains(out.String(), "Job job-1 completed with status: passed") {
			t.Errorf("the second worker printed:\n%s", out)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "workers", "*-*")); len(left) > 0 {
			t.Errorf("left on the disk: %v", left)
		}
	})
}

func TestAssignmentToldTwiceRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job := oneJob("P1", "a")[0]
		again := job
		again.DeviceID = "P2"
		started, letGo := make(chan string, 4), make(chan struct{})
		s := &script{jobs: []api.Assignment{job, again}}
		run, out := inBubble(t, s, Options{
			Drivers: []device.Driver{newPhones("P1", "P2")}, ProjectDir: projectDir(t), Runner: specs{"a": runsUntil(started, "a", letGo)},
		})
		done := make(chan error, 1)
		go func() { done <- run(t.Context()) }()
		<-started
		time.Sleep(time.Minute)
		close(letGo)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(started) != 0 || len(s.handedIn()) != 1 || strings.Count(out.String(), "Waiting for job") != 1 {
			t.Errorf("it ran more than once; results: %+v; it printed:\n%s", s.handedIn(), out)
		}
	})
}

func TestTwoWorkersOnePhone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		phones := newPhones("P1")
		o := Options{Drivers: []device.Driver{phones}, Forever: true, DataDir: t.TempDir()}
		first, _ := inBubble(t, &script{}, o)
		second, out := inBubble(t, &script{}, o)
		ctx1, end1 := context.WithCancel(t.Context())
		ctx2, end2 := context.WithCancel(t.Context())
		done1, done2 := make(chan error, 1), make(chan error, 1)
		go func() { done1 <- first(ctx1) }()
		time.Sleep(time.Second)
		go func() { done2 <- second(ctx2) }()
		time.Sleep(5*time.Minute + 7*time.Second) // not at the moment at which it tries again
		if n := strings.Count(out.String(), "Device P1 cannot be used: device is in use by another worker"); n != 1 {
			t.Errorf("that another worker has the phone was said %d times:\n%s", n, out)
		}
		end1()
		<-done1
		if open := phones.opened(); len(open) != 0 {
			t.Fatalf("the first worker left %v open", open)
		}
		time.Sleep(20 * time.Second)
		if open := phones.opened(); len(open) != 1 {
			t.Error("the second worker did not take the phone that had become free")
		}
		end2()
		<-done2
	})
}

func TestDeviceTroubleIsNotTheTestsFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		phones := newPhones("P1")
		loses := func(ctx context.Context, log io.Writer) (Verdict, error) {
			phones.sicken("P1", device.Failf(qgjob.CauseDeviceOffline, "device P1 does not answer"))
			v, err := fails(ctx, log)
			v.Suspect = true
			return v, err
		}
		s := &script{jobs: append(oneJob("P1", "a"), func() api.Assignment {
			as := oneJob("P1", "b")[0]
			as.AttemptID, as.Job.ID = "22222222-2222-4222-8222-222222222222", "job-2"
			return as
		}())}
		run, out := inBubble(t, s, Options{
			Drivers: []device.Driver{phones}, Forever: true, ProjectDir: projectDir(t), Runner: specs{"a": loses, "b": passes},
		})
		ctx, end := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		time.Sleep(5 * time.Minute)
		got := s.handedIn()
		if len(got) != 1 || got[0].Outcome != qgjob.OutcomeErrored || got[0].Cause != qgjob.CauseDeviceOffline {
			t.Fatalf("results while the device is sick: %+v", got)
		}
		if strings.Contains(out.String(), "Waiting for job: job-2") {
			t.Errorf("a sick device took a job:\n%s", out)
		}
		phones.sicken("P1", nil)
		time.Sleep(10 * time.Second)
		if got := s.handedIn(); len(got) != 2 || got[1].Outcome != qgjob.OutcomePassed {
			t.Errorf("results once the device was well again: %+v; it printed:\n%s", got, out)
		}
		end()
		<-done
	})
}

func TestSetupHasItsOwnLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		phones := newPhones()
		phones.plug("P1").prepare = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		s := &script{jobs: oneJob("P1", "a")}
		run, _ := inBubble(t, s, Options{
			Drivers: []device.Driver{phones}, ProjectDir: projectDir(t), Runner: specs{"a": passes}, Limits: Limits{Setup: time.Minute},
		})
		began := time.Now()
		if err := run(t.Context()); err != nil {
			t.Error(err)
		}
		if got := s.handedIn(); len(got) != 1 || got[0].Cause != qgjob.CauseSetupTimedOut {
			t.Errorf("results: %+v", got)
		}
		if took := time.Since(began); took > 80*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestResultThatTheServerCannotTakeHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{poison: "poison"}
		bad := func(ctx context.Context, log io.Writer) (Verdict, error) {
			time.Sleep(5 * time.Second)
			v, err := fails(ctx, log)
			v.Message = "poison"
			return v, err
		}
		good := func(ctx context.Context, log io.Writer) (Verdict, error) {
			time.Sleep(5 * time.Second)
			return passes(ctx, log)
		}
		job, other := oneJob("P1", "bad")[0], oneJob("P2", "good")[0]
		other.AttemptID = "22222222-2222-4222-8222-222222222222"
		s.jobs = []api.Assignment{job, other}
		run, _ := inBubble(t, s, Options{
			Drivers: []device.Driver{newPhones("P1", "P2")}, ProjectDir: projectDir(t), Runner: specs{"bad": bad, "good": good},
		})
		done := make(chan error, 1)
		go func() { done <- run(t.Context()) }()
		time.Sleep(3 * time.Second)
		s.set(true) // so that both results are handed in together
		time.Sleep(10 * time.Second)
		s.set(false)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := s.handedIn(); len(got) != 1 || got[0].AttemptID != other.AttemptID {
			t.Errorf("results: %+v", got)
		}
	})
}

func TestPhonesComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		phones := newPhones("P1")
		s := &script{}
		started := make(chan string, 2)
		run, out := inBubble(t, s, Options{
			Drivers: []device.Driver{phones}, Forever: true, ProjectDir: projectDir(t), Runner: specs{"a": func(ctx context.Context, log io.Writer) (Verdict, error) {
				started <- "a"
				time.Sleep(20 * time.Second)
				v, err := fails(ctx, log)
				v.Suspect = true
				return v, err
			}},
		})
		ctx, end := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		time.Sleep(time.Minute)
		old := phones.byID["P1"]
		phones.unplug("P1")
		time.Sleep(time.Minute)
		if phones.isOpen(old) {
			t.Error("a phone that is gone is still open")
		}
		phones.plug("P1")
		time.Sleep(time.Minute)
		s.mu.Lock()
		s.jobs = oneJob("P1", "a")
		s.mu.Unlock()
		<-started
		phones.unplug("P1")
		time.Sleep(time.Minute)
		if got := s.handedIn(); len(got) != 1 || got[0].Cause != qgjob.CauseDeviceOffline || got[0].Outcome != qgjob.OutcomeErrored {
			t.Errorf("results of a phone that was unplugged in the middle of a test: %+v; it printed:\n%s", got, out)
		}
		end()
		<-done
	})
}
