package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
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

// subject is what a waiting command waits for: a job or a run.
type subject interface {
	// names are the word for it, its id, and the run that reports are made of.
	names() (noun, id, runID string)
	// begin says what is waited for.
	begin(*screen)
	// watch brings news until the verdict, each as a function for the waiting goroutine: it shows the news and
	// says whether they are the verdict. send's error ends it.
	watch(ctx context.Context, c *api.Client, send func(news func(*screen) (over bool)) error) error
	// now is its state, and what a live line shows beside it.
	now() (state qgjob.JobState, details []string)
	// finish shows the verdict and returns by it.
	finish(ctx context.Context, w *waiting) error
}

// waiting is a command that waits for a verdict. Only its own goroutine, run, touches it, its subject and the
// screen; the others bring it news, the server's health, and answers from the keyboard.
type waiting struct {
	p       *program
	conn    *connection
	subject subject
	limit   time.Duration
	json    bool
	cancels bool      // an interrupt cancels the subject; otherwise it only ends the wait
	early   os.Signal // a signal that came before the wait, nil for none
	reports *reportOptions
	local   *localRun // nil: of a server that stays

	screen  *screen
	started time.Time
	workers workerWatch
	lost    bool // the server did not answer its last health check

	asking        bool             // the question whether to cancel is on the screen
	canceling     <-chan time.Time // ends the stay after a cancel was requested; nil before
	cancelAnswers chan error
	keyboard      *keyboard
	loops         sync.WaitGroup
}

func (p *program) newWaiting(conn *connection, s subject, limit time.Duration, json bool) *waiting {
	w := &waiting{
		p: p, conn: conn, subject: s, limit: limit, json: json,
		screen: p.newScreen(), cancelAnswers: make(chan error, 1),
	}
	if json {
		w.screen = &screen{out: io.Discard, err: p.stderr}
	}
	return w
}

// run waits and returns by the verdict. The reports that were asked for are written however the wait ended.
func (w *waiting) run(ctx context.Context) error {
	err := w.wait(ctx)
	_, _, runID := w.subject.names()
	if w.local != nil {
		w.local.keep(context.WithoutCancel(ctx), w.p, w.conn, runID)
	}
	return w.reports.write(context.WithoutCancel(ctx), w.p, w.conn, runID, err)
}

func (w *waiting) wait(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer w.loops.Wait()
	defer end()
	defer w.screen.clear()
	w.started = time.Now()
	w.subject.begin(w.screen)

	allNews, watched := make(chan func(*screen) bool), make(chan error, 1)
	w.loops.Go(func() { watched <- w.watch(ctx, allNews) })
	healths := make(chan healthReport)
	w.loops.Go(func() { w.watchHealth(ctx, healths) })
	var notes <-chan string
	if w.local != nil {
		notes = w.local.notes
	}
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
		case news := <-allNews:
			if over := news(w.screen); over {
				return w.subject.finish(ctx, w)
			}
		case err := <-watched:
			return w.watchFailed(err)
		case note := <-notes:
			w.screen.note("%s", note)
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
				if w.conn.ephemeral {
					return exitf(exitInfrastructure, "%s could not be canceled and ends with this command: %v", w.name(), err)
				}
				return exitf(exitInfrastructure, "%s could not be canceled and goes on: %v\nTry again with: qgjob cancel %s", w.name(), err, w.flag())
			}
		case <-w.canceling:
			w.screen.note("The cancel of %s was requested; its device is still stopping.", w.name())
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

// name is what messages call the subject: job 02c5...
func (w *waiting) name() string {
	noun, id, _ := w.subject.names()
	return noun + " " + id
}

// flag names the subject on another command line.
func (w *waiting) flag() string {
	noun, id, _ := w.subject.names()
	return "--" + noun + "-id=" + id
}

