package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/device"
)

const (
	// releaseTime bounds what is done on a device after a run.
	releaseTime = 30 * time.Second
	// releasePatience is how long a result waits for its device to be ready.
	releasePatience = time.Second
)

var errSetupTime = errors.New("the setup took too long")

// attempt is one assignment on its way to a result. lease and ended are under Agent.mu.
type attempt struct {
	api.Assignment
	slot     *slot
	kind     qgjob.Target    // of the device
	platform string          // as which the device runs it
	ctx      context.Context // ends with the reason to stop
	cancel   context.CancelCauseFunc
	lease    time.Time // by the wall clock, until which the server is known to keep the lease
	ended    bool      // its result is in the outbox
	env      []string  // of its tests, as NAME=value
}

// newAttempt gives an assignment to a slot. The caller holds mu.
func (a *Agent) newAttempt(ctx context.Context, as api.Assignment, s *slot) *attempt {
	requires, _ := qgjob.ParseRequirement(as.Job.Requires) // which the server has read
	at := &attempt{Assignment: as, slot: s, kind: s.info.Kind, platform: requires.Takes(s.info.Platform), lease: wallNow().Add(a.lease)}
	at.ctx, at.cancel = context.WithCancelCause(ctx)
	a.attempts[as.AttemptID] = at
	s.attempt = at
	return at
}

// run runs one attempt to its result, and leaves the device ready for the next. The device is mostly ready
// within milliseconds: its result then goes with the offer of the device, so that a retry finds it free.
func (a *Agent) run(ctx context.Context, at *attempt, session device.Session) qgjob.Result {
	defer at.cancel(nil)
	dir := filepath.Join(a.own.work(), slotDir(at.slot.id))
	defer os.RemoveAll(dir)
	result, keep := a.inDir(ctx, at, session, dir)
	if blamed(result) { // it is not offered before something was done about it
		a.mu.Lock()
		at.slot.mending = true
		a.mu.Unlock()
	}

	released := make(chan struct{})
	a.loops.Go(func() {
		defer close(released)
		a.release(ctx, at.slot, session, keep)
	})
	patience := time.NewTimer(releasePatience)
	defer patience.Stop()
	select {
	case <-released:
		a.finish(at, result, true)
	case <-patience.C:
		a.finish(at, result, false)
		<-released
		a.vacate(at)
	}
	return result
}

// slotDir names the directory of a device's attempts. They all have the same, one after another, so that what
// was compiled for one is found by the next.
func slotDir(deviceID string) string {
	sum := sha256.Sum256([]byte(deviceID))
	return hex.EncodeToString(sum[:6])
}

// release makes the device ready for the next job. keep is the Appium session that stays open for it, "" for none.
func (a *Agent) release(ctx context.Context, s *slot, session device.Session, keep string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	release := session.Release
	if k, ok := session.(device.Keeper); ok && keep != "" {
		release = func(ctx context.Context) error { return k.ReleaseKeeping(ctx, keep) }
	}
	if err := release(ctx); err != nil {
		a.o.Logger.Warn("device could not be made ready for the next job", "device", s.id, "error", err)
		a.examine(ctx, s, session)
	}
}

// vacate takes the attempt off its device, which can then be offered.
func (a *Agent) vacate(at *attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at.slot.attempt = nil
	a.beat.set() // another app may be installed now
	a.offer()
}

