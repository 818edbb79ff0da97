package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"qgjob"
	"qgjob/internal/api"
)

// fakeWorker is `fakeworker OUTCOME...`: a worker that speaks the worker's protocol and has one device and no
// phone. It takes one job after the other, reports the outcomes in their order, and leaves. An outcome is
// passed, failed, timed_out; CAUSE, an error with that cause; hold, which runs
// until it is told to cancel; vanish, which takes a job and ends without a word; or die, which begins it first.
func fakeWorker() {
	w := &fake{client: &api.Client{BaseURL: os.Getenv("QGJOB_URL"), Patience: time.Minute}, id: uuid.NewString()}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := w.run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fakeworker:", err)
		os.Exit(1)
	}
}

type fake struct {
	client *api.Client
	id     string
	seq    int64
}

// errDied ends a worker in the middle of a job.
var errDied = errors.New("died")

const fakeDevice = "FAKE0001"

func (w *fake) devices() []api.DeviceReport {
	return []api.DeviceReport{{
		ID: fakeDevice, Serial: fakeDevice, Kind: qgjob.TargetDevice, Platform: "android", Model: "Fake 1", OSVersion: "14", State: qgjob.DeviceIdle,
		Hardware: qgjob.Hardware{ScreenWidth: 1080, ScreenHeight: 2340, BatteryPercent: 87},
	}}
}

func (w *fake) run(ctx context.Context, outcomes []string) error {
	if err := w.register(ctx); err != nil {
		return err
	}
	for _, outcome := range outcomes {
		a, err := w.take(ctx)
		if err != nil {
			return err
		}
		if outcome == "vanish" {
			return nil
		}
		if err := w.report(ctx, a, outcome); err != nil {
			return err
		}
	}
	return w.client.Leave(ctx, w.id, api.LeaveRequest{Reason: "done"})
}

func (w *fake) register(ctx context.Context) error {
	_, err := w.client.Register(ctx, w.id, api.RegisterRequest{Host: "fake", Version: "test", Devices: w.devices()})
	return err
}

// poll asks once, again over a server that is away, and as a new worker for one that forgot it.
func (w *fake) poll(ctx context.Context, r api.PollRequest) (api.PollResponse, error) {
	for {
		w.seq++
		r.Seq, r.WaitMS = w.seq, 20_000
		answer, err := w.client.Poll(ctx, w.id, r)
		switch qgjob.ErrorCode(err) {
		case qgjob.CodeUnavailable:
			if _, err := w.client.Health(ctx); err != nil { // waits for it
				return answer, err
			}
			continue
		case qgjob.CodeNotFound:
			if err := w.register(ctx); err != nil {
				return answer, err
			}
			continue
		}
		return answer, err
	}
}

func (w *fake) take(ctx context.Context) (api.Assignment, error) {
	for {
		answer, err := w.poll(ctx, api.PollRequest{Devices: []string{fakeDevice}})
		if err != nil {
			return api.Assignment{}, err
		}
		if len(answer.Assignments) > 0 {
			return answer.Assignments[0], nil
		}
	}
}

func (w *fake) report(ctx context.Context, a api.Assignment, outcome string) error {
	leases := []api.Lease{a.Lease}
	if _, err := w.client.AppendLog(ctx, a.Lease, 0, fmt.Appendf(nil, "attempt %d: \x1b[31m%s\x1b[39m\n", a.Number, outcome)); err != nil {
		return err
	}
	if outcome == "die" {
		return errDied
	}
	if outcome == "hold" {
		for {
			answer, err := w.poll(ctx, api.PollRequest{Leases: leases})
			if err != nil {
				return err
			}
			if len(answer.Cancel) > 0 {
				break
			}
		}
	}
	answer, err := w.poll(ctx, api.PollRequest{Leases: leases, Results: []api.AttemptResult{{Lease: a.Lease, Result: fakeResult(outcome)}}})
	if err != nil {
		return err
	}
	for _, r := range answer.Results {
		if r.Code != "" {
			return fmt.Errorf("the result was refused: %s: %s", r.Code, r.Message)
		}
	}
	return nil
}

func fakeResult(outcome string) qgjob.Result {
	test := qgjob.TestResult{Title: "onboarding > shows the welcome", Status: qgjob.TestPassed, DurationMS: 1200, File: "tests/onboarding.spec.js", Line: 7}
	r := qgjob.Result{Outcome: qgjob.Outcome(outcome)}
	switch outcome {
	case "passed":
	case "failed":
		test.Status, test.Error = qgjob.TestFailed, "Error: Element was not found on the screen\nlocator: Next"
		r.Cause, r.Message = qgjob.CauseTestFailed, "1 of 1 tests failed"
	case "timed_out":
		test.Status, test.Error = qgjob.TestTimedOut, "Test timeout of 30000ms exceeded."
		r.Cause, r.Message = qgjob.CauseTestTimedOut, "1 of 1 tests timed out"
	case "hold":
		return qgjob.Result{Outcome: qgjob.OutcomeCanceled, Cause: qgjob.CauseCanceled, Message: "stopped as asked"}
	default:
		return qgjob.Result{Outcome: qgjob.OutcomeErrored, Cause: qgjob.Cause(outcome), Message: strings.ReplaceAll(outcome, "_", " ") + ", says the fake worker"}
	}
	r.Report = qgjob.Report{Tests: []qgjob.TestResult{test}, Installed: true, InstallMS: 30}
	return r
}
