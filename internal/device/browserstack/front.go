package browserstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// Bounds of the front.
const (
	// fullWait is how long a request for a session is repeated while the hub's queue is full. WebDriver's clients
	// give up after two minutes.
	fullWait = 90 * time.Second
	// makeLimit bounds the making of a session, the 15 minutes in BrowserStack's queue included.
	makeLimit = 20 * time.Minute
	// makingGrace is how long a release waits for a session that is being made. One that comes later is ended
	// when it comes.
	makingGrace = 20 * time.Second
	// endGrace bounds the end of the sessions when a slot is closed.
	endGrace = 15 * time.Second
	// idleSeconds is after how long without a command BrowserStack ends a session.
	idleSeconds = 180
	// restTries is how often a test's question to the REST interface is asked, with a pause between.
	restTries  = 3
	restPause  = time.Second
	maxRequest = 4 << 20
)

// front is what the tests of one slot talk to, as if it were an Appium server, with what AppWright wants of
// the REST interface beside. It adds the credentials, puts the prepared app and the names into each request
// for a session, holds one session at a time, and lets no session come to be that nobody ends.
type front struct {
	d    *Driver
	slot int
	log  *slog.Logger
	url  string

	listener net.Listener
	server   *http.Server
	served   chan struct{}
	hub      *httputil.ReverseProxy
	life     context.Context
	end      context.CancelFunc
	making   chan struct{} // holds a token while a session is made

	mu       sync.Mutex
	app      app
	job      int // counts the releases: what was begun in another job is not wanted any more
	inMaking bool
	list     []*madeSession // of this job
	record   record
}

// app is what the next sessions get.
type app struct {
	ref   string // bs://...
	pkg   string // its Android package or iOS bundle id
	build string // under which BrowserStack shows them
}

// madeSession is a session of this slot.
type madeSession struct {
	id          string
	made, ended time.Time
}

func (m *madeSession) lasted(now time.Time) time.Duration {
	if m.ended.IsZero() {
		return now.Sub(m.made)
	}
	return m.ended.Sub(m.made)
}

func openFront(d *Driver, slot int, logger *slog.Logger) (*front, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	// Others on this host can connect, too: the path is one that they cannot guess.
	prefix := "/" + rand.Text()
	f := &front{
		d: d, slot: slot, log: logger, url: "http://" + listener.Addr().String() + prefix,
		listener: listener, served: make(chan struct{}), making: make(chan struct{}, 1),
	}
	f.life, f.end = context.WithCancel(context.Background())
	f.hub = &httputil.ReverseProxy{
		Rewrite:      f.address,
		Transport:    d.rest.http.Transport,
		ErrorHandler: f.lost,
		ErrorLog:     log.New(io.Discard, "", 0), // the client gets the answer of lost
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /session", f.create)
	mux.HandleFunc("DELETE /session/{id}", f.delete)
	mux.HandleFunc("/session/{id}/", f.command)
	mux.HandleFunc("GET /session/{id}", f.command)
	mux.HandleFunc("POST /app-automate/upload", f.upload)
	mux.HandleFunc("GET /app-automate/sessions/{file}", f.details)
	mux.HandleFunc("PUT /app-automate/sessions/{file}", f.mark)
	mux.HandleFunc("POST /app-automate/upload-media", f.media)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answerJSON(w, http.StatusForbidden, map[string]string{"error": "qgjob passes on to BrowserStack what AppWright asks of it, and " + r.Method + " " + r.URL.Path + " is not among that"})
	})
	f.server = &http.Server{Handler: http.StripPrefix(prefix, mux), ErrorLog: f.hub.ErrorLog}
	go func() {
		defer close(f.served)
		f.server.Serve(listener)
	}()
	return f, nil
}

// prepare begins a job.
func (f *front) prepare(a app) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.app, f.list = a, nil
}

// sessions counts what this slot has at BrowserStack now.
func (f *front) sessions() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.record.Open)
	if f.inMaking {
		n++
	}
	return n
}

// made lists the sessions of this job.
func (f *front) made() []madeSession {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []madeSession
	for _, m := range f.list {
		list = append(list, *m)
	}
	return list
}

// address sends a request on to the hub.
func (f *front) address(r *httputil.ProxyRequest) {
	r.SetURL(f.d.rest.hub)
	r.Out.SetBasicAuth(f.d.rest.username, f.d.rest.accessKey)
}

