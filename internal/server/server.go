// Package server serves the queue over HTTP: REST under /v1 with its OpenAPI document and offline
// documentation, server-sent events, the worker protocol, /health and /metrics. It also runs the loops that
// give jobs to waiting devices (dispatch.go) and take them back from workers that went silent (reap.go).
//
// What it promises: a request that was answered with success is durable; every error answer is an
// application/problem+json with a stable code and a message that says what to do; who may do what is decided
// in one place (authorize.go); any number of servers may serve one PostgreSQL, and any of them may be
// killed. On shutdown, writes are finished and everybody who waits is answered at once.
//
// Handlers call the store; rules about states, leases and scheduling are not made here.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/blob"
	"qgjob/internal/store"
	"qgjob/internal/webhook"
)

// Limits on connections. There is none on how long an answer may take: streams and long polls last.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10

	// shutdownGrace bounds how long a shutdown waits for requests that are being served.
	shutdownGrace = 10 * time.Second
)

// Options is what a server needs. Store, Blobs and Logger are required.
type Options struct {
	Store   *store.Store
	Blobs   blob.Store
	Version string // of the program, as /health tells it
	Logger  *slog.Logger
	// QuarantineFlaky lets the rule quarantine tests that were flaky on two code states or more.
	QuarantineFlaky bool
	// AllowPrivateWebhooks lets webhooks reach private networks and this machine.
	AllowPrivateWebhooks bool

	SecretKey []byte // SecretKeySize bytes that seal the secrets of runs: the same for all servers of a database
	Retention Retention
	Tokens    []Token // empty: loopback listeners only, everything is allowed to this machine's users
}

// Server is an HTTP server over one store. Make it with New; Serve may be called once.
type Server struct {
	store     *store.Store
	blobs     blob.Store
	version   string
	log       *slog.Logger
	tokens    []Token
	hooks     *webhook.Sender
	byRule    bool // flaky tests are quarantined
	retention Retention

	mux     *http.ServeMux
	forms   map[reflect.Type]form // by the type of body
	metrics *metrics
	sealer  *sealer

	draining chan struct{} // closed when the shutdown begins: nobody waits for news any more
}

// New makes a server. It serves nothing yet. Its one error is a key of the wrong size.
func New(o Options) (*Server, error) {
	sealer, err := newSealer(o.SecretKey)
	if err != nil {
		return nil, err
	}
	s := &Server{
		sealer:    sealer,
		store:     o.Store,
		blobs:     o.Blobs,
		version:   o.Version,
		log:       o.Logger,
		tokens:    o.Tokens,
		retention: o.Retention,
		hooks:     webhook.NewSender(o.AllowPrivateWebhooks),
		byRule:    o.QuarantineFlaky,
		mux:       http.NewServeMux(),
		forms:     map[reflect.Type]form{},
		metrics:   newMetrics(o.Store),
		draining:  make(chan struct{}),
	}
	s.routes()
	return s, nil
}

// Serve serves on the listener and runs the background loops until the context ends. It closes the listener
// and returns when all requests were answered, or ten seconds later. A listener that other machines can
// reach is refused when the server has no tokens.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if err := CheckListen(l.Addr().String(), len(s.tokens) > 0); err != nil {
		return errors.Join(err, l.Close())
	}
	requests := context.WithoutCancel(ctx) // outlive the beginning of the shutdown
	hs := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
	loopCtx, stopLoops := context.WithCancel(ctx)
	defer stopLoops()
	var loops sync.WaitGroup
	news := s.store.SubscribeOwn(store.TopicQueue) // what other servers queue they plan
	defer news.Close()
	loops.Go(func() { dispatchLoop(loopCtx, s.log, news.C, s.dispatch) })
	loops.Go(func() {
		retainLoop(loopCtx, s.log, func(ctx context.Context) error { return s.retain(ctx, s.retention, retainRest) })
	})
	loops.Go(func() {
		repeatLoop(loopCtx, s.log, giveUpEvery, "jobs that waited too long could not be given up", s.store.GiveUp)
	})
	loops.Go(func() {
		repeatLoop(loopCtx, s.log, calibrateEvery, "expected starts could not be compared with real ones", s.store.Calibrate)
	})
	loops.Go(func() { reapLoop(loopCtx, s.log, s.store.Lease(), s.store.Ping, s.reap) })

	loops.Go(func() { hooksLoop(loopCtx, s.log, s.deliver) })
	loops.Go(func() { repeatLoop(loopCtx, s.log, reviewEvery, "the quarantined tests cannot be reviewed", s.review) })

	served := make(chan error, 1)
	go func() { served <- hs.Serve(l) }()

	var err error
	select {
	case <-ctx.Done():
		err = s.shutdown(requests, hs)
		<-served
	case err = <-served: // the listener failed
		close(s.draining)
		err = errors.Join(err, hs.Close())
	}
	stopLoops()
	loops.Wait()
	return err
}

// dispatch gives jobs to waiting devices.
func (s *Server) dispatch(ctx context.Context) error {
	start := time.Now()
	n, err := s.store.Dispatch(ctx)
	s.metrics.dispatched(n, time.Since(start))
	return err
}

// reap takes jobs back from workers whose lease ran out.
func (s *Server) reap(ctx context.Context) error {
	n, err := s.store.Reap(ctx)
	if n > 0 {
		s.metrics.reaped.Add(float64(n))
		s.log.Warn("leases ran out: their attempts are lost", "attempts", n)
	}
	return err
}

// shutdown answers everybody who waits and lets the requests that are being served end.
func (s *Server) shutdown(ctx context.Context, hs *http.Server) error {
	close(s.draining)
	ctx, cancel := context.WithTimeout(ctx, shutdownGrace)
	defer cancel()
	err := hs.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("requests were cut off at the shutdown", "after", shutdownGrace)
		return hs.Close()
	}
	return err
}

// parseUUID reads an id of a job, run, attempt or worker in its one form.
func parseUUID(what, id string) (string, error) {
	if len(id) == 36 && id[8] == '-' && id[13] == '-' && id[18] == '-' && id[23] == '-' {
		ok := true
		for i, c := range []byte(id) {
			isHex := c >= '0' && c <= '9' || c >= 'a' && c <= 'f'
			ok = ok && (isHex || i == 8 || i == 13 || i == 18 || i == 23)
		}
		if ok {
			return id, nil
		}
	}
	return "", qgjob.Errorf(qgjob.CodeInvalid, "%s id %.80q is no UUID, such as 02c57c1a-2f47-4e3e-b264-b30a7e92e804", what, id)
}
