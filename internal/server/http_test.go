package server

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/store"
)

// bare is a server for what never reaches the store.
func bare(tokens ...Token) *Server {
	s, err := New(Options{Store: &store.Store{}, Logger: slog.New(slog.DiscardHandler), Tokens: tokens, SecretKey: NewSecretKey()})
	if err != nil {
		panic(err)
	}
	return s
}

func TestAPanicIsAnInternalError(t *testing.T) {
	s := bare()
	s.mux.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { panic("secret of the program") })
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "http://localhost:8000/panic", nil)
	s.ServeHTTP(w, r)
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	if w.Code != http.StatusInternalServerError || p.Code != qgjob.CodeInternal || strings.Contains(p.Detail, "secret") {
		t.Errorf("answered %d %+v", w.Code, p)
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("content type %q", ct)
	}
}