// lost answers a command that did not reach the hub, or whose answer never came.
func (f *front) lost(w http.ResponseWriter, r *http.Request, err error) {
	answerHub(w, http.StatusInternalServerError, "unknown error", unreachable(context.WithoutCancel(r.Context()), f.d.rest.hub.Host, err).Error())
}

func (f *front) command(w http.ResponseWriter, r *http.Request) {
	if !f.owns(r.PathValue("id")) {
		noSession(w)
		return
	}
	f.hub.ServeHTTP(w, r)
}

func (f *front) delete(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !f.owns(id) {
		noSession(w)
		return
	}
	if err := f.endSession(r.Context(), id); err != nil {
		answerHub(w, http.StatusInternalServerError, "unknown error", err.Error())
		return
	}
	answerJSON(w, http.StatusOK, map[string]any{"value": nil})
}

// owns says whether a session is of this job.
func (f *front) owns(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.list {
		if m.id == id {
			return true
		}
	}
	return false
}

func noSession(w http.ResponseWriter) {
	answerHub(w, http.StatusNotFound, "invalid session id", "Session not started or terminated")
}

// endSession ends a session at BrowserStack.
func (f *front) endSession(ctx context.Context, id string) error {
	if err := f.d.rest.delete(ctx, id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keep(func(r *record) {
		r.Open = without(r.Open, id)
	})
	for _, m := range f.list {
		if m.id == id && m.ended.IsZero() {
			m.ended = time.Now()
		}
	}
	return nil
}

func without(list []string, one string) []string {
	var rest []string
	for _, s := range list {
		if s != one {
			rest = append(rest, s)
		}
	}
	return rest
}

// keep changes what is written down of this slot. It is called with the lock held.
func (f *front) keep(change func(*record)) {
	change(&f.record)
	if err := f.d.writeRecord(f.slot, f.record); err != nil {
		f.log.Warn("the open sessions at BrowserStack cannot be written down", "error", err)
	}
}

// endOpen ends every session that is open, and one of which it is not known whether it was made.
func (f *front) endOpen(ctx context.Context) error {
	f.mu.Lock()
	r := f.record
	f.mu.Unlock()
	ids, err := f.d.sessionsOf(ctx, r)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		errs = append(errs, f.endSession(ctx, id))
	}
	if err := errors.Join(errs...); err != nil || r.Making == "" {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.record.Making == r.Making {
		f.keep(func(r *record) { r.Making, r.Build = "", "" })
	}
	return nil
}

// release ends a job's sessions. One that is being made is not wanted any more.
func (f *front) release(ctx context.Context) error {
	f.mu.Lock()
	f.job++
	f.mu.Unlock()
	patience := time.NewTimer(makingGrace)
	defer patience.Stop()
	select {
	case f.making <- struct{}{}:
		<-f.making
	case <-patience.C:
		f.log.Info("a session at BrowserStack is still being made: it ends when it is there")
	case <-ctx.Done():
	}
	return f.endOpen(ctx)
}

// close ends everything. A session that is still being made then is ended by its record.
func (f *front) close() {
	ctx, cancel := context.WithTimeout(f.life, endGrace)
	defer cancel()
	if err := f.release(ctx); err != nil {
		f.log.Warn("sessions at BrowserStack could not be ended: they end when they have been idle", "error", err)
	}
	f.end()
	f.server.Close()
	<-f.served
	f.making <- struct{}{} // its handler gives up when life ends
}

// create makes a session: one at a time, with the prepared app, waiting where the hub's queue is full. What was
// asked of the hub goes on when the client leaves, because the hub makes the session all the same.
func (f *front) create(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return // nobody is there to be told
	}
	select {
	case f.making <- struct{}{}:
		defer func() { <-f.making }()
	case <-r.Context().Done():
		return
	case <-f.life.Done():
		return
	}
	f.mu.Lock()
	job, a := f.job, f.app
	f.inMaking = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.inMaking = false
		f.mu.Unlock()
	}()
	if err := f.endOpen(f.life); err != nil {
		answerHub(w, http.StatusBadRequest, "session not created", err.Error())
		return
	}
	name := "qgjob " + rand.Text()
	if body, err = a.rewrite(body, name); err != nil {
		answerHub(w, http.StatusBadRequest, "invalid argument", fmt.Sprintf("the session request cannot be read: %v", err))
		return
	}
	f.mu.Lock()
	f.keep(func(r *record) { r.Making, r.Build = name, a.build })
	f.mu.Unlock()
	status, answer, err := f.post(r.Context(), job, body)
	if err != nil {
		f.forgetMaking(err)
		answerHub(w, http.StatusBadRequest, "session not created", err.Error())
		return
	}
	id := sessionID(answer)
	f.mu.Lock()
	f.keep(func(r *record) {
		r.Making, r.Build = "", ""
		if id != "" {
			r.Open = append(r.Open, id)
		}
	})
	wanted := job == f.job && r.Context().Err() == nil
	if id != "" && job == f.job {
		f.list = append(f.list, &madeSession{id: id, made: time.Now()})
	}
	f.mu.Unlock()
	if id != "" && !wanted {
		f.log.Info("a session at BrowserStack came when nobody waited for it any more: it is ended", "session", id)
		if err := f.endSession(f.life, id); err != nil {
			f.log.Warn("the session could not be ended: it ends when it has been idle", "session", id, "error", err)
		}
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(answer)
}

