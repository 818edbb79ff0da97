package browserstack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// Bounds of what is asked of BrowserStack.
const (
	askTimeout  = 10 * time.Second // of a question whose answer is short
	maxAnswer   = 4 << 20          // bytes
	timeLayout  = "2006-01-02 15:04:05 UTC"
	shownAnswer = 500 // characters of an answer in a message
)

// rest is a client of hub and REST interface with the account's credentials. All methods may be called
// concurrently; their errors are a *device.Failure, or wrap the context's error when it ended first.
type rest struct {
	hub, api            *url.URL
	username, accessKey string
	http                *http.Client
}

func newREST(hub, api, username, accessKey string) (*rest, error) {
	r := &rest{username: username, accessKey: accessKey, http: &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}}
	for text, to := range map[string]**url.URL{hub: &r.hub, api: &r.api} {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("BrowserStack's address %q is no URL: give one like http://127.0.0.1:8585", text)
		}
		*to = u
	}
	return r, nil
}

// refusal is an answer of BrowserStack that is an error.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return fmt.Sprintf("status %d: %s", r.status, r.text) }

// ask sends a request and reads the answer's JSON into v, when v is not nil.
func (r *rest) ask(ctx context.Context, method string, to *url.URL, kind string, body io.Reader, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, to.String(), body)
	if err != nil {
		return device.Failf(qgjob.CauseHostFailed, "BrowserStack cannot be asked: %w", err)
	}
	return r.send(req, kind, v)
}

func (r *rest) send(req *http.Request, kind string, v any) error {
	req.SetBasicAuth(r.username, r.accessKey)
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	res, err := r.http.Do(req)
	if err != nil {
		return unreachable(req.Context(), req.URL.Host, err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return unreachable(req.Context(), req.URL.Host, err)
	}
	if res.StatusCode >= 400 {
		return refused(req.URL, &refusal{res.StatusCode, errorText(data)})
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return device.Failf(qgjob.CauseCloudRefused, "BrowserStack's answer to %s %s cannot be read: %w: %.*s", req.Method, req.URL.Path, err, shownAnswer, data)
	}
	return nil
}

// get asks the REST interface for a page below /app-automate.
func (r *rest) get(ctx context.Context, v any, query url.Values, path ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, errSilent)
	defer cancel()
	to := r.api.JoinPath(path...)
	to.RawQuery = query.Encode()
	return r.ask(ctx, http.MethodGet, to, "", nil, v)
}

// delete ends a session. One that is not there is ended.
func (r *rest) delete(ctx context.Context, session string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, errSilent)
	defer cancel()
	err := r.ask(ctx, http.MethodDelete, r.hub.JoinPath("session", session), "", nil, nil)
	if no, ok := errors.AsType[*refusal](err); ok && no.status == http.StatusNotFound {
		return nil
	}
	return err
}

var errSilent = errors.New("it does not answer")

// unreachable is what it means that BrowserStack did not answer: the caller's own end, or a Failure.
func unreachable(ctx context.Context, host string, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the address, which the message has
	}
	if ctx.Err() != nil {
		if cause := context.Cause(ctx); !errors.Is(cause, errSilent) {
			return fmt.Errorf("BrowserStack at %s: %w", host, cause)
		}
		err = errSilent
	}
	return device.Failf(qgjob.CauseCloudUnreachable, "BrowserStack cannot be reached at %s: %w: check this host's network and status.browserstack.com", host, err)
}

// refused gives an error answer its cause.
func refused(to *url.URL, no *refusal) error {
	switch {
	case no.status == http.StatusUnauthorized, no.status == http.StatusForbidden:
		return device.Failf(qgjob.CauseCloudRefused, "BrowserStack refuses the credentials (%w): check BROWSERSTACK_USERNAME and BROWSERSTACK_ACCESS_KEY", no)
	case no.status >= 500:
		return device.Failf(qgjob.CauseCloudUnreachable, "BrowserStack cannot be reached at %s: %w: look at status.browserstack.com", to.Host, no)
	}
	return device.Failf(qgjob.CauseCloudRefused, "BrowserStack refuses %s: %w", to.Path, no)
}

// errorText is what an error answer says: REST has it in "error" or "message", the hub in "value".
func errorText(data []byte) string {
	var answer struct {
		Error   string `json:"error"`
		Message string `json:"message"`
		Value   struct {
			Message string `json:"message"`
		} `json:"value"`
	}
	_ = json.Unmarshal(data, &answer) // what is no JSON is shown as it is
	for _, text := range []string{answer.Value.Message, answer.Message, answer.Error} {
		if text != "" {
			return fmt.Sprintf("%.*s", shownAnswer, text)
		}
	}
	return fmt.Sprintf("%.*s", shownAnswer, bytes.TrimSpace(data))
}

// plan is what plan.json tells: the account's parallels and who uses them.
type plan struct {
	Running int `json:"parallel_sessions_running"`
	Account int `json:"parallel_sessions_max_allowed"`
	Team    int `json:"team_parallel_sessions_max_allowed"`
}

// Max is how many sessions may run at the same time: a team may have fewer than its account.
func (p plan) Max() int {
	if p.Team > 0 && p.Team < p.Account {
		return p.Team
	}
	return p.Account
}

func (r *rest) plan(ctx context.Context) (p plan, err error) {
	err = r.get(ctx, &p, nil, "plan.json")
	return p, err
}

// cloudSession is a session as the REST interface tells of it.
type cloudSession struct {
	ID       string `json:"hashed_id"`
	Name     string `json:"name"`
	URL      string `json:"browser_url"`
	VideoURL string `json:"video_url"`
}

func (r *rest) session(ctx context.Context, id string) (cloudSession, error) {
	var answer struct {
		Session cloudSession `json:"automation_session"`
	}
	err := r.get(ctx, &answer, nil, "sessions", id+".json")
	return answer.Session, err
}

// runningSessions are those that run now in the build of a name.
func (r *rest) runningSessions(ctx context.Context, build string) ([]cloudSession, error) {
	var builds []struct {
		Build struct {
			Name string `json:"name"`
			ID   string `json:"hashed_id"`
		} `json:"automation_build"`
	}
	running := url.Values{"status": {"running"}, "limit": {"100"}}
	if err := r.get(ctx, &builds, running, "builds.json"); err != nil {
		return nil, err
	}
	var found []cloudSession
	for _, b := range builds {
		if !strings.EqualFold(b.Build.Name, build) {
			continue
		}
		var list []struct {
			Session cloudSession `json:"automation_session"`
		}
		if err := r.get(ctx, &list, running, "builds", b.Build.ID, "sessions.json"); err != nil {
			return nil, err
		}
		for _, s := range list {
			found = append(found, s.Session)
		}
	}
	return found, nil
}
