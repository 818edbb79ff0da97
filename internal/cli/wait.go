package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/api"
)

const (
	// cancelTime is how long an interrupted command stays to see its job canceled.
	cancelTime = 4 * time.Second
	// healthPause is the time between looks at the server's health during a wait.
	healthPause = 10 * time.Second
	// noWorkerTime is after how long without any worker a waiting command says so, and in CI gives up.
	noWorkerTime = 2 * time.Minute
)

// waiting is a command that waits for a job's verdict. Only its own goroutine, run, touches it and the screen;
// the others bring it events, the server's health, and answers from the keyboard.
type waiting struct {
	p       *program
	conn    *connection
	job     qgjob.Job
	limit   time.Duration
	json    bool
	cancels bool      // an interrupt cancels the job; otherwise it only ends the wait
	early   os.Signal // a signal that came before the wait, nil for none

	screen   *screen
	started  time.Time
	state    qgjob.JobState
	attempt  int
	device   string
	failures map[bool]int // attempts that are tried again: by the test's fault or not
	workers  workerWatch
	lost     bool // the server did not answer its last health check

	asking        bool             // the question whether to cancel is on the screen
	canceling     <-chan time.Time // ends the stay after a cancel was requested; nil before
	cancelAnswers chan error
	keyboard      *keyboard
	loops         sync.WaitGroup
}

func (p *program) newWaiting(conn *connection, job qgjob.Job, limit time.Duration, json bool) *waiting {
	w := &waiting{
		p: p, conn: conn, job: job, limit: limit, json: json,
		screen: p.newScreen(), state: job.State, failures: map[bool]int{}, cancelAnswers: make(chan error, 1),
	}
	if json {
		w.screen = &screen{out: io.Discard, err: p.stderr}
	}
	return w
}