// forgetMaking takes the session that was being made out of the record, unless it may have come to be.
func (f *front) forgetMaking(err error) {
	if _, refused := errors.AsType[*refusal](err); !refused && !errors.Is(err, errNotAsked) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keep(func(r *record) { r.Making, r.Build = "", "" })
}

// errNotAsked says that the hub was not asked again, because nobody waits.
var errNotAsked = errors.New("nobody waits for the session any more")

// post asks the hub for a session, again and again while its queue is full. The error is for the client; an
// answer of the hub that is an error is none.
func (f *front) post(client context.Context, job int, body []byte) (status int, answer []byte, err error) {
	began := time.Now()
	for {
		status, answer, err = f.postOnce(body)
		if err != nil || !queueFull(answer) || time.Since(began) >= fullWait {
			return status, answer, err
		}
		f.log.Info("the queue at BrowserStack is full: asking again", "after", f.d.rhythm)
		if err := pause(f.life, f.d.rhythm); err != nil {
			return 0, nil, err
		}
		f.mu.Lock()
		wanted := job == f.job && client.Err() == nil
		f.mu.Unlock()
		if !wanted {
			return 0, nil, errNotAsked
		}
	}
}

func (f *front) postOnce(body []byte) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeoutCause(f.life, makeLimit, errSilent)
	defer cancel()
	to := f.d.rest.hub.JoinPath("session")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.SetBasicAuth(f.d.rest.username, f.d.rest.accessKey)
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	res, err := f.d.rest.http.Do(req)
	if err != nil {
		return 0, nil, unreachable(ctx, to.Host, err)
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxRequest))
	if err != nil {
		return 0, nil, unreachable(ctx, to.Host, err)
	}
	if res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden {
		return 0, nil, refused(to, &refusal{res.StatusCode, errorText(answer)})
	}
	return res.StatusCode, answer, nil
}

// queueFull says whether the hub refused a session because too many wait already.
func queueFull(answer []byte) bool {
	text := errorText(answer)
	return strings.Contains(text, "BROWSERSTACK_QUEUE_SIZE_EXCEEDED") || strings.Contains(text, "All parallel tests are currently in use")
}

func sessionID(answer []byte) string {
	var made struct {
		Value struct {
			SessionID string `json:"sessionId"`
		} `json:"value"`
	}
	_ = json.Unmarshal(answer, &made) // what is no JSON names no session
	return made.Value.SessionID
}

// rewrite puts the app and the names into a request for a session.
func (a app) rewrite(body []byte, name string) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var asked struct {
		Capabilities struct {
			AlwaysMatch map[string]any   `json:"alwaysMatch"`
			FirstMatch  []map[string]any `json:"firstMatch"`
		} `json:"capabilities"`
	}
	if err := decoder.Decode(&asked); err != nil {
		return nil, err
	}
	always := asked.Capabilities.AlwaysMatch
	if always == nil {
		always = map[string]any{}
	}
	first := asked.Capabilities.FirstMatch
	if len(first) == 0 {
		first = []map[string]any{{}}
	}
	options, _ := always["bstack:options"].(map[string]any)
	if options == nil {
		options = map[string]any{}
	}
	for _, f := range first { // a name may stand in one of the two places only
		if given, ok := f["bstack:options"].(map[string]any); ok && len(options) == 0 {
			options = given
		}
		delete(f, "bstack:options")
		delete(f, "appium:app")
	}
	options["buildName"], options["sessionName"], options["projectName"] = a.build, name, "qgjob"
	if _, given := options["idleTimeout"]; !given {
		options["idleTimeout"] = idleSeconds
	}
	always["appium:app"], always["bstack:options"] = a.ref, options
	return json.Marshal(map[string]any{"capabilities": map[string]any{"alwaysMatch": always, "firstMatch": first}})
}