// inDir runs an attempt with a directory of its own, and sends its output along. keep is the Appium session
// that stays open.
func (a *Agent) inDir(ctx context.Context, at *attempt, session device.Session, dir string) (result qgjob.Result, keep string) {
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return ended(hostFailed(err), qgjob.Report{}), ""
	}
	env, secrets, err := a.variables(at.ctx, at)
	if err != nil {
		return ended(err, qgjob.Report{}), ""
	}
	at.env = env
	hide := newMask(append(secrets, a.o.Secrets...))
	stream, err := newLogStream(a.o.Client, at.Lease, dir+".log", a.o.Logger)
	if err != nil {
		return ended(hostFailed(err), qgjob.Report{}), ""
	}
	log := &maskedWriter{mask: hide, to: stream}
	sending, stop := context.WithCancel(ctx)
	defer stream.close()
	defer func() { stop(); <-stream.sent }()
	go stream.send(sending)

	var seen chronicle
	seen.begin(at.ctx, session)
	defer func() { // of an attempt whose chronicle nobody wants
		if err := seen.cut(ctx, ""); err != nil {
			a.o.Logger.Info("a recording could not be ended", "attempt", at.AttemptID, "error", err)
		}
	}()
	verdict := a.execute(at, session, dir, log, &seen)
	result = verdict.Result
	kept := filepath.Join(dir, artifactsName)
	a.chronicle(ctx, at, &seen, kept, log, &result)
	hide.result(&result)
	if err := hide.files(kept); err != nil {
		fmt.Fprintf(log, "[qgjob] artifacts that could not be masked are not kept: %v\n", err)
	}
	a.keepArtifacts(ctx, at, kept, log)
	fmt.Fprintf(log, "[qgjob] %s\n", summary(result))
	flush, cancel := context.WithTimeout(ctx, logFlush)
	defer cancel()
	if err := log.Flush(); err != nil {
		a.o.Logger.Warn("the end of an attempt's output could not be kept", "attempt", at.AttemptID, "error", err)
	}
	stream.finish(flush)
	if result.Outcome == qgjob.OutcomePassed {
		keep = verdict.Session
	}
	return result, keep
}

// chronicle adds to what the attempt left what its device tells, when it has touched its device. That of one which
// is handed back or lost would come too late. A test that failed while its app crashed is told so.
func (a *Agent) chronicle(ctx context.Context, at *attempt, seen *chronicle, dir string, log io.Writer, result *qgjob.Result) {
	seen.waste = at.ctx.Err() != nil // its device is wanted back
	if seen.appium.path == "" || result.Cause == qgjob.CauseHandedBack || errors.Is(context.Cause(at.ctx), errLeaseLost) {
		return
	}
	if err := errors.Join(os.MkdirAll(dir, 0o700), seen.end(ctx, dir, result.Outcome == qgjob.OutcomePassed)); err != nil {
		fmt.Fprintf(log, "[qgjob] some of what the device has to tell could not be had: %v\n", err)
	}
	if result.Outcome != qgjob.OutcomeFailed && result.Outcome != qgjob.OutcomeTimedOut {
		return
	}
	words := crash(filepath.Join(dir, qgjob.ArtifactDeviceLog), seen.app)
	if words == "" {
		words = seen.gone(ctx)
	}
	if words != "" {
		result.Cause, result.Message = qgjob.CauseAppCrashed, "the app crashed: "+words+"; the test said: "+result.Message
	}
}

// artifactsName is the directory of what is kept, below an attempt's.
const artifactsName = "artifacts"

func summary(r qgjob.Result) string {
	if r.Outcome == qgjob.OutcomePassed {
		return "passed"
	}
	return fmt.Sprintf("%s (%s): %s", r.Outcome, r.Cause, r.Message)
}

// execute takes an attempt from its bundle to its verdict.
func (a *Agent) execute(at *attempt, session device.Session, dir string, log io.Writer, seen *chronicle) Verdict {
	report := qgjob.Report{BuildSHA256: at.Job.BuildSHA256}
	setting, cancel := context.WithTimeoutCause(at.ctx, a.o.Limits.Setup, errSetupTime)
	defer cancel()
	r, err := a.setUp(setting, at, session, dir, log, &report)
	if err != nil {
		return Verdict{Result: ended(a.overdue(setting, err), report)}
	}
	seen.appium, seen.app = beginStretch(r.setup.Endpoint.LogPath), r.setup.Build.Package
	if err := seen.record(at.ctx, at.Job.Video); err != nil {
		fmt.Fprintf(log, "[qgjob] the screen is not recorded: %v\n", err)
	}
	began := time.Now()
	verdict, err := a.perform(setting, at, session, r, log, &report)
	report.Tests, report.RunMS = verdict.Report.Tests, time.Since(began).Milliseconds()
	if err != nil {
		verdict.Result = ended(err, report)
	}
	report.CloudSessions = recorded(at.ctx, session)
	verdict.Report = report
	if verdict.Outcome == qgjob.OutcomePassed {
		verdict.Result = checked(verdict.Result) // it was done before anybody stopped it
		return verdict
	}
	if at.ctx.Err() != nil {
		return Verdict{Result: ended(context.Cause(at.ctx), report)}
	}
	if err := a.examine(at.ctx, at.slot, session); err != nil && verdict.Suspect && at.ctx.Err() == nil {
		verdict.Result = ended(device.Failf(device.CauseOf(err), "%w; meanwhile the run said: %s", err, verdict.Message), report)
	}
	verdict.Result = checked(verdict.Result)
	return verdict
}

