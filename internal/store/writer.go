package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"qgjob"
)

const (
	queueLimit   = 8192             // calls that may wait; more are told to come again
	batchCalls   = 128              // calls of one transaction: while it commits, those of the one before are answered and ask again
	batchWeight  = 20_000           // rows, about, of one transaction
	batchTimeout = 30 * time.Second // a transaction that takes longer is given up
)

// The order of a batch's steps.
const (
	submitStep = iota
	pollStep
	singleStep
	dispatchStep
	lastStep = dispatchStep
)

// A step runs all calls of one kind of a batch within its transaction. Calls that it refuses get their own
// error; an error that it returns spoils the transaction for all.
type step struct {
	order int // steps of a batch run in this order
	// reads are what run needs of the database, asked for when the transaction begins; nil for none.
	reads func(t *tx, calls []*call) []read
	run   func(ctx context.Context, t *tx, calls []*call) error
}

// single runs calls that have nothing to gain from each other's company. A function that refuses returns
// a *qgjob.Error before it has changed anything; it may run twice, and starts afresh each time.
var single = &step{order: singleStep, run: func(ctx context.Context, t *tx, calls []*call) error {
	for _, c := range calls {
		err := c.arg.(func(context.Context, *tx) error)(ctx, t)
		if _, refused := errors.AsType[*qgjob.Error](err); err != nil && !refused {
			return err
		}
		c.err = err
	}
	return nil
}}

// A call is one request in the writer's queue.
type call struct {
	step   *step
	arg    any
	weight int
	state  atomic.Int32
	err    error // its own answer, when the transaction commits
	done   chan struct{}
}

const (
	callWaits = iota
	callStarted
	callAbandoned
)

// writer owns the one session that writes, and the board. Calls that arrive while a transaction is being
// committed share the next one.
type writer struct {
	d     *dialect
	open  func(context.Context) (session, error)
	log   *slog.Logger
	lease time.Duration
	shift *atomic.Int64
	wakes *wakes
	given atomic.Int64 // attempts made since Dispatch was last answered

	mu     sync.RWMutex // held to write while closing
	closed bool
	queue  chan *call
	ended  chan struct{}

	session session // the loop's own; nil when there is none
	board   *board  // nil when it is not known
}

func newWriter(s *Store, open func(context.Context) (session, error), log *slog.Logger) *writer {
	return &writer{
		d: s.d, open: open, log: log, lease: s.lease, shift: &s.shift, wakes: s.wakes,
		queue: make(chan *call, queueLimit), ended: make(chan struct{}),
	}
}

// write runs a function in the next transaction.
func (s *Store) write(ctx context.Context, fn func(context.Context, *tx) error) error {
	return s.writer.do(ctx, single, fn, 1)
}

// do queues a call and waits for its answer. When ctx ends before the call's batch has begun, the call is
// taken out and changes nothing; after that its answer is waited for, since it may have been committed.
func (w *writer) do(ctx context.Context, st *step, arg any, weight int) error {
	c := &call{step: st, arg: arg, weight: weight, done: make(chan struct{})}
	if err := w.enqueue(c); err != nil {
		return err
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	if c.state.CompareAndSwap(callWaits, callAbandoned) {
		return &qgjob.Error{Code: qgjob.CodeUnavailable, Message: "the request ended before its turn came; nothing was changed", Err: ctx.Err()}
	}
	<-c.done
	return c.err
}

func (w *writer) enqueue(c *call) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return qgjob.Errorf(qgjob.CodeUnavailable, "the server is shutting down; try again")
	}
	select {
	case w.queue <- c:
		return nil
	default:
		return qgjob.Errorf(qgjob.CodeUnavailable, "the server is overloaded: %d writes wait for the database; try again later", queueLimit)
	}
}

// loop runs until close has been called and the queue is empty.
func (w *writer) loop() {
	defer close(w.ended)
	defer w.drop()
	for first := range w.queue {
		w.serve(w.collect(first))
	}
}

// collect takes what has arrived, without waiting for more.
func (w *writer) collect(first *call) []*call {
	var batch []*call
	weight := 0
	for c := first; ; {
		if c.state.CompareAndSwap(callWaits, callStarted) {
			batch = append(batch, c)
			weight += c.weight
		}
		if len(batch) >= batchCalls || weight >= batchWeight {
			return batch
		}
		var ok bool
		select {
		case c, ok = <-w.queue:
			if !ok {
				return batch
			}
		default:
			return batch
		}
	}
}

// serve commits a batch and answers its calls. When the database refuses something in a shared transaction,
// its calls are tried again one by one, so that only the one that spoils is refused. When the connection is
// what failed, the batch is tried once more on a fresh one; when the plan is, the batch goes without, and
// Dispatch is left to tell.
func (w *writer) serve(batch []*call) {
	if len(batch) == 0 {
		return
	}
	err := w.try(batch, true)
	if err != nil && w.session == nil && !errors.Is(err, errUnknown) {
		err = w.try(batch, true)
	}
	if errors.Is(err, errPlan) && w.session != nil {
		w.log.Error("a plan failed; its transaction goes without", "err", err)
		err = w.try(batch, false)
	}
	switch {
	case err == nil:
	case len(batch) > 1 && w.session != nil:
		w.log.Warn("a shared transaction was spoiled; its requests are tried one by one", "requests", len(batch), "err", err)
		for _, c := range batch {
			w.serve([]*call{c})
		}
		return
	default:
		if qgjob.ErrorCode(err) == qgjob.CodeInternal {
			w.log.Error("a write failed", "err", err)
		}
		for _, c := range batch {
			c.err = err
		}
	}
	for _, c := range batch {
		close(c.done)
	}
}