// upload answers AppWright's upload with the reference of what is on the account already.
func (f *front) upload(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return // the client has left
	}
	f.mu.Lock()
	ref := f.app.ref
	f.mu.Unlock()
	answerJSON(w, http.StatusOK, map[string]string{"app_url": ref})
}

// details tells a test about its session, without its video: AppWright would wait for it, and could fail a
// test over it. The attempt has the link. What AppWright takes for the app's bundle id, to bring it to the front
// again, is the name of the file at BrowserStack: it gets the id.
func (f *front) details(w http.ResponseWriter, r *http.Request) {
	id, ok := f.fileOf(r)
	if !ok {
		answerJSON(w, http.StatusNotFound, map[string]string{"error": "Session not found"})
		return
	}
	var answer map[string]map[string]any
	err := f.again(r.Context(), func() error { return f.d.rest.get(r.Context(), &answer, nil, "sessions", id+".json") })
	if err != nil {
		answerJSON(w, statusOf(err), map[string]string{"error": err.Error()})
		return
	}
	if session := answer["automation_session"]; session != nil {
		session["video_url"] = nil
		if app, ok := session["app_details"].(map[string]any); ok {
			f.mu.Lock()
			app["app_name"] = f.app.pkg
			f.mu.Unlock()
		}
	}
	answerJSON(w, http.StatusOK, answer)
}

// mark passes on a session's name, status and reason.
func (f *front) mark(w http.ResponseWriter, r *http.Request) {
	id, ok := f.fileOf(r)
	if !ok {
		answerJSON(w, http.StatusNotFound, map[string]string{"error": "Session not found"})
		return
	}
	change, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return // nobody is there to be told
	}
	var answer json.RawMessage
	err = f.again(r.Context(), func() error {
		ctx, cancel := context.WithTimeoutCause(r.Context(), askTimeout, errSilent)
		defer cancel()
		return f.d.rest.ask(ctx, r.Method, f.d.rest.api.JoinPath("sessions", id+".json"), r.Header.Get("Content-Type"), bytes.NewReader(change), &answer)
	})
	if err != nil {
		answerJSON(w, statusOf(err), map[string]string{"error": err.Error()})
		return
	}
	answerJSON(w, http.StatusOK, answer)
}

// again asks up to three times while BrowserStack cannot be reached: AppWright asks once, and takes the error
// for a failed test.
func (f *front) again(ctx context.Context, ask func() error) error {
	for try := 1; ; try++ {
		err := ask()
		if device.CauseOf(err) != qgjob.CauseCloudUnreachable || try == restTries || pause(ctx, restPause) != nil {
			return err
		}
	}
}

// media uploads a picture for a phone's camera.
func (f *front) media(w http.ResponseWriter, r *http.Request) {
	var answer json.RawMessage
	to := f.d.rest.api.JoinPath("upload-media")
	if err := f.d.rest.ask(r.Context(), r.Method, to, r.Header.Get("Content-Type"), r.Body, &answer); err != nil {
		answerJSON(w, statusOf(err), map[string]string{"error": err.Error()})
		return
	}
	answerJSON(w, http.StatusOK, answer)
}

// fileOf is the session of this job that a path names as ID.json.
func (f *front) fileOf(r *http.Request) (id string, ok bool) {
	id, ok = strings.CutSuffix(r.PathValue("file"), ".json")
	return id, ok && f.owns(id)
}

// statusOf is the status with which a test hears of an error.
func statusOf(err error) int {
	if no, ok := errors.AsType[*refusal](err); ok && no.status != http.StatusUnauthorized {
		return no.status
	}
	return http.StatusBadGateway
}

// answerHub answers as the WebDriver specification says (W3C WebDriver, section 6.6).
func answerHub(w http.ResponseWriter, status int, code, message string) {
	answerJSON(w, status, map[string]any{"value": map[string]string{"error": code, "message": message, "stacktrace": ""}})
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}
