package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"qgjob"
	"qgjob/internal/api"
)

const waitedID = "02c57c1a-2f47-4e3e-b264-b30a7e92e804"

// pipeServer is an HTTP server in the test's bubble: connections are pipes, so that time is the bubble's.
type pipeServer struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	gone   func() bool // the server is away: it takes no connection
}

func (s *pipeServer) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}
func (s *pipeServer) Close() error   { s.once.Do(func() { close(s.closed) }); return nil }
func (s *pipeServer) Addr() net.Addr { return &net.TCPAddr{} }

func (s *pipeServer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if s.gone() {
		return nil, syscall.ECONNREFUSED
	}
	mine, theirs := net.Pipe()
	select {
	case s.conns <- theirs:
		return mine, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fakeServer answers what a waiting command asks, by the bubble's clock.
type fakeServer struct {
	states   []qgjob.JobState // events so far; the stream then stays open
	health   func(after time.Duration) api.Health
	lostAt   time.Duration // from then on it is away; 0: never
	canceled func() qgjob.Job
}

func (f *fakeServer) handler(began time.Time, away context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		h := api.Health{Status: "ok", Workers: api.HealthWorkers{Alive: 1}}
		if f.health != nil {
			h = f.health(time.Since(began))
		}
		_ = json.NewEncoder(w).Encode(h)
	})
	mux.HandleFunc("GET /v1/jobs/{id}", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(api.JobDetail{Job: qgjob.Job{ID: waitedID, State: f.states[len(f.states)-1]}})
	})
	mux.HandleFunc("POST /v1/jobs/{id}/cancel", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(f.canceled())
	})
	mux.HandleFunc("GET /v1/jobs/{id}/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i, state := range f.states {
			data, _ := json.Marshal(qgjob.Event{JobID: waitedID, Seq: i + 1, State: state, Cause: qgjob.CauseCanceled})
			fmt.Fprintf(w, "data: %s\n\n", data)
		}
		heartbeat := time.NewTicker(api.StreamHeartbeat)
		defer heartbeat.Stop()
		for {
			w.(http.Flusher).Flush()
			select {
			case <-heartbeat.C:
				fmt.Fprint(w, ":\n\n")
			case <-r.Context().Done():
				return
			case <-away.Done():
				panic(http.ErrAbortHandler)
			}
		}
	})
	return mux
}

type waitResult struct {
	code           exitCode
	message        string // what Main would print
	stdout, stderr string
	took           time.Duration
}

// waitFor runs a wait in a bubble of its own. Signals come at the given times.
func waitFor(t *testing.T, f *fakeServer, limit time.Duration, vars map[string]string, signals map[time.Duration]os.Signal) (r waitResult) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		away, leave := context.WithCancel(t.Context())
		defer leave()
		if f.lostAt > 0 {
			defer time.AfterFunc(f.lostAt, leave).Stop()
		}
		listener := &pipeServer{conns: make(chan net.Conn), closed: make(chan struct{}), gone: func() bool { return away.Err() != nil }}
		server := &http.Server{Handler: f.handler(began, away)}
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		transport := &http.Transport{DialContext: listener.dial}

		received := make(chan os.Signal, len(signals))
		for at, sig := range signals {
			defer time.AfterFunc(at, func() { received <- sig }).Stop()
		}
		var stdout, stderr bytes.Buffer
		p := &program{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, vars: vars, signals: received}
		conn := &connection{url: "http://queue.example", http: &http.Client{Transport: transport}}
		w := p.newWaiting(conn, newWaitedJob(qgjob.Job{ID: waitedID, AppVersionID: "v", TestPath: "a.spec.js", State: qgjob.Queued}), limit, false)
		w.cancels = true
		err := w.run(t.Context())
		r = waitResult{code: exitOf(err), stdout: stdout.String(), stderr: stderr.String(), took: time.Since(began)}
		if err != nil {
			r.message = err.Error()
		}
		transport.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return r
}

func contains(t *testing.T, what, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("%s is\n%s\nwant it to contain %q", what, text, want)
	}
}

func TestWaitEndsAtItsLimit(t *testing.T) {
	r := waitFor(t, &fakeServer{states: []qgjob.JobState{qgjob.Queued, qgjob.Running}}, 2*time.Hour, nil, nil)
	if r.code != exitNotFinished || r.took != 2*time.Hour {
		t.Errorf("exit code %d after %s, want 21 after 2h", r.code, r.took)
	}
	contains(t, "stderr", r.stderr, "Waited for 2 h 0 min. Job "+waitedID+" is running and goes on.")
	contains(t, "stderr", r.stderr, "qgjob status --job-id="+waitedID+" --wait")
}

