package github_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"qgjob/internal/github"
)

func TestCommand(t *testing.T) {
	got := github.Command("error", "50% off\n::set-output name=x::y", github.Property{Name: "file", Value: "a:b,c.ts"}, github.Property{Name: "line", Value: "3"})
	if want := "::error file=a%3Ab%2Cc.ts,line=3::50%25 off%0A::set-output name=x::y"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	quoted := github.Quote("::add-mask::x\n", "token")
	if want := "::stop-commands::token\n::add-mask::x\n::token::\n"; quoted != want {
		t.Errorf("got %q, want %q", quoted, want)
	}
}

// standIn is as much of GitHub's REST API as the comments use.
type standIn struct {
	mu       sync.Mutex
	comments []string
	seen     []string
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer secret-token" {
		http.Error(w, `{"message":"Bad credentials"}`, http.StatusUnauthorized)
		return
	}
	s.seen = append(s.seen, r.Method)
	var c struct {
		ID   int    `json:"id"`
		Body string `json:"body"`
	}
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/repos/o/r/issues/7/comments":
		var page int
		fmt.Sscan(r.URL.Query().Get("page"), &page)
		list := []map[string]any{}
		for i := (page - 1) * 100; i < min(page*100, len(s.comments)); i++ {
			list = append(list, map[string]any{"id": i, "body": s.comments[i]})
		}
		_ = json.NewEncoder(w).Encode(list)
		return
	case r.Method == http.MethodPost && r.URL.Path == "/repos/o/r/issues/7/comments":
		_ = json.NewDecoder(r.Body).Decode(&c)
		s.comments = append(s.comments, c.Body)
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodPatch && strings.HasPrefix(r.URL.Path, "/repos/o/r/issues/comments/"):
		_ = json.NewDecoder(r.Body).Decode(&c)
		fmt.Sscan(strings.TrimPrefix(r.URL.Path, "/repos/o/r/issues/comments/"), &c.ID)
		s.comments[c.ID] = c.Body
	default:
		http.NotFound(w, r)
	}
	fmt.Fprint(w, "{}")
}

// TestOneComment: the step's comment is made once and then replaced, also when it is on a later page.
func TestOneComment(t *testing.T) {
	s := &standIn{}
	for i := range 150 {
		s.comments = append(s.comments, fmt.Sprintf("talk %d <!-- qgjob: e2e -->", i))
	}
	server := httptest.NewServer(s)
	defer server.Close()
	c := github.Comments{API: server.URL, Repository: "o/r", Number: "7", Token: "secret-token", HTTP: server.Client()}
	for _, text := range []string{"red", "green"} {
		if err := c.Upsert(t.Context(), "<!-- qgjob: e2e -->", text); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Upsert(t.Context(), "<!-- qgjob: other -->", strings.Repeat("é", 70_000)); err != nil {
		t.Fatal(err)
	}
	if len(s.comments) != 152 || s.comments[150] != "<!-- qgjob: e2e -->\ngreen" {
		t.Errorf("%d comments, the step's is %q", len(s.comments), s.comments[150])
	}
	if n := len([]rune(s.comments[151])); n > 65_536 {
		t.Errorf("a comment of %d characters", n)
	}
	c.Token = "wrong-token"
	if err := c.Upsert(t.Context(), "<!-- qgjob: e2e -->", "x"); err == nil || !strings.Contains(err.Error(), "401") || strings.Contains(err.Error(), "wrong-token") {
		t.Errorf("a wrong token: %v", err)
	}
}
