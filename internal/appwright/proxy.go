package appwright

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"qgjob"
)

const (
	// maxSessionRequest and maxErrorBody bound what the proxy reads into memory.
	maxSessionRequest = 4 << 20
	maxErrorBody      = 256 << 10
	// createGrace is how long a session that is being made when the run ends may take to appear, so that
	// it can be deleted.
	createGrace = 20 * time.Second
	// deleteGrace bounds the deletion of a session.
	deleteGrace = 15 * time.Second
	// createTries is how often one run asks Appium for a session that it keeps refusing for a reason not
	// known to be final.
	createTries = 2
)

// proxy stands between AppWright and the device's Appium server for one run. It forces the worker's
// capabilities into each session, makes one session at a time, ends those that the test left open, answers
// at once what is known to be lost, and remembers what it saw.
type proxy struct {
	upstream *url.URL
	forced   map[string]any // capabilities
	app      App
	ready    <-chan struct{} // nil: the device is ready
	park     bool            // sessions may be handed on
	silence  time.Duration   // after which watch ends the run
	watch    atomic.Pointer[time.Timer]
	begun    func() // called once, when the first session is there; may be nil
	logf     func(format string, args ...any)

	server   http.Server
	listener net.Listener
	forward  *httputil.ReverseProxy
	served   chan error
	life     context.Context // of the requests that outlive their client
	end      context.CancelFunc
	creating chan struct{} // holds a token while a session is being made
	cloud    *cloudFront   // nil where the sessions are not made on a cloud

	mu       sync.Mutex
	evidence Evidence
	open     map[string]int         // session id: index into evidence.Sessions
	real     map[string]string      // Appium's ids of sessions that were handed on under another
	alias    map[string]string      // the other way round, the latest
	keepable map[string]*Parked     // open sessions that may be handed on
	parked   *Parked                // waits for its next test; nil when none does
	lost     map[string]*Failure    // sessions that cannot come back
	refused  *Failure               // why no session can be made, once that is known
	refusals int                    // how often in a row
	pending  map[int]PendingCommand // commands that are not answered yet
	commands int                    // number of the last command
}

// startProxy listens on a loopback port of its own.
func (r Run) startProxy(logf func(string, ...any)) (*proxy, error) {
	upstream, app := r.Upstream, r.App
	target, err := url.Parse(upstream.URL)
	if err != nil || target.Host == "" {
		return nil, fmt.Errorf("the Appium server's address %q is no URL", upstream.URL)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if upstream.Cloud {
		app = App{}
	}
	p := &proxy{
		upstream: target, forced: upstream.Capabilities, app: app, ready: r.Ready, logf: logf,
		silence: r.Silence, park: r.HandOn, parked: r.Parked, begun: r.Session,
		listener: listener, served: make(chan error, 1), creating: make(chan struct{}, 1),
		open: map[string]int{}, lost: map[string]*Failure{}, pending: map[int]PendingCommand{},
		real: map[string]string{}, alias: map[string]string{}, keepable: map[string]*Parked{},
	}
	p.life, p.end = context.WithCancel(context.Background())
	p.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = target.Host
			p.rename(r.Out.URL)
		},
		Transport:      &http.Transport{DisableCompression: true}, // never through an HTTP proxy of the host
		ModifyResponse: p.observe,
		ErrorHandler:   p.unreachable,
	}
	p.server.Handler = p
	go func() { p.served <- p.server.Serve(listener) }()
	return p, nil
}

func (p *proxy) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// close ends the proxy after the runner has ended: it waits for a session that is still being made, deletes
// every session that is open, and returns what was seen. Nothing runs on afterwards and the port is free.
func (p *proxy) close() Evidence {
	if p.cloud != nil {
		p.cloud.close()
	}
	grace, cancel := context.WithTimeout(p.life, createGrace)
	defer cancel()
	if p.server.Shutdown(grace) != nil {
		p.end()
		p.server.Close()
	}
	<-p.served
	select { // a handler may still be giving up
	case p.creating <- struct{}{}:
	case <-time.After(deleteGrace):
	}
	p.mu.Lock()
	left := make([]string, 0, len(p.open))
	for id := range p.open {
		left = append(left, id)
	}
	p.mu.Unlock()
	for _, id := range left {
		p.delete(context.WithoutCancel(p.life), id, "left open by the test")
	}
	p.end()
	p.forward.Transport.(*http.Transport).CloseIdleConnections()
	return p.snapshot()
}

