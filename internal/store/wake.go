package store

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// TopicQueue is published when something was queued or a device waits.
const TopicQueue = "queue"

// TopicJob is published when a job has a new event.
func TopicJob(id string) string { return "job/" + id }

// TopicLog is published when the log of one of a job's attempts has grown.
func TopicLog(jobID string) string { return "log/" + jobID }

// TopicWorker is published when something has come up for a worker's poll.
func TopicWorker(id string) string { return "worker/" + id }

// Subscription receives on C after a topic was published, once for any number of publications.
type Subscription struct {
	C      <-chan struct{}
	c      chan struct{}
	topics []string
	own    bool // it is not woken by what other servers commit
	wakes  *wakes
	mail   []delivery
}

// delivery is an assignment for a poll that waits.
type delivery struct {
	worker  string
	pollSeq int64
	Assignment
}

// Assignments takes what has been assigned, since they were taken before, to devices that wait by a poll of
// the worker that the subscription is about. What was assigned at another server comes as a wake alone.
func (sub *Subscription) Assignments(pollSeq int64) []Assignment {
	sub.wakes.mu.Lock()
	defer sub.wakes.mu.Unlock()
	var taken []Assignment
	for _, d := range sub.mail {
		if d.pollSeq == pollSeq {
			taken = append(taken, d.Assignment)
		}
	}
	sub.mail = nil
	return taken
}

// Subscribe listens to topics until Close. A subscriber reads the store after subscribing, and after each
// receive: it may be woken for nothing, but does not miss anything.
func (s *Store) Subscribe(topics ...string) *Subscription { return s.subscribe(false, topics) }

// SubscribeOwn is Subscribe for who has nothing to do about what other servers commit, in time.
func (s *Store) SubscribeOwn(topics ...string) *Subscription { return s.subscribe(true, topics) }

func (s *Store) subscribe(own bool, topics []string) *Subscription {
	c := make(chan struct{}, 1)
	sub := &Subscription{C: c, c: c, topics: topics, own: own, wakes: s.wakes}
	s.wakes.add(sub)
	return sub
}

// Close ends the subscription.
func (sub *Subscription) Close() { sub.wakes.remove(sub) }

func (sub *Subscription) wake() {
	select {
	case sub.c <- struct{}{}:
	default: // it has not read the wake before
	}
}

// wakes knows who listens to what in this process.
type wakes struct {
	// idle says that for all this server knows nothing is queued or no device waits. The writer sets it before
	// it commits, while nobody else writes or the commit will be stale, so that it never hides what another
	// server commits later.
	idle atomic.Bool

	mu   sync.Mutex
	subs map[string]map[*Subscription]struct{}
}

func newWakes() *wakes { return &wakes{subs: map[string]map[*Subscription]struct{}{}} }

func (w *wakes) add(sub *Subscription) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, topic := range sub.topics {
		if w.subs[topic] == nil {
			w.subs[topic] = map[*Subscription]struct{}{}
		}
		w.subs[topic][sub] = struct{}{}
	}
}

func (w *wakes) remove(sub *Subscription) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, topic := range sub.topics {
		delete(w.subs[topic], sub)
		if len(w.subs[topic]) == 0 {
			delete(w.subs, topic)
		}
	}
}

// deliver hands assignments to those who listen for their worker; the wake that tells of them follows.
func (w *wakes) deliver(mail []delivery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range mail {
		for sub := range w.subs[TopicWorker(d.worker)] {
			sub.mail = append(sub.mail, d)
		}
	}
}

// publish tells of what this server has committed, publishOthers of what another one has.
func (w *wakes) publish(topics []string) { w.wake(topics, true) }

func (w *wakes) publishOthers(topics []string) { w.wake(topics, false) }

func (w *wakes) wake(topics []string, own bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, topic := range topics {
		for sub := range w.subs[topic] {
			if own || !sub.own {
				sub.wake()
			}
		}
	}
}

// publishAll wakes everybody: something may have been missed.
func (w *wakes) publishAll() {
	w.idle.Store(false)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, subs := range w.subs {
		for sub := range subs {
			sub.wake()
		}
	}
}

// Servers over one PostgreSQL tell each other of commits on one channel. A payload is the origin of the
// commit and its topics, a line each.
const (
	channel      = "qgjob"
	payloadLimit = 7900 // bytes; PostgreSQL takes 7999
	listenerName = "qgjob listener"
)

func payloads(origin string, topics []string) []string {
	var out []string
	var b strings.Builder
	for _, topic := range topics {
		if b.Len() > 0 && b.Len()+1+len(topic) > payloadLimit {
			out = append(out, b.String())
			b.Reset()
		}
		if b.Len() == 0 {
			b.WriteString(origin)
		}
		b.WriteString("\n" + topic)
	}
	return append(out, b.String())
}

// The listener's rhythm. A notification that got lost (a pooler in between, a connection that died unseen)
// costs no more than one of these.
const (
	listenRetry = time.Second
	listenCheck = 5 * time.Second
)

// listen publishes what other servers commit until ctx ends. While it has no connection, and after every
// stretch of silence, it wakes everybody: they poll.
func listen(ctx context.Context, config *pgx.ConnConfig, origin string, w *wakes, log *slog.Logger) {
	for ctx.Err() == nil {
		err := listenOnce(ctx, config, origin, w)
		if ctx.Err() != nil {
			return
		}
		log.Warn("listening for other servers' commits failed; polling until it works again", "err", err)
		w.publishAll()
		retry := time.NewTimer(listenRetry)
		select {
		case <-ctx.Done():
			retry.Stop()
		case <-retry.C:
		}
	}
}

func listenOnce(ctx context.Context, config *pgx.ConnConfig, origin string, w *wakes) error {
	config = config.Copy()
	config.RuntimeParams["application_name"] = listenerName
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it is given up either way
	if _, err := c.Exec(ctx, "listen "+channel); err != nil {
		return err
	}
	for {
		w.publishAll()
		if err := relay(ctx, c, origin, w); err != nil {
			return err
		}
		if err := c.Ping(ctx); err != nil {
			return err
		}
	}
}

// relay publishes notifications until none has come for listenCheck.
func relay(ctx context.Context, c *pgx.Conn, origin string, w *wakes) error {
	for {
		silence, cancel := context.WithTimeout(ctx, listenCheck)
		n, err := c.WaitForNotification(silence)
		silent := silence.Err() != nil && ctx.Err() == nil
		cancel()
		if err != nil && silent && !c.IsClosed() {
			return nil
		}
		if err != nil {
			return err
		}
		if from, payload, ok := strings.Cut(n.Payload, "\n"); ok && from != origin {
			topics := strings.Split(payload, "\n")
			if slices.Contains(topics, TopicQueue) {
				w.idle.Store(false)
			}
			w.publishOthers(topics)
		}
	}
}