func (w *waiting) watch(ctx context.Context, allNews chan<- func(*screen) bool) error {
	return w.subject.watch(ctx, w.conn.client(lostTime), func(news func(*screen) bool) error {
		select {
		case allNews <- news:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

func (w *waiting) watchFailed(err error) error {
	name := w.name()
	switch {
	case err == nil:
		return exitf(exitInfrastructure, "the events of %s ended without a verdict", name)
	case unreachable(err) && w.conn.ephemeral:
		return exitf(exitInfrastructure, "the run's server does not answer any more: %v", err)
	case unreachable(err):
		return exitf(exitInfrastructure, "the server was lost for more than %s: %v\nThe %s goes on with the server. Follow it with: qgjob status %s --wait", roughly(lostTime), err, name, w.flag())
	case qgjob.ErrorCode(err) == qgjob.CodeNotFound:
		return exitf(exitInfrastructure, "the server at %s does not know %s any more: was it started with other data?", w.conn.url, name)
	}
	return exitf(exitInfrastructure, "%s cannot be followed: %v", name, err)
}

// draw redraws the live line, except while a question stands there.
func (w *waiting) draw() {
	if w.asking {
		return
	}
	state, more := w.subject.now()
	details := append([]string{roughly(time.Since(w.started).Truncate(time.Second))}, more...)
	if w.lost {
		details = append(details, "server lost")
	}
	w.screen.progress(state, details...)
}

// stopWaiting leaves the subject alone and says how to come back to it.
func (w *waiting) stopWaiting(why string) error {
	state, _ := w.subject.now()
	if w.conn.ephemeral {
		w.screen.note("%s %s is %s and ends with this command.", why, capitalized(w.name()), state)
		return exitWith(exitNotFinished)
	}
	w.screen.note("%s %s is %s and goes on.", why, capitalized(w.name()), state)
	w.screen.note("Follow it with: qgjob status %s --wait", w.flag())
	return exitWith(exitNotFinished)
}

// interrupt answers a signal: asks, cancels, or leaves.
func (w *waiting) interrupt(ctx context.Context, sig os.Signal) error {
	switch {
	case !w.cancels:
		return w.stopWaiting("Stopped by " + signalName(sig) + ".")
	case w.canceling != nil:
		w.screen.note("The cancel of %s was requested.", w.name())
		return exitWith(exitCanceled)
	case sig == os.Interrupt && !w.asking && !w.conn.ephemeral && w.p.interactive():
		w.asking = true
		w.screen.note("Cancel %s? [y] cancel it, [n] leave it running and stop waiting, [Enter] go on waiting. Ctrl-C again cancels it.", w.name())
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

// requestCancel asks the server to cancel the subject; run goes on so that the end is seen, for cancelTime at most.
func (w *waiting) requestCancel(ctx context.Context) {
	w.asking = false
	w.screen.note("Canceling %s...", w.name())
	w.canceling = time.After(cancelTime)
	w.loops.Go(func() {
		ctx, end := context.WithTimeout(ctx, cancelTime-500*time.Millisecond)
		defer end()
		w.cancelAnswers <- w.cancel(ctx, w.conn.client(cancelTime))
	})
}

func (w *waiting) cancel(ctx context.Context, c *api.Client) (err error) {
	if noun, id, _ := w.subject.names(); noun == "run" {
		_, err = c.CancelRun(ctx, id)
	} else {
		_, err = c.Cancel(ctx, id)
	}
	return err
}

// capitalized is a text that begins a sentence.
func capitalized(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

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
		w.screen.note("No worker has been alive for %s: %s waits until one starts. Start one with: qgjob worker --url=%s", roughly(w.workers.gone), w.name(), w.conn.url)
	}
	if giveUp && w.p.inCI() {
		noun, _, _ := w.subject.names()
		state, _ := w.subject.now()
		return exitf(exitInfrastructure, "no worker has been alive for %s: %s stays %s.\nStart a worker ('qgjob worker --forever') and follow the %s with: qgjob status %s --wait", roughly(w.workers.gone), w.name(), state, noun, w.flag())
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