// snapshot copies the evidence as it is now.
func (p *proxy) snapshot() Evidence {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.evidence
	e.Sessions = slices.Clone(e.Sessions)
	e.Errors = slices.Clone(e.Errors)
	e.Commands = p.commands
	for _, command := range p.pending {
		e.Unanswered = append(e.Unanswered, command)
	}
	return e
}

// moved notes that something happens in the run.
func (p *proxy) moved() {
	if watch := p.watch.Load(); watch != nil {
		watch.Reset(p.silence)
	}
}

// Write is told of the run's output, which counts as something that happens.
func (p *proxy) Write(b []byte) (int, error) {
	p.moved()
	return len(b), nil
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.moved()
	defer p.moved()
	path := strings.TrimSuffix(r.URL.Path, "/")
	if r.Method == http.MethodPost && path == "/session" {
		p.create(w, r)
		return
	}
	id, command := splitSession(path)
	if id == "" {
		p.forward.ServeHTTP(w, r)
		return
	}
	ending := r.Method == http.MethodDelete && command == ""
	failure := p.lostSession(id)
	if failure == nil && p.endedByTest(id) {
		failure = &Failure{Message: "session " + id + " was ended by the test"}
	}
	if failure != nil && !ending {
		p.record(CommandError{Method: r.Method, Command: command, SessionID: id, Code: codeInvalidSession, Message: failure.Message, Cause: failure.Cause})
		// webdriver repeats a failed request up to sixteen times, unless the text says "invalid session id".
		writeError(w, http.StatusNotFound, codeInvalidSession, failure.Message+" (invalid session id)")
		return
	}
	if err := p.regard(id, command, r); err != nil {
		writeError(w, http.StatusBadRequest, codeInvalidArgument, fmt.Sprintf("the command cannot be read: %v", err))
		return
	}
	if ending && p.keep(id) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		io.WriteString(w, `{"value":null}`)
		return
	}
	answered := p.sent(PendingCommand{Method: r.Method, Command: command, SessionID: id, SentAt: time.Now()})
	defer func() { answered(r.Context().Err() == nil) }()
	p.forward.ServeHTTP(w, r)
}

// sent notes a command that is on its way, and returns what to call when it is over: answered, or given up
// by its client.
func (p *proxy) sent(command PendingCommand) func(answered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commands++
	number := p.commands
	p.pending[number] = command
	return func(answered bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if answered {
			delete(p.pending, number)
			return
		}
		command.GivenUpAt = time.Now()
		p.pending[number] = command
	}
}

// splitSession takes /session/ID/element/X/click apart into the session and the command.
func splitSession(path string) (id, command string) {
	rest, ok := strings.CutPrefix(path, "/session/")
	if !ok {
		return "", ""
	}
	id, command, _ = strings.Cut(rest, "/")
	return id, command
}

// rename puts Appium's own id of a session into the address of a command.
func (p *proxy) rename(address *url.URL) {
	id, command := splitSession(strings.TrimPrefix(address.Path, p.upstream.Path))
	p.mu.Lock()
	real, renamed := p.real[id]
	p.mu.Unlock()
	if !renamed {
		return
	}
	address.RawPath = ""
	address.Path = strings.TrimSuffix(p.upstream.Path, "/") + "/session/" + real
	if command != "" {
		address.Path += "/" + command
	}
}

// known is the name by which the test knows a session of Appium's.
func (p *proxy) known(real string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id, ok := p.alias[real]; ok {
		return id
	}
	return real
}

