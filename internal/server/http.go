package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/api"
)

// ServeHTTP authorizes, serves, logs and measures one request. A handler that panics is answered with 500.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	w.Header().Set("X-Content-Type-Options", "nosniff")
	principal, err := s.authorize(r)
	r = r.WithContext(context.WithValue(r.Context(), principalKey{}, principal))
	a := &answer{ResponseWriter: w, request: r}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.log.Error("a handler panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			if a.status == 0 {
				writeProblem(a, problemOf(qgjob.Errorf(qgjob.CodeInternal, "panic")))
			}
		}
		s.finish(a, time.Since(start))
	}()
	if err != nil {
		if qgjob.ErrorCode(err) == qgjob.CodeUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		writeProblem(a, problemOf(err))
		return
	}
	s.mux.ServeHTTP(a, r)
}

// statusClientGone stands in logs and metrics for a request whose client left before the answer, by
// nginx's convention.
const statusClientGone = 499

// finish logs and measures a request that was served.
func (s *Server) finish(a *answer, took time.Duration) {
	route := a.request.Pattern
	if route == "" {
		route = "none"
	}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if a.request.Context().Err() != nil {
		a.status = statusClientGone
	}
	s.metrics.request(route, a.status, took)
	level := slog.LevelDebug
	switch {
	case a.status == statusClientGone: // as a worker's poll does that a newer one takes over from
	case a.status >= 500:
		level = slog.LevelWarn
	case a.status >= 400:
		level = slog.LevelInfo
	}
	s.log.Log(a.request.Context(), level, "request", "method", a.request.Method, "path", a.request.URL.Path,
		"status", a.status, "took", took, "remote", a.request.RemoteAddr)
}

// answer records the status of an answer, and makes problems of the multiplexer's own error answers.
type answer struct {
	http.ResponseWriter
	request  *http.Request
	status   int
	replaced bool
}

func (a *answer) WriteHeader(status int) {
	if a.status != 0 {
		return
	}
	a.status = status
	if a.request.Pattern == "" && (status == http.StatusNotFound || status == http.StatusMethodNotAllowed) &&
		strings.HasPrefix(a.Header().Get("Content-Type"), "text/plain") {
		a.replaced = true
		p := noRoute(a.request, status, a.Header().Get("Allow"))
		writeProblem(a.ResponseWriter, p)
		return
	}
	a.ResponseWriter.WriteHeader(status)
}

func noRoute(r *http.Request, status int, allow string) *problem {
	if status == http.StatusMethodNotAllowed {
		return newProblem(status, qgjob.CodeInvalid, shown(r.URL.Path)+" does not take "+r.Method+", only "+allow)
	}
	return newProblem(status, api.CodeOf(status), "there is nothing at "+shown(r.URL.Path)+": /docs lists what there is")
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.replaced {
		return len(p), nil
	}
	return a.ResponseWriter.Write(p)
}

// ReadFrom keeps sendfile for downloads.
func (a *answer) ReadFrom(r io.Reader) (int64, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	return io.Copy(a.ResponseWriter, r)
}

// Unwrap lets http.ResponseController flush and set deadlines.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// refuse is what a handler's error becomes: logged where the server is to blame, then answered.
func (s *Server) refuse(operation string, err error) error {
	p := problemOf(err)
	if p.Status >= 500 && !errors.Is(err, context.Canceled) {
		s.log.Error("request failed", "operation", operation, "error", err)
	}
	return p
}
