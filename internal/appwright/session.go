package appwright

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"

	"qgjob"
)

// create makes a session: one at a time, on a device that is ready, with the worker's capabilities. The
// request to Appium outlives its client, because Appium goes on making a session that nobody waits for any
// more; such a session is deleted as soon as it is known.
func (p *proxy) create(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSessionRequest))
	var asked map[string]any
	if err == nil {
		asked, err = readObject(body)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, codeInvalidArgument, fmt.Sprintf("the session request cannot be read: %v", err))
		return
	}
	if !p.mayCreate(r.Context()) {
		writeError(w, http.StatusInternalServerError, codeNotCreated, "the run has ended")
		return
	}
	defer func() { <-p.creating }()

	number, failure := p.begin()
	if failure != nil {
		// Status 400 and not the 500 that goes with this code: webdriver repeats what is answered by 500.
		p.record(CommandError{Method: r.Method, Command: "session", Code: codeNotCreated, Message: failure.Message, Cause: failure.Cause})
		writeError(w, http.StatusBadRequest, codeNotCreated, failure.Message)
		return
	}
	p.endOpenSessions()
	request := p.rewrite(asked)
	if answer, ok := p.handOn(number, wanted(request), p.clears(request)); ok {
		p.announce()
		answerSession(w, http.StatusOK, answer)
		return
	}
	if body, err = json.Marshal(request); err != nil {
		writeError(w, http.StatusInternalServerError, codeUnknown, err.Error())
		return
	}
	status, answer, err := p.post(body)
	if err != nil {
		failure := failuref(qgjob.CauseAppiumDied, "the Appium server at %s does not answer: %w", p.upstream.Host, err)
		if p.life.Err() != nil {
			failure = failuref(qgjob.CauseDeviceHung, "Appium did not make a session within %s of the run's end", createGrace)
		}
		p.refuse(number, codeNotCreated, failure)
		writeError(w, http.StatusBadRequest, codeNotCreated, failure.Message)
		return
	}
	p.settle(number, status, answer, wanted(request))
	answerSession(w, status, answer)
}

func answerSession(w http.ResponseWriter, status int, answer []byte) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(answer)
}

// announce tells whoever wants to know that the run's first session is there.
func (p *proxy) announce() {
	p.mu.Lock()
	begun := p.begun
	p.begun = nil
	p.mu.Unlock()
	if begun != nil {
		begun()
	}
}

// clears says whether a session request, as rewritten, wants the app's data cleared.
func (p *proxy) clears(request map[string]any) bool {
	capabilities, _ := request["capabilities"].(map[string]any)
	always, _ := capabilities["alwaysMatch"].(map[string]any)
	keeps, _ := always["appium:noReset"].(bool)
	return !keeps
}

// mayCreate waits for its turn and for the device. It says no when the client has left or the run has ended;
// on yes the turn is taken.
func (p *proxy) mayCreate(client context.Context) bool {
	select {
	case p.creating <- struct{}{}:
	case <-client.Done():
		return false
	case <-p.life.Done():
		return false
	}
	if p.ready == nil {
		return true
	}
	select {
	case <-p.ready:
		return true
	case <-client.Done():
	case <-p.life.Done():
	}
	<-p.creating
	return false
}

// begin notes a request for a session and returns its place in the evidence, or why none can be made.
func (p *proxy) begin() (number int, failure *Failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.evidence.SessionRequests++
	if p.refused != nil {
		return 0, p.refused
	}
	p.evidence.Sessions = append(p.evidence.Sessions, Session{RequestedAt: time.Now()})
	return len(p.evidence.Sessions) - 1, nil
}

// endOpenSessions: a device holds one session. One that is still open belongs to a test that was stopped in
// the middle, and Appium would let the two disturb each other.
func (p *proxy) endOpenSessions() {
	p.mu.Lock()
	var ids []string
	for id := range p.open {
		ids = append(ids, id)
	}
	p.mu.Unlock()
	for _, id := range ids {
		p.delete(p.life, id, "the next session took its device")
	}
}

// post sends the session request on. Only the end of the run can stop it.
func (p *proxy) post(body []byte) (status int, answer []byte, err error) {
	request, err := http.NewRequestWithContext(p.life, http.MethodPost, p.upstream.JoinPath("session").String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	response, err := p.forward.Transport.RoundTrip(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, maxSessionRequest))
	return response.StatusCode, answer, err
}

