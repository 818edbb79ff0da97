package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/api"
)

const (
	logChunk = 256 << 10
	// logEvery is how often an attempt's output is sent while it grows.
	logEvery = 250 * time.Millisecond
	// logKept is how much of an attempt's output is kept: more than the server takes, so that it can say that there was more.
	logKept = api.MaxLogSize + logChunk
	// logFlush is how long the end of an attempt waits for its output to be sent.
	logFlush = 15 * time.Second
)

// logStream is the output of one attempt on its way to the server. Writing to it never waits for the
// network: the bytes go to a file, from which one goroutine sends them in order, as often as it takes.
type logStream struct {
	client *api.Client
	lease  api.Lease
	logger *slog.Logger
	grown  signal
	sent   chan struct{} // closed when all of a finished log is sent, or the server wants no more

	mu       sync.Mutex
	file     *os.File
	size     int64
	finished bool
}

// newLogStream begins a log whose bytes are kept at path until close.
func newLogStream(client *api.Client, lease api.Lease, path string, logger *slog.Logger) (*logStream, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &logStream{client: client, lease: lease, logger: logger, file: file, grown: newSignal(), sent: make(chan struct{})}, nil
}

// Write keeps p for sending. It never fails: a test does not end because its output cannot be kept.
func (l *logStream) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := logKept - l.size; int64(len(p)) <= room && !l.finished {
		n, err := l.file.WriteAt(p, l.size)
		if err != nil {
			l.logger.Warn("output of an attempt could not be kept", "attempt", l.lease.AttemptID, "error", err)
		}
		l.size += int64(n)
		l.grown.set()
	}
	return len(p), nil
}

// send sends what is written until all of it is sent after finish, the server wants no more, or ctx ends.
func (l *logStream) send(ctx context.Context) {
	defer close(l.sent)
	var offset int64
	for {
		chunk, finished := l.next(offset)
		if len(chunk) == 0 {
			if finished {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-l.grown:
			}
			l.gather(ctx)
			continue
		}
		if !l.deliver(ctx, offset, chunk) {
			return
		}
		offset += int64(len(chunk))
	}
}

// gather lets more output come together before it is sent, unless there is none to come.
func (l *logStream) gather(ctx context.Context) {
	l.mu.Lock()
	finished := l.finished
	l.mu.Unlock()
	if !finished {
		pause(ctx, logEvery)
	}
}

// next reads what is to be sent from offset on.
func (l *logStream) next(offset int64) (chunk []byte, finished bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	chunk = make([]byte, min(logChunk, l.size-offset))
	n, err := l.file.ReadAt(chunk, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		l.logger.Warn("output of an attempt could not be read back", "attempt", l.lease.AttemptID, "error", err)
		return nil, true
	}
	return chunk[:n], l.finished
}

// deliver sends one chunk, as often as it takes. It is false when the server wants no more, or ctx ends.
func (l *logStream) deliver(ctx context.Context, offset int64, chunk []byte) bool {
	for tries := 0; ; tries++ {
		_, err := l.client.AppendLog(ctx, l.lease, offset, chunk)
		switch {
		case err == nil:
			return true
		case ctx.Err() != nil:
			return false
		}
		switch qgjob.ErrorCode(err) {
		case qgjob.CodeUnavailable, qgjob.CodeInternal:
			pause(ctx, backoff(tries))
		default:
			l.logger.Warn("the server takes no more output of an attempt", "attempt", l.lease.AttemptID, "error", err)
			return false
		}
	}
}

// finish takes no more output and waits until all is sent, the server wants no more, or ctx ends.
func (l *logStream) finish(ctx context.Context) {
	l.mu.Lock()
	l.finished = true
	l.mu.Unlock()
	l.grown.set()
	select {
	case <-l.sent:
	case <-ctx.Done():
	}
}

// close gives up the kept bytes, once send has returned.
func (l *logStream) close() {
	l.file.Close()
	os.Remove(l.file.Name())
}