// recordTime bounds the questions about what ran in a cloud.
const recordTime = 15 * time.Second

// recorded lists what ran in a cloud, also of an attempt that was stopped.
func recorded(ctx context.Context, session device.Session) []qgjob.CloudSession {
	recorder, ok := session.(device.Recorder)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	return recorder.Recorded(ctx)
}

// perform runs the spec. While the device of a batch is being reset, the runner loads the spec; its request
// for a session waits. An error is that of the setup, or the runner's.
func (a *Agent) perform(setting context.Context, at *attempt, session device.Session, r ready, log io.Writer, report *qgjob.Report) (Verdict, error) {
	if r.prepared {
		return a.o.Runner.Run(at.ctx, r.task, r.plan, r.setup, log)
	}
	ready := make(chan struct{})
	early := r.setup
	early.Ready = ready
	running, stop := context.WithCancel(at.ctx)
	defer stop()
	var verdict Verdict
	var runErr error
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		verdict, runErr = a.o.Runner.Run(running, r.task, r.plan, early, log)
	}()
	err := a.prepare(setting, session, r.setup.Build, log, report)
	if err == nil && !report.Installed {
		close(ready)
		<-ran
		return verdict, runErr
	}
	stop() // it got no session
	<-ran
	if err != nil {
		return Verdict{}, a.overdue(setting, err)
	}
	if err := os.RemoveAll(r.task.WorkDir); err != nil {
		return Verdict{}, hostFailed(err)
	}
	fmt.Fprintln(log, "[qgjob] the app was not what this worker had left on the device: the runner starts again")
	return a.o.Runner.Run(at.ctx, r.task, r.plan, r.setup, log)
}

// overdue is why a setup failed: the error, or the reason why it was stopped.
func (a *Agent) overdue(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if reason := context.Cause(ctx); !errors.Is(reason, errSetupTime) {
		return reason
	}
	return device.Failf(qgjob.CauseSetupTimedOut, "the setup took longer than %v: %w", a.o.Limits.Setup, err)
}

// ended is the result of an attempt that ended before its runner gave one.
func ended(err error, report qgjob.Report) qgjob.Result {
	r := qgjob.Result{Outcome: qgjob.OutcomeErrored, Cause: device.CauseOf(err), Message: err.Error(), Report: report}
	switch {
	case errors.Is(err, errCanceled):
		r.Outcome, r.Cause = qgjob.OutcomeCanceled, qgjob.CauseCanceled
	case errors.Is(err, errHandedBack):
		r.Outcome, r.Cause = qgjob.OutcomeCanceled, qgjob.CauseHandedBack
	case errors.Is(err, errLeaseExpired), errors.Is(err, errLeaseLost):
		r.Cause = qgjob.CauseLeaseExpired
	case errors.Is(err, syscall.ENOSPC):
		r.Cause = qgjob.CauseHostDiskFull
	}
	return r
}

// checked makes sure that the server can take the result: one that contradicts itself is the runner's defect.
func checked(r qgjob.Result) qgjob.Result {
	if err := r.Check(); err != nil {
		return qgjob.Result{Outcome: qgjob.OutcomeErrored, Cause: qgjob.CauseReportInvalid, Message: err.Error(), Report: r.Report}
	}
	return r
}

// hostFailed is an error of this host's files or processes.
func hostFailed(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return device.Failf(qgjob.CauseHostDiskFull, "%w", err)
	}
	return device.Failf(qgjob.CauseHostFailed, "%w", err)
}
