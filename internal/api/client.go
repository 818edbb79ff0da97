package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"qgjob"
)

// DefaultPatience is how long a Client without Patience repeats a request that may be repeated.
const DefaultPatience = 5 * time.Second

// fileType is the content type of files on their way.
const fileType = "application/octet-stream"

// requestTimeout is how long one try may take on top of what it asked the server to wait.
const requestTimeout = 30 * time.Second

// Client speaks to a qgjob server. Its methods may be called concurrently; there is one for each operation
// of the OpenAPI document, of the same name.
//
// Errors are *qgjob.Error with the code of the server's answer. A server that cannot be reached is
// CodeUnavailable, wrapping the error of the connection. Requests that can be repeated without harm, which
// is all but Poll, are repeated with growing pauses while the server cannot be reached or is unavailable,
// until Patience or the context ends. When the caller's context is canceled, that is the error.
type Client struct {
	BaseURL string // such as http://127.0.0.1:8000
	Token   string // empty on a loopback server without tokens

	// HTTP makes the requests; nil means a client that all such Clients share. It must have no Timeout:
	// streams and long polls last.
	HTTP *http.Client

	// Patience is how long the server may be gone or unavailable before a request, or a stream that was
	// connected, gives up. Zero means DefaultPatience; a negative one means that nothing is repeated.
	Patience time.Duration
}

// How long a server that took a request is waited for, which may have died: longer where it has a file to store, which
// for one in a bucket begins when all of it is there.
const (
	answerTimeout = 2 * MaxWait
	storeTimeout  = 30 * time.Minute // the largest build at about 1.2 MB/s
)

// NewHTTP returns an HTTP client fit for Client: five seconds to connect, no limit on an answer's length.
func NewHTTP() *http.Client {
	return &http.Client{
		Transport: newTransport(answerTimeout, storeTimeout),
		// The API redirects nowhere; a login page of some proxy is not to be taken for an answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// transport makes requests, and those that upload a file with more patience.
type transport struct{ requests, uploads *http.Transport }

func newTransport(answer, store time.Duration) *transport {
	patient := func(answer time.Duration) *http.Transport {
		return &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout:   5 * time.Second,
			ExpectContinueTimeout: time.Second,
			ResponseHeaderTimeout: answer,
			MaxIdleConnsPerHost:   64,
			IdleConnTimeout:       90 * time.Second,
		}
	}
	return &transport{patient(answer), patient(store)}
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Content-Type") == fileType {
		return t.uploads.RoundTrip(r)
	}
	return t.requests.RoundTrip(r)
}

// CloseIdleConnections is what http.Client calls.
func (t *transport) CloseIdleConnections() {
	t.requests.CloseIdleConnections()
	t.uploads.CloseIdleConnections()
}

var sharedHTTP = NewHTTP()

// request is one call of the API, before it is tried.
type request struct {
	method string
	path   string
	query  url.Values
	header http.Header

	in   any                           // sent as JSON, or:
	open func() (io.ReadCloser, error) // yields the bytes to send, once for each try
	size int64                         // of what open yields

	wait    time.Duration // what the server was asked to wait
	noLimit bool          // the try may take as long as its bytes need
	once    bool          // never repeated
	failing bool          // 503 comes with the same body as 200
}

// call makes a request and decodes its JSON answer into out, which may be nil.
func (c *Client) call(ctx context.Context, r request, out any) error {
	return c.repeat(ctx, r, func(resp *http.Response) error { return decode(resp, out) })
}

// repeat tries a request, and hands the answer to use, until it worked, failed for good, or patience ended.
// use must read the answer; its error is the try's.
func (c *Client) repeat(ctx context.Context, r request, use func(*http.Response) error) error {
	var body []byte
	if r.in != nil {
		var err error
		if body, err = json.Marshal(r.in); err != nil {
			return qgjob.Errorf(qgjob.CodeInternal, "request %s %s cannot be encoded: %w", r.method, r.path, err)
		}
	}
	away := c.newAbsence()
	for {
		began := time.Now()
		err := c.try(ctx, r, body, use)
		if r.noLimit {
			away.since = away.since.Add(time.Since(began)) // its bytes took that long, and not the server's absence
		}
		if err == nil || r.once || qgjob.ErrorCode(err) != qgjob.CodeUnavailable {
			return err
		}
		if !away.pause(ctx) {
			return err
		}
	}
}

// try makes a request once.
func (c *Client) try(ctx context.Context, r request, body []byte, use func(*http.Response) error) error {
	tryCtx := ctx
	if !r.noLimit {
		var cancel context.CancelFunc
		tryCtx, cancel = context.WithTimeout(ctx, requestTimeout+r.wait)
		defer cancel()
	}
	if open := r.open; open != nil {
		moving, stop := context.WithCancelCause(tryCtx)
		defer stop(nil)
		tryCtx = moving
		silence := time.AfterFunc(transferSilence, func() { stop(errSilence) })
		defer silence.Stop()
		r.open = func() (io.ReadCloser, error) {
			file, err := open()
			if err != nil {
				return nil, err
			}
			return &watched{file, silence}, nil
		}
	}
	resp, err := c.send(tryCtx, r, body)
	if err == nil {
		err = use(resp)
		_, _ = io.CopyN(io.Discard, resp.Body, 4096) // so that the connection can be used again
		_ = resp.Body.Close()
	}
	if cause := context.Cause(tryCtx); err != nil && errors.Is(cause, errSilence) {
		err = cause
	}
	return c.translate(ctx, err)
}