// errPlan marks what failed on no request's account.
var errPlan = errors.New("plan")

// try runs a batch in one transaction, and in another one when that is stale. After an error nothing was changed,
// unless it is errUnknown. A session that is not good any more is dropped.
func (w *writer) try(batch []*call, planning bool) error {
	err := w.tryOnce(batch, planning)
	if errors.Is(err, errStale) {
		err = w.tryOnce(batch, planning)
	}
	return err
}

func (w *writer) tryOnce(batch []*call, planning bool) error {
	ctx, cancel := w.batchContext()
	defer cancel()
	if w.session == nil {
		s, err := w.open(ctx)
		if err != nil {
			return w.d.translate(err)
		}
		w.session = s
	}
	t := newTx(w, planning)
	t.b, w.board = w.board, nil // what is known when the transaction fails is read anew
	if err := w.run(ctx, t, batch); err != nil {
		return w.undo(ctx, err)
	}
	return w.commit(ctx, t, len(batch))
}

// undo ends a transaction that failed.
func (w *writer) undo(ctx context.Context, err error) error {
	if rollback := w.session.rollback(ctx); rollback != nil {
		w.drop()
	}
	if _, ok := errors.AsType[*qgjob.Error](err); ok || errors.Is(err, errStale) {
		return err
	}
	return w.d.translate(err)
}

// guard turns a panic into an error. It spoils the transaction as an error does: a request that meets a defect is
// refused, and a worker that sends it again and again takes nobody else's queue down with it.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = &qgjob.Error{
			Code: qgjob.CodeInternal, Message: "the server met a defect and changed nothing",
			Err: fmt.Errorf("panic: %v\n%s", p, debug.Stack()),
		}
	}
}

// run does the batch's work.
func (w *writer) run(ctx context.Context, t *tx, batch []*call) (err error) {
	defer guard(&err)
	if err := t.begin(ctx, batch); err != nil {
		return err
	}
	return w.steps(ctx, t, batch)
}

// write writes what the batch changed, and commits it.
func (w *writer) write(ctx context.Context, t *tx, topics []string) (version int64, err error) {
	defer guard(&err)
	return w.session.commit(ctx, t.collected(), topics)
}

func (w *writer) commit(ctx context.Context, t *tx, requests int) error {
	topics := t.topicList()
	w.wakes.idle.Store(t.idle)
	version, err := w.write(ctx, t, topics)
	switch {
	case err == nil:
	case errors.Is(err, errUnknown):
		w.wakes.idle.Store(false)
		w.drop()
		w.log.Error("a commit failed", "requests", requests, "err", err)
		w.wakes.publish(topics) // it may have happened, and nobody would hear of it
		return &qgjob.Error{
			Code:    qgjob.CodeUnavailable,
			Message: "the database did not confirm the commit: the request may or may not have been carried out; send it again",
			Err:     err,
		}
	default:
		w.wakes.idle.Store(false)
		return w.undo(ctx, err)
	}
	t.b.version = version
	w.board = t.b
	w.given.Add(int64(t.given))
	w.wakes.deliver(t.mail)
	w.wakes.publish(topics)
	return nil
}

// begin opens the transaction, reads what the batch's steps need, and the board unless it is known.
func (t *tx) begin(ctx context.Context, batch []*call) error {
	var reads []read
	for order := range lastStep + 1 {
		if calls := callsOf(batch, order); len(calls) > 0 && calls[0].step.reads != nil {
			reads = append(reads, calls[0].step.reads(t, calls)...)
		}
	}
	known := int64(noVersion)
	if t.b != nil {
		known = t.b.version
	}
	now, version, err := t.s.begin(ctx, known, reads)
	if err != nil {
		return err
	}
	t.now = now + t.w.shift.Load()
	if t.b == nil || t.b.version != version {
		if t.b, err = readBoard(ctx, t.s); err != nil {
			return err
		}
		t.b.version = version
	}
	return nil
}

func callsOf(batch []*call, order int) []*call {
	var calls []*call
	for _, c := range batch {
		if c.step.order == order {
			calls = append(calls, c)
		}
	}
	return calls
}

// batchContext bounds a transaction on PostgreSQL, whose server may be out of reach. SQLite's is bounded by
// its busy timeout, and would pay for a context at every statement.
func (w *writer) batchContext() (context.Context, context.CancelFunc) {
	if w.d.setwise {
		return context.WithTimeout(context.Background(), batchTimeout)
	}
	return context.Background(), func() {}
}

func (w *writer) steps(ctx context.Context, t *tx, batch []*call) error {
	for order := range lastStep + 1 {
		calls := callsOf(batch, order)
		if len(calls) == 0 {
			continue
		}
		for _, c := range calls {
			c.err = nil
		}
		if err := calls[0].step.run(ctx, t, calls); err != nil {
			return err
		}
		if err := t.stopRuns(ctx); err != nil {
			return err
		}
	}
	if err := t.plan(ctx); err != nil {
		return err
	}
	return t.ageHeadless(ctx)
}

// drop closes the session for good: it may be inside a transaction.
func (w *writer) drop() {
	if w.session != nil {
		w.session.close()
		w.session = nil
	}
}

func (w *writer) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.queue)
	}
	w.mu.Unlock()
	<-w.ended
}
