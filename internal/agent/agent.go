package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"

	"qgjob/internal/api"
	"qgjob/internal/build"
	"qgjob/internal/device"
	"qgjob/internal/disk"
)

// ErrThirdFailure ends a worker that reported a job's third test failure and was not started with Forever.
var ErrThirdFailure = errors.New("a job failed for the third time")

// Why a worker takes no more work, beside ErrThirdFailure.
var (
	errIdle = errors.New("nothing to do")
	errTold = errors.New("the worker was told to stop")
)

const (
	// farewell is how long a worker that is done with its jobs tries to deliver what is left to say.
	farewell = 10 * time.Second
	// requestTime bounds every request but polls and transfers.
	requestTime = 10 * time.Second
)

// Options is what a worker needs. Client, Drivers and DataDir must be set; zero limits take the defaults.
type Options struct {
	Client  *api.Client
	Drivers []device.Driver
	Runner  Runner // nil: AppWright

	DataDir    string   // caches, logs and undelivered results; several workers may share it
	ProjectDir string   // the test project of jobs that name no bundle; "" for none
	Project    string   // Playwright project of jobs that name none; "" takes the one that fits the device
	Version    string   // of this program
	Tags       []string // of all its devices
	Secrets    []string // the worker's own credentials, masked in all that attempts leave

	Forever     bool          // go on after idle polls and after third failures
	IdlePolls   int           // polls that find nothing before an idle worker stops; default 5
	IdleWait    time.Duration // how long each of them waits; default 2 s
	Grace       time.Duration // how long running jobs may go on after the worker was told to stop; default 20 s
	Limits      Limits
	HealthEvery time.Duration                   // a device that had nothing to do for so long gets a health job; 0: none does
	MinFree     int64                           // bytes of space that the disk of DataDir must have for a job to be taken; default 2 GB
	Space       func(dir string) (int64, error) // free bytes; nil: asks the system

	Out    io.Writer    // the texts of the contract
	Notes  io.Writer    // what hinders devices and jobs, a line a write; nil: Out
	Logger *slog.Logger // everything else that an operator may want to know
}

