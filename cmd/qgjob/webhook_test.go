package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"qgjob/internal/webhook"
)

// TestWebhook: a receiver hears of a run that ended, again until it takes it, signed with the secret that add
// printed. A server that may not reach private addresses says so in the history.
func TestWebhook(t *testing.T) {
	type delivery struct {
		header http.Header
		body   string
	}
	received := make(chan delivery, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		received <- delivery{r.Header, string(body)}
	}))
	defer receiver.Close()
	for _, allowed := range []bool{true, false} {
		var flags []string
		if allowed {
			flags = append(flags, "--webhook-allow-private")
		}
		_, url := served(t, flags...)
		env := qgjobEnv(t, url)
		code, out := exitOfCommand(t, env, "qgjob", "webhook", "add", "--org-id=q", "--to="+receiver.URL, "--json")
		var added struct{ ID, Secret string }
		text, _, _ := strings.Cut(out, "The secret")
		if err := json.Unmarshal([]byte(text), &added); code != 0 || err != nil || added.Secret == "" {
			t.Fatalf("add: exit code %d, %v: %s", code, err, out)
		}
		if code, out := exitOfCommand(t, env, "qgjob", "submit", "--org-id=q", "--app-version-id=v", "--test=a.spec.js"); code != 0 {
			t.Fatal(out)
		}
		if code, out := exitOfCommand(t, env, "fakeworker", "passed"); code != 0 {
			t.Fatal(out)
		}
		state := "delivered"
		if !allowed {
			state = "waiting"
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		again := time.NewTicker(200 * time.Millisecond)
		defer again.Stop()
		for {
			code, out = exitOfCommand(t, env, "qgjob", "webhook", "deliveries", "--id="+added.ID)
			if code != 0 {
				t.Fatal(out)
			}
			if strings.Contains(out, " "+state+" ") && (allowed || strings.Contains(out, "127.0.0.1 is no address of the public internet")) {
				break
			}
			select {
			case <-again.C:
			case <-ctx.Done():
				t.Fatalf("the history never says %s: %s", state, out)
			}
		}
		if allowed {
			d := <-received
			seconds := strings.TrimPrefix(strings.Split(d.header.Get(webhook.SignatureHeader), ",")[0], "t=")
			var at int64
			if err := json.Unmarshal([]byte(seconds), &at); err != nil || webhook.Sign(added.Secret, []byte(d.body), time.Unix(at, 0)) != d.header.Get(webhook.SignatureHeader) {
				t.Errorf("the signature %q is not the secret's (%v)", d.header.Get(webhook.SignatureHeader), err)
			}
			if !strings.Contains(d.body, `"state":"passed"`) || d.header.Get(webhook.IDHeader) == "" {
				t.Errorf("the receiver heard %s", d.body)
			}
		}
		if code, out := exitOfCommand(t, env, "qgjob", "webhook", "list", "--org-id=q"); code != 0 || !strings.Contains(out, added.ID) || strings.Contains(out, added.Secret) {
			t.Errorf("list: exit code %d: %s", code, out)
		}
		if code, out := exitOfCommand(t, env, "qgjob", "webhook", "remove", "--id="+added.ID); code != 0 {
			t.Error(out)
		}
		if code, _ := exitOfCommand(t, env, "qgjob", "webhook", "deliveries", "--id="+added.ID); code != 2 {
			t.Errorf("deliveries of a webhook that was removed: exit code %d, want 2", code)
		}
	}
	if len(received) != 0 {
		t.Errorf("the receiver heard more than once")
	}
	for _, args := range [][]string{
		{"add", "--to=https://x"},
		{"add", "--org-id=q", "--to=ftp://x"},
		{"add", "--org-id=q", "--to=https://me:secret@x"},
		{"add", "--org-id=q", "--to=https://x", "--format=teams"},
		{"remove", "--id=7"},
	} {
		_, url := served(t)
		if code, out := exitOfCommand(t, qgjobEnv(t, url), append([]string{"qgjob", "webhook"}, args...)...); code != 2 || strings.Contains(out, "secret@") {
			t.Errorf("webhook %v: exit code %d, want 2: %s", args, code, out)
		}
	}
}
