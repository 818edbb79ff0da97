package server_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/blob"
	"qgjob/internal/server"
	"qgjob/internal/store"
	"qgjob/internal/store/pgtest"
)

// postgres is the PostgreSQL of this run of the tests, started by the first that needs one.
var postgres = sync.OnceValues(func() (*pgtest.Cluster, error) {
	postgresStarted = true
	return pgtest.Start(context.Background())
})

var postgresStarted bool

func TestMain(m *testing.M) {
	code := m.Run()
	var err error
	if postgresStarted {
		if cluster, failed := postgres(); failed == nil {
			err = cluster.Stop()
		}
	}
	err = errors.Join(err, goleak.Find())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// onEachStore runs a test over a server with a fresh store, of each kind.
func onEachStore(t *testing.T, test func(t *testing.T, r *running)) {
	t.Run("sqlite", func(t *testing.T) { test(t, start(t)) })
	t.Run("postgresql", func(t *testing.T) { test(t, serve(t, openPostgres(t, postgresURL(t)))) })
}

// postgresURL names an empty database.
func postgresURL(t *testing.T) string {
	t.Helper()
	cluster, err := postgres()
	if err != nil {
		t.Fatal(err)
	}
	url, err := cluster.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return url
}

func openPostgres(t *testing.T, url string) *store.Store {
	t.Helper()
	return openStore(t, store.Options{DatabaseURL: url, Logger: slog.New(slog.DiscardHandler)})
}

// openSQLite opens a store of the test's own.
func openSQLite(t testing.TB, path string) *store.Store {
	t.Helper()
	return openStore(t, store.Options{Path: path, Logger: slog.New(slog.DiscardHandler)})
}

func openStore(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	st, err := store.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// running is a server that really listens, with a client of it.
type running struct {
	*api.Client
	t      *testing.T
	store  *store.Store
	server *server.Server
	files  string       // directory of bundles and builds
	stop   func() error // shuts the server down and returns what Serve returned; again: the same
}

// serve starts a server over the store.
func serve(t *testing.T, st *store.Store, tokens ...server.Token) *running {
	t.Helper()
	return serveAt(t, st, "127.0.0.1:0", tokens...)
}

func serveAt(t *testing.T, st *store.Store, addr string, tokens ...server.Token) *running {
	t.Helper()
	files := filepath.Join(t.TempDir(), "blobs")
	blobs, err := blob.OpenDir(files)
	if err != nil {
		t.Fatal(err)
	}
	r := serveOver(t, st, blobs, addr, tokens...)
	r.files = files
	return r
}

// serveOver starts a server over a store of jobs and one of files.
func serveOver(t *testing.T, st *store.Store, blobs blob.Store, addr string, tokens ...server.Token) *running {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Options{SecretKey: server.NewSecretKey(), Store: st, Blobs: blobs, Version: "test", Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Tokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.TakeSecrets(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var result error
	go func() {
		defer close(ended)
		result = s.Serve(ctx, l)
	}()
	stop := func() error {
		cancel()
		<-ended
		return result
	}
	r := &running{t: t, store: st, server: s, stop: stop, Client: &api.Client{BaseURL: "http://" + l.Addr().String(), HTTP: api.NewHTTP()}}
	t.Cleanup(func() {
		r.HTTP.CloseIdleConnections()
		if err := stop(); err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	return r
}

// start starts a server over a fresh SQLite store.
func start(t *testing.T, tokens ...server.Token) *running {
	t.Helper()
	return serve(t, openSQLite(t, filepath.Join(t.TempDir(), "q.db")), tokens...)
}

// untilReceiving returns when the server has begun to store an upload.
func (r *running) untilReceiving() {
	r.t.Helper()
	for {
		entries, err := os.ReadDir(filepath.Join(r.files, "tmp"))
		if err != nil {
			r.t.Fatal(err)
		}
		if len(entries) > 0 {
			return
		}
	}
}

// untilRefusing returns when the server takes no new connections.
func (r *running) untilRefusing() {
	for {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.BaseURL, "http://"))
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

// submit submits one job and returns its id.
func (r *running) submit(spec string) string {
	r.t.Helper()
	run, err := r.Submit(r.t.Context(), api.SubmitRequest{OrgID: "acme", AppVersionID: "v1", Jobs: []api.JobSpec{{TestPath: spec}}})
	if err != nil {
		r.t.Fatal(err)
	}
	return run.Jobs[0].ID
}

// answer is an answer as it came over the wire.
type answer struct {
	status int
	header http.Header
	body   string
}

// problem is the answer as the error that it must be.
func (a answer) problem(t *testing.T) api.Problem {
	t.Helper()
	var p api.Problem
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("content type %q, want application/problem+json: %s", ct, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	if p.Status != a.status || p.Code == "" || p.Detail == "" || p.Title == "" {
		t.Errorf("status %d with incomplete problem %s", a.status, a.body)
	}
	return p
}

// do makes a request as curl would. Headers are name, value, name, value.
func (r *running) do(method, path, body string, headers ...string) answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.BaseURL+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := r.HTTP.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

func (r *running) post(path, body string) answer {
	r.t.Helper()
	return r.do(http.MethodPost, path, body, "Content-Type", "application/json")
}

// worker is a worker as it speaks to a server, without phones.
type worker struct {
	*running
	id  string
	seq int64
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// newWorker registers a worker with phones of the given serials.
func (r *running) newWorker(serials ...string) *worker {
	r.t.Helper()
	w := &worker{running: r, id: newUUID()}
	answer, err := r.Register(r.t.Context(), w.id, api.RegisterRequest{Host: "desk", Version: "test", Devices: phones(serials...)})
	if err != nil {
		r.t.Fatal(err)
	}
	if len(answer.Refused) > 0 || answer.LeaseMS <= 0 || answer.HeartbeatMS <= 0 || answer.HeartbeatMS > answer.LeaseMS/3 {
		r.t.Fatalf("registered: %+v", answer)
	}
	return w
}

func phones(serials ...string) []api.DeviceReport {
	var devices []api.DeviceReport
	for _, s := range serials {
		devices = append(devices, api.DeviceReport{ID: s, Serial: s, Kind: qgjob.TargetDevice, Platform: "android", Model: "Pixel", OSVersion: "14", State: qgjob.DeviceIdle})
	}
	return devices
}

// ask polls for work for the free devices.
func (w *worker) ask(wait time.Duration, free ...string) (api.PollResponse, error) {
	w.seq++
	return w.Poll(w.t.Context(), w.id, api.PollRequest{Seq: w.seq, WaitMS: wait.Milliseconds(), Devices: free})
}

// take polls until it gets one assignment.
func (w *worker) take(free ...string) api.Assignment {
	w.t.Helper()
	answer, err := w.ask(10*time.Second, free...)
	if err != nil || len(answer.Assignments) != 1 {
		w.t.Fatalf("poll = %+v, %v; want one assignment", answer, err)
	}
	return answer.Assignments[0]
}

// report hands in a result and returns what became of it.
func (w *worker) report(l api.Lease, r qgjob.Result) api.ResultAnswer {
	w.t.Helper()
	w.seq++
	answer, err := w.Poll(w.t.Context(), w.id, api.PollRequest{Seq: w.seq, Results: []api.AttemptResult{{Lease: l, Result: r}}})
	if err != nil || len(answer.Results) != 1 || answer.Results[0].AttemptID != l.AttemptID {
		w.t.Fatalf("poll with a result = %+v, %v", answer, err)
	}
	return answer.Results[0]
}

var (
	passed = qgjob.Result{Outcome: qgjob.OutcomePassed, Report: qgjob.Report{Tests: []qgjob.TestResult{{Title: "buys", Status: qgjob.TestPassed}}, Installed: true, InstallMS: 1200}}
	failed = qgjob.Result{Outcome: qgjob.OutcomeFailed, Cause: qgjob.CauseTestFailed, Message: "no such element"}
)

func fileOf(data string) api.File {
	sum := sha256.Sum256([]byte(data))
	return api.File{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(data)), nil
	}}
}