func TestLostServerIsWaitedForFiveMinutes(t *testing.T) {
	r := waitFor(t, &fakeServer{states: []qgjob.JobState{qgjob.Queued}, lostAt: time.Minute}, 2*time.Hour, nil, nil)
	if r.code != exitInfrastructure || r.took < 5*time.Minute+50*time.Second || r.took > 6*time.Minute+10*time.Second {
		t.Errorf("exit code %d after %s, want 20 after 6 minutes", r.code, r.took)
	}
	contains(t, "stderr", r.stderr, "The server does not answer")
	contains(t, "the error", r.message, "the server was lost for more than 5 min")
	contains(t, "the error", r.message, "qgjob status --job-id="+waitedID+" --wait")
}

func TestNoWorker(t *testing.T) {
	none := func(time.Duration) api.Health { return api.Health{Status: "ok"} }
	longGone := func(after time.Duration) api.Health {
		return api.Health{Status: "ok", Workers: api.HealthWorkers{LastSeenMS: (time.Hour + after).Milliseconds()}}
	}
	brief := func(after time.Duration) api.Health {
		if after < 90*time.Second {
			return api.Health{Status: "ok"}
		}
		return api.Health{Status: "ok", Workers: api.HealthWorkers{Alive: 1}}
	}
	ci := map[string]string{"CI": "true"}
	for _, test := range []struct {
		name   string
		health func(time.Duration) api.Health
		vars   map[string]string
		code   exitCode
		took   time.Duration
		said   int
	}{
		{"a person is told once and goes on waiting", none, nil, exitNotFinished, 10 * time.Minute, 1},
		{"CI gives up after two minutes", none, ci, exitInfrastructure, 2 * time.Minute, 1},
		{"a worker that comes late is waited for", longGone, ci, exitInfrastructure, 2 * time.Minute, 1},
		{"a worker that comes in time is enough", brief, ci, exitNotFinished, 10 * time.Minute, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := waitFor(t, &fakeServer{states: []qgjob.JobState{qgjob.Queued}, health: test.health}, 10*time.Minute, test.vars, nil)
			if r.code != test.code || r.took != test.took {
				t.Errorf("exit code %d after %s, want %d after %s", r.code, r.took, test.code, test.took)
			}
			if said := strings.Count(r.stderr, "No worker has been alive for "); said != test.said {
				t.Errorf("it was said %d times that no worker is alive, want %d:\n%s", said, test.said, r.stderr)
			}
		})
	}
}

func TestCancelStaysFourSecondsAtMost(t *testing.T) {
	stuck := &fakeServer{states: []qgjob.JobState{qgjob.Queued, qgjob.Running}, canceled: func() qgjob.Job {
		return qgjob.Job{ID: waitedID, State: qgjob.Canceling}
	}}
	term := map[time.Duration]os.Signal{time.Minute: syscall.SIGTERM}
	r := waitFor(t, stuck, time.Hour, nil, term)
	if r.code != exitCanceled || r.took > time.Minute+5*time.Second {
		t.Errorf("exit code %d after %s, want 19 within five seconds of the signal at 1m", r.code, r.took)
	}
	contains(t, "stderr", r.stderr, "its device is still stopping")

	twice := map[time.Duration]os.Signal{time.Minute: os.Interrupt, time.Minute + time.Second: os.Interrupt}
	r = waitFor(t, stuck, time.Hour, nil, twice)
	if r.code != exitCanceled || r.took != time.Minute+time.Second {
		t.Errorf("exit code %d after %s, want 19 at the second signal", r.code, r.took)
	}
}

func TestCancelThatDidNotWorkIsNotCanceled(t *testing.T) {
	lost := &fakeServer{states: []qgjob.JobState{qgjob.Queued}, lostAt: 30 * time.Second}
	r := waitFor(t, lost, time.Hour, nil, map[time.Duration]os.Signal{time.Minute: syscall.SIGTERM})
	if r.code != exitInfrastructure || r.took > time.Minute+5*time.Second {
		t.Errorf("exit code %d after %s, want 20 within five seconds of the signal at 1m", r.code, r.took)
	}
	contains(t, "the error", r.message, "could not be canceled and goes on")
}