// run waits and returns by the verdict.
func (w *waiting) run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer w.loops.Wait()
	defer end()
	defer w.screen.clear()
	w.started = time.Now()
	w.screen.line(fmt.Sprintf("Waiting for job: %s | App Version: %s | Priority: %d | Test: %s to complete...",
		w.job.ID, w.job.AppVersionID, w.job.Priority, w.job.TestPath))

	events, watched := make(chan qgjob.Event), make(chan error, 1)
	w.loops.Go(func() { watched <- w.watch(ctx, events) })
	healths := make(chan healthReport)
	w.loops.Go(func() { w.watchHealth(ctx, healths) })
	w.keyboard = newKeyboard(w.p.stdin)
	defer w.keyboard.close()

	limit := time.NewTimer(w.limit)
	defer limit.Stop()
	redraw := time.NewTicker(w.screen.refresh())
	defer redraw.Stop()
	if w.early != nil {
		if err := w.interrupt(ctx, w.early); err != nil {
			return err
		}
	}
	for {
		select {
		case e := <-events:
			if w.take(e); e.State.IsVerdict() {
				return w.finish(ctx, e)
			}
		case err := <-watched:
			return w.watchFailed(err)
		case h := <-healths:
			if err := w.takeHealth(h, time.Now()); err != nil {
				return err
			}
		case sig := <-w.p.signals:
			if err := w.interrupt(ctx, sig); err != nil {
				return err
			}
		case answer := <-w.keyboard.lines:
			if err := w.answered(ctx, answer); err != nil {
				return err
			}
		case err := <-w.cancelAnswers:
			if err != nil {
				return exitf(exitInfrastructure, "job %s could not be canceled and goes on: %v\nTry again with: qgjob cancel --job-id=%s", w.job.ID, err, w.job.ID)
			}
		case <-w.canceling:
			w.screen.note("The cancel of job %s was requested; its device is still stopping.", w.job.ID)
			return exitWith(exitCanceled)
		case <-limit.C:
			return w.stopWaiting(fmt.Sprintf("Waited for %s.", roughly(w.limit)))
		case <-redraw.C:
			w.draw()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watch brings the events of the job's log, those from before first.
func (w *waiting) watch(ctx context.Context, events chan<- qgjob.Event) error {
	return w.conn.client(lostTime).WatchJob(ctx, w.job.ID, 0, func(e qgjob.Event) error {
		select {
		case events <- e:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

func (w *waiting) watchFailed(err error) error {
	switch {
	case err == nil:
		return exitf(exitInfrastructure, "the events of job %s ended without a verdict", w.job.ID)
	case unreachable(err):
		return exitf(exitInfrastructure, "the server was lost for more than %s: %v\nThe job goes on with the server. Follow it with: qgjob status --job-id=%s --wait", roughly(lostTime), err, w.job.ID)
	case qgjob.ErrorCode(err) == qgjob.CodeNotFound:
		return exitf(exitInfrastructure, "the server at %s does not know job %s any more: was it started with other data?", w.conn.url, w.job.ID)
	}
	return exitf(exitInfrastructure, "job %s cannot be followed: %v", w.job.ID, err)
}

// take shows an event.
func (w *waiting) take(e qgjob.Event) {
	w.state = e.State
	if e.Attempt > 0 {
		w.attempt = e.Attempt
	}
	w.device = ""
	switch e.Trigger {
	case qgjob.Assign:
		w.device = e.DeviceID
	case qgjob.Retry:
		test := e.Outcome == qgjob.OutcomeFailed || e.Outcome == qgjob.OutcomeTimedOut
		budget := qgjob.InfraRetries
		if test {
			budget = qgjob.TestRetries
		}
		w.failures[test]++
		w.screen.note("Attempt %d %s on %s: %s. Retrying job... (%d/%d)", e.Attempt, e.Outcome, e.DeviceID, because(e.Cause, e.Message), w.failures[test], budget)
	case qgjob.HandBack:
		w.screen.note("Attempt %d ended without cost: %s.", e.Attempt, because(e.Cause, e.Message))
	}
	w.screen.status(e.State)
}

// draw redraws the live line, except while a question stands there.
func (w *waiting) draw() {
	if w.asking {
		return
	}
	details := []string{roughly(time.Since(w.started).Truncate(time.Second))}
	if w.attempt > 1 {
		details = append(details, fmt.Sprintf("attempt %d", w.attempt))
	}
	if w.device != "" {
		details = append(details, w.device)
	}
	if w.lost {
		details = append(details, "server lost")
	}
	w.screen.progress(w.state, details...)
}

// finish says the verdict and returns by it.
func (w *waiting) finish(ctx context.Context, e qgjob.Event) error {
	detail, err := within(ctx, w.conn, func(ctx context.Context, c *api.Client) (api.JobDetail, error) { return c.Job(ctx, w.job.ID) })
	code := verdictExit(e.State, e.Cause)
	if w.json {
		if err != nil {
			return err
		}
		if err := printJSON(w.p.stdout, detail); err != nil {
			return err
		}
		return exitWith(code)
	}
	if err != nil { // the event says enough
		detail.Job = w.job
		detail.State, detail.Cause, detail.Message = e.State, e.Cause, e.Message
	}
	w.screen.verdict(detail)
	return exitWith(code)
}

// stopWaiting leaves the job alone and says how to come back to it.
func (w *waiting) stopWaiting(why string) error {
	w.screen.note("%s Job %s is %s and goes on.", why, w.job.ID, w.state)
	w.screen.note("Follow it with: qgjob status --job-id=%s --wait", w.job.ID)
	return exitWith(exitNotFinished)
}

// interrupt answers a signal: asks, cancels, or leaves.
func (w *waiting) interrupt(ctx context.Context, sig os.Signal) error {
	switch {
	case !w.cancels:
		return w.stopWaiting("Stopped by " + signalName(sig) + ".")
	case w.canceling != nil:
		w.screen.note("The cancel of job %s was requested.", w.job.ID)
		return exitWith(exitCanceled)
	case sig == os.Interrupt && !w.asking && w.p.interactive():
		w.asking = true
		w.screen.note("Cancel job %s? [y] cancel it, [n] leave it running and stop waiting, [Enter] go on waiting. Ctrl-C again cancels it.", w.job.ID)
		w.keyboard.start(&w.loops)
		return nil
	}
	w.requestCancel(ctx)
	return nil
}

func (w *waiting) answered(ctx context.Context, answer string) error {
	if !w.asking {
		return nil
	}
	switch answer {
	case "y", "Y", "yes":
		w.requestCancel(ctx)
	case "n", "N", "no":
		return w.stopWaiting("Stopped waiting.")
	default:
		w.asking = false
		w.screen.note("Waiting on.")
	}
	return nil
}

// requestCancel asks the server to cancel the job; run goes on so that the end is seen, for cancelTime at most.
func (w *waiting) requestCancel(ctx context.Context) {
	w.asking = false
	w.screen.note("Canceling job %s...", w.job.ID)
	w.canceling = time.After(cancelTime)
	w.loops.Go(func() {
		ctx, end := context.WithTimeout(ctx, cancelTime-500*time.Millisecond)
		defer end()
		_, err := w.conn.client(cancelTime).Cancel(ctx, w.job.ID)
		w.cancelAnswers <- err
	})
}

// healthReport is one look at the server's health.
type healthReport struct {
	health api.Health
	err    error
}

func (w *waiting) watchHealth(ctx context.Context, reports chan<- healthReport) {
	client := w.conn.client(-1)
	pause := time.NewTicker(healthPause)
	defer pause.Stop()
	for {
		look, end := context.WithTimeout(ctx, reachTime)
		h, err := client.Health(look)
		end()
		select {
		case reports <- healthReport{h, err}:
		case <-ctx.Done():
			return
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// takeHealth tells the person of a server that is lost or back, and of workers that are not there. It
// returns an error when a CI is to wait no longer.
func (w *waiting) takeHealth(h healthReport, now time.Time) error {
	if h.err != nil {
		if !w.lost {
			w.screen.note("The server does not answer (%v). Waiting for it for up to %s.", h.err, roughly(lostTime))
		}
		w.lost = true
		return nil
	}
	if w.lost {
		w.screen.note("The server answers again.")
		w.lost = false
	}
	say, giveUp := w.workers.look(h.health.Workers, now)
	if say {
		w.screen.note("No worker has been alive for %s: job %s waits until one starts. Start one with: qgjob worker --url=%s", roughly(w.workers.gone), w.job.ID, w.conn.url)
	}
	if giveUp && w.p.inCI() {
		return exitf(exitInfrastructure, "no worker has been alive for %s: job %s stays %s.\nStart a worker ('qgjob worker --forever') and follow the job with: qgjob status --job-id=%s --wait", roughly(w.workers.gone), w.job.ID, w.state, w.job.ID)
	}
	return nil
}

// workerWatch knows for how long no worker has been alive.
type workerWatch struct {
	since time.Time     // when this command first saw none; zero while there is one
	gone  time.Duration // how long there has been none, as far as server or command know
	said  bool
}

// look takes what the server says of its workers. say: it is time to tell the person, which is once.
// giveUp: this command itself has seen none for noWorkerTime; a worker that starts right after the submit
// is waited for, however long the last one has been gone.
func (ww *workerWatch) look(h api.HealthWorkers, now time.Time) (say, giveUp bool) {
	if h.Alive > 0 {
		ww.since, ww.gone = time.Time{}, 0
		return false, false
	}
	if ww.since.IsZero() {
		ww.since = now
	}
	seen := now.Sub(ww.since)
	ww.gone = max(seen, time.Duration(h.LastSeenMS)*time.Millisecond)
	say = ww.gone >= noWorkerTime && !ww.said
	ww.said = ww.said || say
	return say, seen >= noWorkerTime
}