// send makes a request once and returns the answer when it is no error. The caller closes its body.
func (c *Client) send(ctx context.Context, r request, body []byte) (*http.Response, error) {
	req, err := c.build(ctx, r, body)
	if err != nil {
		return nil, err
	}
	client := c.HTTP
	if client == nil {
		client = sharedHTTP
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 && !(r.failing && resp.StatusCode == http.StatusServiceUnavailable) {
		defer func() { _ = resp.Body.Close() }()
		return nil, problemError(resp, req)
	}
	return resp, nil
}

func (c *Client) build(ctx context.Context, r request, body []byte) (*http.Request, error) {
	base, err := url.Parse(c.BaseURL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, qgjob.Errorf(qgjob.CodeInvalid, "server URL %q cannot be used: give one such as http://127.0.0.1:8000", c.BaseURL)
	}
	base.RawQuery, base.Fragment = "", ""
	target := strings.TrimSuffix(base.String(), "/") + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, http.NoBody)
	if err != nil {
		return nil, qgjob.Errorf(qgjob.CodeInvalid, "request %s %s cannot be made: %w", r.method, r.path, err)
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	switch {
	case r.in != nil:
		req.Header.Set("Content-Type", "application/json")
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	case r.open != nil:
		req.Header.Set("Content-Type", fileType)
		file, err := r.open()
		if err != nil {
			return nil, qgjob.Errorf(qgjob.CodeInvalid, "the file to send cannot be opened: %w", err)
		}
		req.Body, req.ContentLength, req.GetBody = file, r.size, r.open
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	return req, nil
}

// translate gives errors that are not the server's words their code. What the caller's context says goes first.
func (c *Client) translate(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*qgjob.Error](err); ok {
		return err
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	cause := err
	if u, ok := errors.AsType[*url.Error](err); ok {
		cause = u.Err // without the method and the URL with its query
	}
	if errors.Is(err, errSilence) {
		return qgjob.Errorf(qgjob.CodeUnavailable, "the server at %s: %w for %v", c.BaseURL, errSilence, transferSilence)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return qgjob.Errorf(qgjob.CodeUnavailable, "the server at %s did not answer in time: %w", c.BaseURL, cause)
	}
	return qgjob.Errorf(qgjob.CodeUnavailable, "the server at %s cannot be reached: %w", c.BaseURL, cause)
}

// problemError reads an error answer.
func problemError(resp *http.Response, req *http.Request) error {
	var p Problem
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(data, &p) != nil || p.Code == "" || p.Detail == "" {
		switch { // of HEAD, whose answer has no body
		case resp.StatusCode == http.StatusUnauthorized && req.Header.Get("Authorization") == "":
			return qgjob.Errorf(qgjob.CodeUnauthorized, "the server at %s needs a token: set QGJOB_TOKEN, or ask who runs the server for one", req.URL.Host)
		case resp.StatusCode == http.StatusUnauthorized:
			return qgjob.Errorf(qgjob.CodeUnauthorized, "the server at %s does not know the token: check QGJOB_TOKEN, or ask who runs the server for another", req.URL.Host)
		case resp.StatusCode == http.StatusForbidden:
			return qgjob.Errorf(qgjob.CodeUnauthorized, "the server at %s does not open this to the token: check QGJOB_TOKEN, and that it is one of the organization (--org-id)", req.URL.Host)
		}
		return qgjob.Errorf(CodeOf(resp.StatusCode), "%s %s was answered with %s", req.Method, req.URL.Path, resp.Status)
	}
	return &qgjob.Error{Code: p.Code, Message: p.Detail}
}

// decode reads a JSON answer. An answer cut off is an error of the connection, anything else that is no
// such JSON did not come from a qgjob server.
func decode(resp *http.Response, out any) error {
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, out); err != nil {
		return qgjob.Errorf(qgjob.CodeInternal, "what answered %s does not speak as a qgjob server does: %w", resp.Request.URL.Path, err)
	}
	return nil
}

// absence measures how long the server has been gone and paces the tries meanwhile.
type absence struct {
	patience time.Duration
	since    time.Time
	tries    int
}

func (c *Client) newAbsence() *absence {
	p := c.Patience
	if p == 0 {
		p = DefaultPatience
	}
	return &absence{patience: p, since: time.Now()}
}

// pause waits before the next try: 50 ms at first, doubling to 2 s, with a jitter of half. It returns false
// when there is to be none, because patience or the context has ended or would end meanwhile.
func (a *absence) pause(ctx context.Context) bool {
	d := min(50*time.Millisecond<<min(a.tries, 6), 2*time.Second)
	d = d/2 + rand.N(d/2)
	a.tries++
	if time.Since(a.since)+d > a.patience {
		return false
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// back ends an absence: the server has answered.
func (a *absence) back() { a.since, a.tries = time.Now(), 0 }

func escape(id string) string { return url.PathEscape(id) }

func millis(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }
