package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"qgjob"
)

// Rhythm of server-sent events: the server sends a comment when there is nothing else to send, and a client
// that hears nothing at all takes the connection for dead.
const (
	StreamHeartbeat = 10 * time.Second
	streamSilence   = 3 * StreamHeartbeat
)

// maxEventLine bounds a line of a stream: a Queue with many lanes is the longest.
const maxEventLine = 16 << 20

// errStreamEnded is how a stream ends that the server closed: it is shutting down, or done.
var errStreamEnded = errors.New("the server ended the stream")

// watch opens a stream of server-sent events and calls f with the data of each, until f is done or fails.
// open makes the request, anew for each connection.
func (c *Client) watch(ctx context.Context, open func() request, f func(data []byte) (done bool, err error)) error {
	away := c.newAbsence()
	for {
		done, err := c.watchOnce(ctx, open(), away, f)
		if done || qgjob.ErrorCode(err) != qgjob.CodeUnavailable {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !away.pause(ctx) {
			return err
		}
	}
}

// watchOnce reads one connection to its end. done says that f wants no more or failed.
func (c *Client) watchOnce(ctx context.Context, r request, away *absence, f func([]byte) (bool, error)) (done bool, err error) {
	connCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(streamSilence, func() { cancel(context.DeadlineExceeded) })
	defer silence.Stop()

	r.header = http.Header{"Accept": {"text/event-stream"}}
	resp, err := c.send(connCtx, r, nil)
	if err != nil {
		return false, c.translate(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusNoContent {
		return true, nil // nothing will ever follow
	}
	err = readEvents(resp.Body, func() { away.back(); silence.Reset(streamSilence) }, func(data []byte) error {
		var err error
		if done, err = f(data); err != nil {
			done = true
			return err
		}
		if done {
			return errStreamEnded
		}
		return nil
	})
	switch {
	case done && errors.Is(err, errStreamEnded):
		return true, nil
	case done:
		return true, err
	}
	return false, c.translate(ctx, err)
}

// readEvents reads server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) as
// far as a qgjob server uses them: it calls heard at each line, and event with the data of each event. It
// returns the error of event or of the connection, and errStreamEnded at the stream's end.
func readEvents(r io.Reader, heard func(), event func(data []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxEventLine)
	var data []byte
	for lines.Scan() {
		heard()
		line := lines.Bytes()
		if value, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, bytes.TrimPrefix(value, []byte(" "))...)
			continue
		}
		if len(line) > 0 || data == nil {
			continue // a comment, another field, or the end of an event without data
		}
		if err := event(data); err != nil {
			return err
		}
		data = nil
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errStreamEnded
}

// FollowLog writes the log of one attempt to w from its start, as it grows, until the attempt has ended. It
// returns the attempt's number. Attempt 0 is the newest one, or the first one of a job that has none yet.
func (c *Client) FollowLog(ctx context.Context, jobID string, attempt int, w io.Writer) (int, error) {
	offset := int64(0)
	for {
		chunk, err := c.Log(ctx, jobID, attempt, offset, 20*time.Second)
		if err != nil {
			return attempt, err
		}
		if _, err := w.Write(chunk.Data); err != nil {
			return attempt, err
		}
		attempt, offset = chunk.Attempt, chunk.Next
		if chunk.Ended {
			return attempt, nil
		}
	}
}

// readLog reads the answer to a request for a log.
func readLog(resp *http.Response) (LogChunk, error) {
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return LogChunk{}, err
	}
	attempt, errAttempt := strconv.Atoi(resp.Header.Get(LogAttemptHeader))
	next, errNext := strconv.ParseInt(resp.Header.Get(LogNextHeader), 10, 64)
	if err := errors.Join(errAttempt, errNext); err != nil {
		return LogChunk{}, qgjob.Errorf(qgjob.CodeInternal, "what answered does not speak as a qgjob server does: %w", err)
	}
	return LogChunk{Attempt: attempt, Next: next, Ended: resp.Header.Get(LogEndedHeader) == "true", Data: data}, nil
}
