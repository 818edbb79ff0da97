// Package thin puts a bare HTTP server before a queue that has none, of the kind that qgjob's own is: submits and
// long polls as JSON over HTTP/1.1, a poll handing in what is done and taking the next jobs. It checks and keeps
// nothing itself.
package thin

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"qgjob/internal/api"
)

// Backend is the queue behind the server: River, or plain group-committed rows.
type Backend interface {
	// Submit returns the ids of the jobs once they are durable.
	Submit(context.Context, api.SubmitRequest) ([]string, error)
}

// Worked is a Backend whose jobs can be worked.
type Worked interface {
	Backend
	// StartWork begins to work with so many slots, StopWork ends that.
	StartWork(ctx context.Context, slots int) error
	StopWork(context.Context) error
	// Poll reports jobs done and takes up to want jobs, waiting for the first.
	Poll(ctx context.Context, done []string, want int) ([]Job, error)
}

// Job is a job as a worker gets it.
type Job struct {
	ID string `json:"id"`
	Spec
}

// Spec is what a job is to do.
type Spec struct {
	OrgID        string `json:"org_id"`
	AppVersionID string `json:"app_version_id"`
	TestPath     string `json:"test_path"`
	Target       string `json:"target,omitempty"`
	Priority     int    `json:"priority"`
}

type submitted struct {
	IDs []string `json:"ids"`
}

type pollRequest struct {
	Done   []string `json:"done"`
	Want   int      `json:"want"`
	WaitMS int64    `json:"wait_ms"`
}

type pollResponse struct {
	Jobs []Job `json:"jobs"`
}

// Specs are the jobs of a submit.
func Specs(s api.SubmitRequest) []Spec {
	specs := make([]Spec, len(s.Jobs))
	for i, j := range s.Jobs {
		specs[i] = Spec{OrgID: s.OrgID, AppVersionID: s.AppVersionID, TestPath: j.TestPath, Target: j.Target, Priority: 1}
	}
	return specs
}

// Serve serves a backend until the context ends.
func Serve(ctx context.Context, l net.Listener, b Backend) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/runs", handle(http.StatusCreated, func(r *http.Request, s api.SubmitRequest) (submitted, error) {
		ids, err := b.Submit(r.Context(), s)
		return submitted{ids}, err
	}))
	if w, ok := b.(Worked); ok {
		mux.HandleFunc("POST /v1/poll", handle(http.StatusOK, func(r *http.Request, p pollRequest) (pollResponse, error) {
			pollCtx, cancel := context.WithTimeout(r.Context(), time.Duration(p.WaitMS)*time.Millisecond)
			defer cancel()
			jobs, err := w.Poll(pollCtx, p.Done, p.Want)
			return pollResponse{jobs}, err
		}))
		mux.HandleFunc("PUT /work/{slots}", func(rw http.ResponseWriter, r *http.Request) {
			slots, err := strconv.Atoi(r.PathValue("slots"))
			if err == nil {
				err = w.StartWork(ctx, slots)
			}
			answer(rw, http.StatusOK, struct{}{}, err)
		})
		mux.HandleFunc("DELETE /work", func(rw http.ResponseWriter, r *http.Request) {
			answer(rw, http.StatusOK, struct{}{}, w.StopWork(r.Context()))
		})
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	closed := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { closed <- server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-closed
}

// maxBody is more than ten thousand jobs need.
const maxBody = 4 << 20

func handle[In, Out any](status int, f func(*http.Request, In) (Out, error)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(http.MaxBytesReader(rw, r.Body, maxBody)).Decode(&in); err != nil {
			http.Error(rw, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		out, err := f(r, in)
		answer(rw, status, out, err)
	}
}

func answer(rw http.ResponseWriter, status int, out any, err error) {
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(out) // a client that has gone is no concern of the server's
}
