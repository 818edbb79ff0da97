package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"qgjob"
)

// transferSilence is how long a transfer may stand still before its connection is given up. Tests have less time.
var transferSilence = time.Minute

var errSilence = errors.New("the transfer stood still")

// download is a file on its way from the server. When its connection breaks off, or stands still, the rest is asked for on another
// one, for as long as the client is patient. One goroutine reads it.
type download struct {
	c       *Client
	ctx     context.Context
	request request
	away    *absence

	body    io.ReadCloser   // nil between two connections
	conn    context.Context // of the connection
	cancel  context.CancelCauseFunc
	silence *time.Timer // ends the connection

	tag   string // of the file that the first connection brought
	have  int64  // bytes that were read
	moved bool   // some of them on this connection
}

// download opens a file for reading.
func (c *Client) download(ctx context.Context, path string, query url.Values, leaseToken string) (io.ReadCloser, error) {
	d := &download{c: c, ctx: ctx, request: request{method: http.MethodGet, path: path, query: query, header: http.Header{}}, away: c.newAbsence()}
	if leaseToken != "" {
		d.request.header.Set(LeaseTokenHeader, leaseToken)
	}
	for {
		err := d.connect()
		if err == nil {
			return d, nil
		}
		if !d.again(err) {
			return nil, err
		}
	}
}

// connect asks for what is still to be read.
func (d *download) connect() error {
	ctx, cancel := context.WithCancelCause(d.ctx)
	r := d.request
	if d.have > 0 {
		r.header = r.header.Clone()
		r.header.Set("Range", fmt.Sprintf("bytes=%d-", d.have))
		if d.tag != "" {
			r.header.Set("If-Range", d.tag)
		}
	}
	resp, err := d.c.send(ctx, r, nil)
	if err != nil {
		cancel(nil)
		return d.c.translate(d.ctx, err)
	}
	d.body, d.conn, d.cancel = resp.Body, ctx, cancel
	d.silence = time.AfterFunc(transferSilence, func() { cancel(errSilence) })
	tag := resp.Header.Get("ETag")
	switch {
	case d.have == 0:
		d.tag = tag
	case tag != d.tag:
		d.disconnect()
		return qgjob.Errorf(qgjob.CodeConflict, "%s is another file than when its download began: download it again", r.path)
	case resp.StatusCode != http.StatusPartialContent: // something between does not know of ranges
		if _, err := io.CopyN(io.Discard, d.body, d.have); err != nil {
			return d.broken(err)
		}
	case !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", d.have)):
		d.disconnect()
		return qgjob.Errorf(qgjob.CodeInternal, "what answered %s does not speak as a qgjob server does: it sent %q of a file, where the bytes from %d on were asked for", r.path, resp.Header.Get("Content-Range"), d.have)
	}
	d.silence.Stop()
	return nil
}

func (d *download) disconnect() {
	if d.body != nil {
		d.silence.Stop()
		d.cancel(nil)
		_ = d.body.Close()
		d.body = nil
	}
}

// broken ends a connection that broke off, and says why it did. A file that moved on meanwhile was not away.
func (d *download) broken(err error) error {
	if cause := context.Cause(d.conn); errors.Is(cause, errSilence) {
		err = cause
	}
	if d.moved {
		d.away.back()
	}
	d.moved = false
	d.disconnect()
	return d.c.translate(d.ctx, err)
}

// again waits before another connection, when there is to be one.
func (d *download) again(err error) bool {
	return qgjob.ErrorCode(err) == qgjob.CodeUnavailable && d.away.pause(d.ctx)
}

func (d *download) Read(p []byte) (int, error) {
	for {
		if d.body == nil {
			if err := d.connect(); err != nil {
				if d.again(err) {
					continue
				}
				return 0, err
			}
		}
		d.silence.Reset(transferSilence)
		n, err := d.body.Read(p)
		d.silence.Stop()
		d.have += int64(n)
		d.moved = d.moved || n > 0
		if err == nil || errors.Is(err, io.EOF) {
			return n, err
		}
		if err = d.broken(err); n > 0 {
			return n, nil // the next one connects anew
		}
		if !d.again(err) {
			return 0, err
		}
	}
}

func (d *download) Close() error {
	d.disconnect()
	return nil
}

// watched is a file on its way to the server. Its connection is given up when the server takes no more of it.
type watched struct {
	io.ReadCloser
	silence *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil {
		w.silence.Stop() // what the server does with the whole file takes its own time
	} else {
		w.silence.Reset(transferSilence)
	}
	return n, err
}

func (w *watched) Close() error {
	w.silence.Stop()
	return w.ReadCloser.Close()
}