// observe looks at Appium's answers: what failed, and which session ended.
func (p *proxy) observe(answer *http.Response) error {
	id, command := splitSession(strings.TrimPrefix(answer.Request.URL.Path, p.upstream.Path))
	if id == "" {
		return nil
	}
	id = p.known(id)
	ending := answer.Request.Method == http.MethodDelete && command == ""
	if ending && (answer.StatusCode < 400 || answer.StatusCode == http.StatusNotFound) {
		p.ended(id, "")
	}
	if answer.StatusCode < 400 {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxErrorBody))
	answer.Body.Close()
	answer.Body = io.NopCloser(bytes.NewReader(body))
	answer.ContentLength = int64(len(body))
	answer.Header.Set("Content-Length", fmt.Sprint(len(body)))
	if err != nil {
		return err
	}
	code, message := readError(body)
	seen := CommandError{Method: answer.Request.Method, Command: command, SessionID: id, Code: code, Message: message}
	seen.Cause = commandCause(code, message)
	if code == codeInvalidSession && p.endedByTest(id) {
		seen.Cause = "" // the test ended it, or began another on the same device
	}
	p.record(seen)
	if seen.Cause != "" && !ending {
		p.lose(id, &Failure{Cause: seen.Cause, Message: message})
	}
	return nil
}

// unreachable answers a command that did not reach Appium, or whose answer never came.
func (p *proxy) unreachable(w http.ResponseWriter, r *http.Request, err error) {
	id, command := splitSession(strings.TrimSuffix(r.URL.Path, "/"))
	if errors.Is(err, context.Canceled) || r.Context().Err() != nil {
		w.WriteHeader(http.StatusBadGateway) // the client has left; nobody reads this
		return
	}
	failure := failuref(qgjob.CauseAppiumDied, "the Appium server at %s does not answer: %w", p.upstream.Host, err)
	p.record(CommandError{Method: r.Method, Command: command, SessionID: id, Code: codeUnknown, Message: failure.Message, Cause: failure.Cause})
	if id != "" {
		p.lose(id, failure)
	}
	writeError(w, http.StatusNotFound, codeInvalidSession, failure.Message+" (invalid session id)")
}

func (p *proxy) record(e CommandError) {
	e.At = time.Now()
	p.mu.Lock()
	p.evidence.add(e)
	p.mu.Unlock()
}

func (p *proxy) lose(id string, failure *Failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost[id] == nil {
		p.lost[id] = failure
		p.logf("session %s is lost: %s", id, failure.Message)
	}
}

func (p *proxy) lostSession(id string) *Failure {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost[id]
}

// ended notes the end of a session. by says who ended it when that was not the test.
func (p *proxy) ended(id, by string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok := p.open[id]
	if !ok {
		return
	}
	delete(p.open, id)
	p.evidence.Sessions[i].EndedAt = time.Now()
	p.evidence.Sessions[i].EndedBy = by
}

// endedByTest says that the session's end was asked for, by its test or for the sake of its next session.
func (p *proxy) endedByTest(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, open := p.open[id]; open {
		return false
	}
	return slices.ContainsFunc(p.evidence.Sessions, func(s Session) bool { return s.ID == id && !s.EndedAt.IsZero() })
}

// delete ends a session that its test did not.
func (p *proxy) delete(ctx context.Context, id, by string) {
	p.mu.Lock()
	real, renamed := p.real[id]
	p.mu.Unlock()
	if !renamed {
		real = id
	}
	p.remove(ctx, real, by)
	p.ended(id, by)
}

// remove ends a session of Appium's.
func (p *proxy) remove(ctx context.Context, id, by string) {
	ctx, cancel := context.WithTimeout(ctx, deleteGrace)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodDelete, p.upstream.JoinPath("session", id).String(), nil)
	if err == nil {
		var answer *http.Response
		if answer, err = p.forward.Transport.RoundTrip(request); err == nil {
			answer.Body.Close()
		}
	}
	if err != nil {
		p.logf("session %s (%s) could not be deleted: %v", id, by, err)
	}
}

// readError takes a W3C error body apart; a body that is none is returned as the message.
func readError(body []byte) (code, message string) {
	var answer struct {
		Value struct {
			Error   string `json:"error"`
			Message string `json:"message"`
		} `json:"value"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Value.Error == "" {
		return codeUnknown, strings.TrimSpace(string(body))
	}
	return answer.Value.Error, answer.Value.Message
}

// writeError answers as the WebDriver specification says (W3C WebDriver, section 6.6).
func writeError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"value": map[string]string{"error": code, "message": message, "stacktrace": ""}})
}
