package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestGitHub runs a failing run as the action does, against a stand-in for GitHub's API, and reads what
// GitHub would show: groups, annotations, summary, outputs, and one comment that a second run updates. A
// pull request from a fork gets none, and the token is nowhere.
func TestGitHub(t *testing.T) {
	var mu sync.Mutex
	var comments []string
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var c struct {
			Body string `json:"body"`
		}
		switch r.Method {
		case http.MethodGet:
			list := []map[string]any{}
			for i, body := range comments {
				list = append(list, map[string]any{"id": i, "body": body})
			}
			_ = json.NewEncoder(w).Encode(list)
			return
		case http.MethodPost:
			_ = json.NewDecoder(r.Body).Decode(&c)
			comments = append(comments, c.Body)
		case http.MethodPatch:
			_ = json.NewDecoder(r.Body).Decode(&c)
			comments[0] = c.Body
		}
		_, _ = w.Write([]byte("{}"))
	}))
	defer api.Close()
	_, url := served(t)
	dir := t.TempDir()
	event := func(repository string) string {
		path := filepath.Join(t.TempDir(), "event.json")
		text := `{"pull_request": {"number": 7, "head": {"sha": "abc", "repo": {"full_name": "` + repository + `"}}}}`
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	output, summary := filepath.Join(dir, "output"), filepath.Join(dir, "summary")
	base := append(qgjobEnv(t, url), "CI=true", "GITHUB_ACTIONS=true", "GITHUB_REPOSITORY=acme/shop", "GITHUB_WORKFLOW=E2E", "GITHUB_JOB=appwright",
		"GITHUB_API_URL="+api.URL, "GITHUB_TOKEN=ghs_secret", "GITHUB_OUTPUT="+output, "GITHUB_STEP_SUMMARY="+summary)
	run := func(repository string, code int, outcomes ...string) string {
		t.Helper()
		env := append(base, "GITHUB_EVENT_PATH="+event(repository))
		done := make(chan struct{})
		go func() {
			defer close(done)
			exitOfCommand(t, env, append([]string{"fakeworker"}, outcomes...)...)
		}()
		got, out := exitOfCommand(t, env, "qgjob", "run", "--github", "--comment", "--org-id=q", "--app-version-id=v", "--test=tests/a.spec.js", "--test=tests/b.spec.js")
		<-done
		if got != code {
			t.Fatalf("exit code %d, want %d: %s", got, code, out)
		}
		if strings.Contains(out, "ghs_secret") {
			t.Errorf("the token is in the log: %s", out)
		}
		return out
	}
	out := run("acme/shop", 1, "failed", "failed", "failed", "passed")
	for _, want := range []string{
		"::group::failed: tests/", "::stop-commands::", "attempt 3: ", "::endgroup::",
		"::error file=tests/onboarding.spec.js,line=7,col=1,title=onboarding > shows the welcome::Error: Element was not found on the screen%0Alocator: Next",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the log lacks %q:\n%s", want, out)
		}
	}
	for path, wants := range map[string][]string{
		output:  {"run-id=", "state=failed\n", "passed=1\n", "failed=1\n", "flaky=0\n", "errors=0\n"},
		summary: {"### ❌ Run failed: 1 passed, 1 failed"},
	} {
		data, err := os.ReadFile(path)
		for _, want := range wants {
			if err != nil || !strings.Contains(string(data), want) {
				t.Errorf("%s lacks %q (%v): %s", filepath.Base(path), want, err, data)
			}
		}
	}
	run("acme/shop", 0, "passed", "passed")
	mu.Lock()
	if len(comments) != 1 || !strings.Contains(comments[0], "Run passed") || !strings.HasPrefix(comments[0], "<!-- qgjob: E2E / appwright / ") {
		t.Errorf("the pull request has the comments %q", comments)
	}
	comments = nil
	mu.Unlock()
	target := append(base, "GITHUB_EVENT_NAME=pull_request_target", "QGJOB_TOKEN=team-secret", "GITHUB_EVENT_PATH="+event("stranger/shop"))
	if code, out := exitOfCommand(t, target, "qgjob", "run", "--github", "--org-id=q", "--app-version-id=v", "--test=a.spec.js"); code != 2 || !strings.Contains(out, "a fork's code") || strings.Contains(out, "team-secret") {
		t.Errorf("a fork in a workflow with secrets: exit code %d: %s", code, out)
	}
	if out := run("stranger/shop", 0, "passed", "passed"); !strings.Contains(out, "comes from a fork") || len(comments) != 0 {
		t.Errorf("a fork's pull request: %q, %s", comments, out)
	}
}
