package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"qgjob"
	"qgjob/internal/api"
)

const (
	// artifactTime is how long a result, and with it its device, waits for the upload of what the attempt left, and a worker that ends for uploads
	// that go on behind it.
	artifactTime = time.Minute
	// artifactBehind bounds an upload.
	artifactBehind = 10 * time.Minute
)

// artifactSilence is how long a result waits for an upload that does not move: it goes on behind it. Tests have less time.
var artifactSilence = 10 * time.Second

// keepArtifacts uploads what an attempt left in a directory, which it takes away. When the server does not take it now the attempt does not wait: the upload
// goes on behind it for a while. The attempt's log says what could not be kept.
func (a *Agent) keepArtifacts(ctx context.Context, at *attempt, dir string, log io.Writer) {
	left := filepath.Join(a.own.work(), "left-"+filepath.Base(at.AttemptID)) // another attempt's will be in dir
	if err := os.Rename(dir, left); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(log, "[qgjob] what the attempt left is not kept: %v\n", err)
		}
		return
	}
	files, err := gather(left)
	if err != nil {
		fmt.Fprintf(log, "[qgjob] some of what the attempt left could not be packed: %v\n", err)
	}
	var failed []error
	moved, done := newSignal(), make(chan struct{})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), artifactBehind)
	stop := context.AfterFunc(a.uploading, cancel)
	a.uploads.Go(func() {
		defer os.RemoveAll(left)
		defer stop()
		defer cancel()
		failed = a.sendArtifacts(ctx, at, files, moved)
		close(done)
	})
	if !keepsMoving(moved, done) {
		fmt.Fprintf(log, "[qgjob] the server does not take what the attempt left: that is tried for %v more\n", artifactBehind)
		return
	}
	for _, err := range failed {
		fmt.Fprintf(log, "[qgjob] artifact not kept: %v\n", err)
	}
}

// keepsMoving waits for the end of uploads, for as long as they move and not longer than artifactTime.
func keepsMoving(moved signal, done <-chan struct{}) bool {
	silence, limit := time.NewTimer(artifactSilence), time.NewTimer(artifactTime)
	defer silence.Stop()
	defer limit.Stop()
	for {
		select {
		case <-done:
			return true
		case <-moved:
			silence.Reset(artifactSilence)
		case <-silence.C:
			return false
		case <-limit.C:
			return false
		}
	}
}

// sendArtifacts uploads files by name.
func (a *Agent) sendArtifacts(ctx context.Context, at *attempt, files map[string]string, moved signal) (failed []error) {
	var mu sync.Mutex
	var sending sync.WaitGroup
	for name, path := range files {
		sending.Go(func() {
			if err := a.sendArtifact(ctx, at, name, path, moved); err != nil {
				a.o.Logger.Warn("an artifact could not be kept", "attempt", at.AttemptID, "name", name, "error", err)
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	sending.Wait()
	return failed
}

func (a *Agent) sendArtifact(ctx context.Context, at *attempt, name, path string, moved signal) error {
	file, err := describe(path)
	if err != nil {
		return err
	}
	if file.Size > api.MaxArtifact {
		return fmt.Errorf("it has %d bytes: at most %d are kept", file.Size, int64(api.MaxArtifact))
	}
	var furthest atomic.Int64
	open := file.Open
	file.Open = func() (io.ReadCloser, error) {
		r, err := open()
		return &moving{ReadCloser: r, furthest: &furthest, moved: moved}, err
	}
	for tries := 0; ; tries++ {
		_, err := a.client.AddArtifact(ctx, at.Lease, name, file)
		if qgjob.ErrorCode(err) != qgjob.CodeUnavailable || ctx.Err() != nil {
			return err
		}
		pause(ctx, backoff(tries))
	}
}

// moving is a file that tells when more of it was read than by any try before.
type moving struct {
	io.ReadCloser
	at       int64
	furthest *atomic.Int64
	moved    signal
}

func (m *moving) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	if m.at += int64(n); m.at > m.furthest.Load() {
		m.furthest.Store(m.at)
		m.moved.set()
	}
	return n, err
}

// endUploads waits for uploads that go on behind their attempts, not for long, and ends them.
func (a *Agent) endUploads() {
	over := make(chan struct{})
	a.loops.Go(func() {
		a.uploads.Wait()
		close(over)
	})
	limit := time.NewTimer(artifactTime)
	defer limit.Stop()
	select {
	case <-over:
	case <-limit.C:
	case <-a.kill:
	}
	a.stopUploads()
}
