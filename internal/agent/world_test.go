package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
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
)

// world is a real server over a real database, with a network to it that can be cut.
type world struct {
	t      *testing.T
	client *api.Client // past the network that can be cut
	url    string
	files  *files
}

// files is a server's store of files, which can be made to take no artifacts, as a bucket that does not answer.
type files struct {
	blob.Store
	mu     sync.Mutex
	closed chan struct{} // nil while it takes them
}

func (f *files) Put(ctx context.Context, k blob.Key, r io.Reader, limit int64, check func(string) error) (blob.Info, error) {
	f.mu.Lock()
	closed := f.closed
	f.mu.Unlock()
	if closed != nil && k.Kind == blob.Artifact {
		select {
		case <-closed:
		case <-ctx.Done():
			return blob.Info{}, ctx.Err()
		}
	}
	return f.Store.Put(ctx, k, r, limit, check)
}

// close takes no artifacts until open is called.
func (f *files) close() (open func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	closed := make(chan struct{})
	f.closed = closed
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.closed = nil
		close(closed)
	})
}

func newWorld(t *testing.T, lease time.Duration) *world {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	dir := t.TempDir()
	db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "qgjob.db"), Lease: lease})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := blob.OpenDir(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	blobs := &files{Store: stored}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Options{SecretKey: server.NewSecretKey(), Store: db, Blobs: blobs, Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.TakeSecrets(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, listener) }()
	w := &world{t: t, url: "http://" + listener.Addr().String(), files: blobs}
	transport := api.NewHTTP()
	w.client = &api.Client{BaseURL: w.url, HTTP: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		if err := errors.Join(<-served, db.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

// wire is a worker's network.
type wire struct {
	client *http.Client

	mu   sync.Mutex
	down bool
	cuts map[*http.Request]context.CancelFunc

	paths []string // asked for
}

func (n *wire) count(prefix string) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, path := range n.paths {
		if strings.HasPrefix(path, prefix) {
			count++
		}
	}
	return count
}

func (n *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	n.mu.Lock()
	if n.down {
		n.mu.Unlock()
		cancel()
		return nil, errors.New("network is unreachable")
	}
	n.cuts[r] = cancel
	n.paths = append(n.paths, r.URL.Path)
	n.mu.Unlock()
	resp, err := n.client.Transport.RoundTrip(r.WithContext(ctx))
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cuts, r)
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = body{resp.Body, cancel}
	return resp, nil
}

type body struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b body) Close() error { defer b.cancel(); return b.ReadCloser.Close() }

func (n *wire) set(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
	for _, cut := range n.cuts {
		if down {
			cut()
		}
	}
}

// worker is a running agent.
type worker struct {
	*Agent
	t    *testing.T
	wire *wire
	out  *output
	stop context.CancelFunc
	done chan error
}

func (w *world) start(o Options) *worker {
	w.t.Helper()
	k := &worker{t: w.t, wire: &wire{client: api.NewHTTP(), cuts: map[*http.Request]context.CancelFunc{}}, out: newOutput(), done: make(chan error, 1)}
	o.Client, o.Out = &api.Client{BaseURL: w.url, HTTP: &http.Client{Transport: k.wire}}, k.out
	if o.DataDir == "" {
		o.DataDir = w.t.TempDir()
	}
	switch o.ProjectDir {
	case "":
		o.ProjectDir = projectDir(w.t)
	case noProject:
		o.ProjectDir = ""
	}
	if o.IdleWait == 0 {
		o.IdleWait = 50 * time.Millisecond
	}
	var err error
	if k.Agent, err = New(o); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	k.stop = cancel
	go func() { k.done <- k.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		k.Kill()
		k.wire.set(false)
		select {
		case <-k.done:
		case <-time.After(patience):
			w.t.Errorf("the worker did not end; it printed:\n%s", k.out)
		}
		k.wire.client.CloseIdleConnections()
	})
	return k
}

// noProject starts a worker outside of any test project.
const noProject = "none"

// end waits for the worker's own end.
func (k *worker) end() error {
	k.t.Helper()
	err := receive(k.t, k.done)
	k.done <- err
	return err
}

func (w *world) submit(spec string, priority int) string {
	w.t.Helper()
	run, err := w.client.Submit(w.t.Context(), api.SubmitRequest{
		OrgID: "qualgent", AppVersionID: "xyz123", Jobs: []api.JobSpec{{TestPath: spec, Priority: &priority}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return run.Jobs[0].ID
}

func (w *world) job(id string) api.JobDetail {
	w.t.Helper()
	job, err := w.client.Job(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return job
}

// verdict waits for a job's.
func (w *world) verdict(id string) api.JobDetail {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := w.client.WatchJob(ctx, id, 0, func(qgjob.Event) error { return nil }); err != nil {
		w.t.Fatalf("job %s came to no verdict: %v; it is %+v", id, err, w.job(id))
	}
	return w.job(id)
}

func states(j api.JobDetail) string {
	var words []string
	for _, e := range j.Events {
		words = append(words, string(e.Trigger))
	}
	return strings.Join(words, " ")
}
