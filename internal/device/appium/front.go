package appium

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
)

// front is what clients of a server talk to: it passes everything on, and lets no request for a session be
// abandoned. Appium goes on making a session whose client has left, cannot be asked what it is making, and
// the session would come up under the next job. So the front waits for the answer in the client's place,
// and knows when none is due.
type front struct {
	listener net.Listener
	server   *http.Server
	served   chan struct{}
	before   func(ctx context.Context, request []byte) ([]byte, error) // Options.Before

	mu     sync.Mutex
	making int           // sessions
	idle   chan struct{} // closed while making is 0
}

func openFront(upstream *url.URL, before func(context.Context, []byte) ([]byte, error)) (*front, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &front{listener: listener, before: before, served: make(chan struct{}), idle: make(chan struct{})}
	close(f.idle)
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 8},
		ErrorLog:  log.New(io.Discard, "", 0), // the client gets a 502, and Appium's log has the rest
	}
	f.server = &http.Server{Handler: f.holding(proxy), ErrorLog: proxy.ErrorLog}
	go func() {
		defer close(f.served)
		f.server.Serve(listener)
	}()
	return f, nil
}

func (f *front) url() string { return "http://" + f.listener.Addr().String() }

// holding keeps the requests for sessions alive when their clients leave.
func (f *front) holding(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/session" {
			next.ServeHTTP(w, r)
			return
		}
		f.count(1)
		defer f.count(-1)
		ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
		defer cancel()
		r = r.WithContext(ctx)
		if f.before != nil && !f.prepared(w, r) {
			return
		}
		next.ServeHTTP(w, r)
	})
}

// maxRequest bounds a request for a session.
const maxRequest = 4 << 20

// prepared lets the server's owner see to a session that is asked for, and answers what that refuses.
func (f *front) prepared(w http.ResponseWriter, r *http.Request) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err == nil {
		body, err = f.before(r.Context(), body)
	}
	if err != nil {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(http.StatusInternalServerError)
		json.NewEncoder(w).Encode(map[string]any{"value": map[string]string{"error": "session not created", "message": err.Error(), "stacktrace": ""}})
		return false
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return true
}

func (f *front) count(change int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.making == 0 {
		f.idle = make(chan struct{})
	}
	if f.making += change; f.making == 0 {
		close(f.idle)
	}
}

// wait returns when no session is being made.
func (f *front) wait(ctx context.Context) error {
	f.mu.Lock()
	idle := f.idle
	f.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *front) close() {
	f.server.Close()
	<-f.served
}