// Limits bound an attempt.
type Limits struct {
	Setup    time.Duration // from the assignment to the runner's start; default 10 min
	Test     time.Duration // of one test; default 5 min
	Silence  time.Duration // in which the runner prints nothing and asks nothing of the device; default 10 min
	Deadline time.Duration // of the runner as a whole; default 30 min
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.IdleWait, 2 * time.Second},
		{&o.Grace, 20 * time.Second},
		{&o.Limits.Setup, 10 * time.Minute},
		{&o.Limits.Test, 5 * time.Minute},
		{&o.Limits.Silence, 10 * time.Minute},
		{&o.Limits.Deadline, 30 * time.Minute},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.IdlePolls == 0 {
		o.IdlePolls = 5
	}
	if o.MinFree == 0 {
		o.MinFree = 2_000_000_000
	}
	if o.Space == nil {
		o.Space = disk.Free
	}
	if o.Runner == nil {
		o.Runner = NewAppWright()
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Notes == nil {
		o.Notes = o.Out
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Agent is one worker.
type Agent struct {
	o      Options
	client *api.Client // repeats nothing: the loops do, each in its own rhythm
	id     string
	host   string
	say    *printer
	own    *ownDir
	hold   *cache

	changed signal // what the next poll would say has changed
	beat    signal // what the next heartbeat would say has changed
	kill    chan struct{}
	killed  sync.Once
	known   chan struct{} // closed once the server knows what the first look at the devices came to
	told    sync.Once
	loops   sync.WaitGroup

	uploads     sync.WaitGroup  // of what attempts left
	uploading   context.Context // ends them
	stopUploads context.CancelFunc

	mu       sync.Mutex
	slots    map[string]*slot      // by device id
	attempts map[string]*attempt   // by attempt id: running, or ended with a result that is not yet answered
	builds   map[string]build.Info // by SHA-256
	outbox   []outgoing            // results to report, in the order of their ends
	offered  []string              // the free devices of the last poll
	idling   bool                  // the last poll counts when it finds nothing
	lease    time.Duration
	rhythm   time.Duration // of heartbeats
	full     string        // why no job is taken for want of space; "" when there is enough
	looked   bool          // every driver has listed its devices once
	stopping error         // why no more work is taken; nil while it is
	away     bool          // the server did not answer last time
}

// New makes a worker of a fresh identity. Run starts it.
func New(o Options) (*Agent, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("this host has no name: %w", err)
	}
	o = o.withDefaults()
	once := *o.Client
	once.Patience = -1
	uploading, stopUploads := context.WithCancel(context.Background())
	return &Agent{
		uploading: uploading, stopUploads: stopUploads,
		o: o, client: &once, id: uuid.NewString(), host: host, say: &printer{w: o.Out, notes: o.Notes},
		changed: newSignal(), beat: newSignal(), kill: make(chan struct{}),
		known: make(chan struct{}), slots: map[string]*slot{}, attempts: map[string]*attempt{}, builds: map[string]build.Info{},
	}, nil
}

// Run works until it is told to stop, by ctx, or has reason to: nil when it ended idle or was told to,
// ErrThirdFailure after a third failure, another error when it cannot start. When ctx ends, running jobs go
// on for Grace and are then handed back. When Run returns, nothing that it started is left.
func (a *Agent) Run(ctx context.Context) error {
	var err error
	if a.own, err = openOwnDir(a.o.DataDir, a.id); err != nil {
		return err
	}
	defer a.own.close()
	if a.hold, err = openCache(a.o.DataDir); err != nil {
		return err
	}
	a.outbox = a.own.inherit(a.o.Client.BaseURL, a.o.Logger)

	// Attempts, heartbeats and the last reports outlive ctx: it only says that no more work is to be taken.
	run, end := context.WithCancel(context.WithoutCancel(ctx))
	defer a.loops.Wait()
	defer end()
	defer a.stopUploads()
	if err := a.enlist(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	a.say.started()
	a.lookAtDisk(time.Now())
	a.loops.Go(func() { a.obey(ctx, run) })
	a.loops.Go(func() { a.discover(run) })
	a.loops.Go(func() { a.keepAlive(run) })
	a.loops.Go(func() { a.guardDisk(run) })
	a.loops.Go(func() { a.tidy(run) })
	a.loops.Go(func() { a.endExpired(run) })
	reason := a.poll(run)
	a.leave(run, reason)
	a.endUploads()
	end()
	a.loops.Wait()
	a.say.goodbye()
	if errors.Is(reason, ErrThirdFailure) {
		return ErrThirdFailure
	}
	return nil
}

// Kill ends the grace of a worker that was told to stop: the process trees of its tests end at once.
func (a *Agent) Kill() { a.killed.Do(func() { close(a.kill) }) }

// Known is closed once the server knows which devices the worker found at first, be it none, and whether each can be used.
func (a *Agent) Known() <-chan struct{} { return a.known }

// obey stops the worker when ctx ends, and hands back what still runs when its grace is over.
func (a *Agent) obey(ctx, run context.Context) {
	select {
	case <-ctx.Done():
	case <-a.kill:
	case <-run.Done():
		return
	}
	a.stop(errTold)
	grace := time.NewTimer(a.o.Grace)
	defer grace.Stop()
	select {
	case <-grace.C:
	case <-a.kill:
	case <-run.Done():
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range a.attempts {
		at.cancel(errHandedBack)
	}
}

// stop takes no more work, for the first reason given.
func (a *Agent) stop(reason error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopping != nil {
		return
	}
	a.stopping = reason
	a.say.stopping(reason)
	a.changed.set()
}

// leave tells the server that the worker goes, so that its devices do not wait for a lease to end.
func (a *Agent) leave(ctx context.Context, reason error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime/2)
	defer cancel()
	if err := a.client.Leave(ctx, a.id, api.LeaveRequest{Reason: reason.Error()}); err != nil {
		a.o.Logger.Warn("the server could not be told that this worker leaves", "error", err)
	}
}

// signal is a flag that one goroutine waits for and others set; setting it twice is setting it once.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// pause waits for a duration, or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// wallNow is the time of day without its monotonic part, so that time that a sleeping laptop missed counts.
func wallNow() time.Time { return time.Now().Round(0) }