// settle notes what became of a session request that Appium answered.
func (p *proxy) settle(number, status int, answer []byte, wanted string) {
	id := sessionID(answer)
	if status >= 400 || id == "" {
		code, message := readError(answer)
		p.refuse(number, code, &Failure{Cause: creationCause(message), Message: message})
		return
	}
	defer p.announce()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusals = 0
	p.open[id] = number
	if p.park && p.app.Package != "" && p.app.Activity != "" && wanted != "" {
		p.keepable[id] = &Parked{ID: id, url: p.upstream.String(), app: p.app, wanted: wanted, answer: answer, madeAt: time.Now(), uses: 1}
	}
	s := &p.evidence.Sessions[number]
	s.ID, s.MadeAt = id, time.Now()
	p.logf("session %s made in %s", id, s.MadeAt.Sub(s.RequestedAt).Round(time.Millisecond))
}

// refuse notes that no session could be made. What is known not to get better, and what went wrong twice in
// a row, is the answer to all following requests: AppWright asks sixteen times.
func (p *proxy) refuse(number int, code string, failure *Failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	s := &p.evidence.Sessions[number]
	s.EndedAt, s.Error = now, failure.Message
	p.evidence.add(CommandError{At: now, Method: http.MethodPost, Command: "session", Code: code, Message: failure.Message, Cause: failure.Cause})
	p.refusals++
	if failure.Cause != qgjob.CauseSessionNotCreated || p.refusals >= createTries {
		p.refused = failure
	}
	p.logf("no session: %s", failure.Message)
}

// sessionID reads the id of a new session out of Appium's answer.
func sessionID(answer []byte) string {
	var made struct {
		Value struct {
			SessionID string `json:"sessionId"`
		} `json:"value"`
	}
	if json.Unmarshal(answer, &made) != nil {
		return ""
	}
	return made.Value.SessionID
}

// rewrite puts the worker's capabilities into a session request. A capability that is null is taken out.
func (p *proxy) rewrite(asked map[string]any) map[string]any {
	capabilities, _ := asked["capabilities"].(map[string]any)
	always := map[string]any{}
	if given, ok := capabilities["alwaysMatch"].(map[string]any); ok {
		maps.Copy(always, given)
	}
	for name, value := range p.sessionCapabilities() {
		if value == nil {
			delete(always, name)
			continue
		}
		always[name] = value
	}
	// A name may stand in alwaysMatch or in firstMatch, never in both; desiredCapabilities is what came
	// before the standard, and repeats what was to be replaced.
	first := []any{}
	alternatives, _ := capabilities["firstMatch"].([]any)
	for _, alternative := range alternatives {
		if given, ok := alternative.(map[string]any); ok {
			given = maps.Clone(given)
			for name := range p.sessionCapabilities() {
				delete(given, name)
			}
			first = append(first, given)
		}
	}
	if len(first) == 0 {
		first = append(first, map[string]any{})
	}
	return map[string]any{"capabilities": map[string]any{"alwaysMatch": always, "firstMatch": first}}
}

// sessionCapabilities are those that the next session must have. The worker has installed the app, so Appium
// is neither to install nor to uninstall it. Each session of stock AppWright finds a newly installed app:
// a run's second session gets the app with its data cleared, the first one finds it as the worker left it.
func (p *proxy) sessionCapabilities() map[string]any {
	forced := maps.Clone(p.forced)
	if forced == nil {
		forced = map[string]any{}
	}
	if p.app.Package == "" {
		return forced
	}
	forced["appium:app"] = nil
	forced["appium:fullReset"] = false
	if p.app.Platform != qgjob.PlatformIOS { // whose driver sees to the app itself
		forced["appium:forceAppLaunch"] = true
		forced["appium:appPackage"] = p.app.Package
		forced["appium:appActivity"] = p.app.Activity
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	made := 0
	for _, s := range p.evidence.Sessions {
		if s.ID != "" {
			made++
		}
	}
	if _, ok := forced["appium:noReset"]; !ok || made > 0 {
		forced["appium:noReset"] = false
	}
	return forced
}

// readObject reads one JSON object, with its numbers as they are written.
func readObject(data []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		return nil, err
	}
	if object == nil {
		return nil, errors.New("it is null")
	}
	return object, nil
}

func capabilityString(capabilities map[string]any, name string) string {
	switch value := capabilities[name].(type) {
	case nil:
		return ""
	case string:
		return value
	default:
		return fmt.Sprint(value)
	}
}
