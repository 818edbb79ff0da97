package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
)

// script answers a worker as a server does, in the bubble of a synctest and without a network. It is for
// tests of time alone: the real server keeps the database's clock.
type script struct {
	mu       sync.Mutex
	down     bool
	cut      context.CancelFunc // ends the requests that are being served
	jobs     []api.Assignment
	results  []api.AttemptResult
	requests int
	poison   string // a test path whose results are refused with the whole request
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.requests++
	if s.down {
		s.mu.Unlock()
		return nil, errors.New("connection refused")
	}
	ctx, cut := context.WithCancel(r.Context())
	defer cut()
	before := s.cut
	s.cut = func() {
		cut()
		if before != nil {
			before()
		}
	}
	s.mu.Unlock()
	w := httptest.NewRecorder()
	body, _ := io.ReadAll(r.Body)
	var answer any
	switch path := r.URL.Path; {
	case r.Method == http.MethodPut:
		answer = api.RegisterResponse{LeaseMS: 45_000, HeartbeatMS: 10_000}
	case strings.HasSuffix(path, "/heartbeat"):
		answer = api.HeartbeatResponse{}
	case strings.HasSuffix(path, "/poll"):
		var poll api.PollRequest
		if err := json.Unmarshal(body, &poll); err != nil {
			return nil, err
		}
		var err error
		if answer, err = s.poll(ctx, poll); errors.Is(err, errPoison) {
			w.WriteHeader(http.StatusUnprocessableEntity)
			answer = api.Problem{Code: qgjob.CodeInvalid, Detail: err.Error()}
		} else if err != nil {
			return nil, err
		}
	default:
		answer = struct{}{}
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

func (s *script) poll(ctx context.Context, poll api.PollRequest) (answer api.PollResponse, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range poll.Results {
		if r.Message == s.poison && r.Message != "" {
			return answer, errPoison
		}
	}
	for _, r := range poll.Results {
		s.results = append(s.results, r)
		answer.Results = append(answer.Results, api.ResultAnswer{AttemptID: r.AttemptID, Trigger: qgjob.Pass, State: qgjob.Passed})
	}
	if len(s.jobs) > 0 && len(poll.Devices) > 0 {
		answer.Assignments, s.jobs = s.jobs[:1], s.jobs[1:]
	}
	if len(answer.Assignments)+len(answer.Results) > 0 {
		return answer, nil
	}
	s.mu.Unlock()
	select {
	case <-time.After(time.Duration(poll.WaitMS) * time.Millisecond):
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	return answer, err
}

var errPoison = errors.New("body.results[0] is not as it should be")

func (s *script) set(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	if s.down && s.cut != nil {
		s.cut()
		s.cut = nil
	}
}

func (s *script) handedIn() []api.AttemptResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]api.AttemptResult(nil), s.results...)
}

func (s *script) seen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func oneJob(deviceID, spec string) []api.Assignment {
	return []api.Assignment{{
		Lease: api.Lease{AttemptID: "11111111-1111-4111-8111-111111111111", Token: "1.secret"}, DeviceID: deviceID, Number: 1,
		Job: qgjob.Job{ID: "job-1", OrgID: "qualgent", AppVersionID: "xyz123", TestPath: spec, Priority: 3, Target: qgjob.TargetAny},
	}}
}

// inBubble starts a worker of a script in the bubble of the calling synctest.
func inBubble(t *testing.T, s *script, o Options, url ...string) (run func(context.Context) error, out *output) {
	t.Helper()
	out = newOutput()
	o.Client, o.Out = &api.Client{BaseURL: append(url, "http://server.test")[0], HTTP: &http.Client{Transport: s}}, out
	if o.DataDir == "" {
		o.DataDir = t.TempDir()
	}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a.Run, out
}
