package appwright

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"qgjob"
)

// What stands before the cloud takes BrowserStack's names, keeps credentials away from the endpoint, leaves the
// app to it, and remembers what the REST interface failed to do.
func TestCloudFront(t *testing.T) {
	var seen []*http.Request
	var app any
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r)
		switch r.URL.Path {
		case "/secret/session":
			var asked struct {
				Capabilities struct {
					AlwaysMatch map[string]any `json:"alwaysMatch"`
				} `json:"capabilities"`
			}
			json.NewDecoder(r.Body).Decode(&asked)
			app = asked.Capabilities.AlwaysMatch["appium:app"]
			io.WriteString(w, `{"value":{"sessionId":"s1","capabilities":{}}}`)
		case "/secret/app-automate/sessions/s1.json":
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, `{"error":"BrowserStack cannot be reached at home"}`)
		default:
			io.WriteString(w, `{"value":null}`)
		}
	}))
	defer upstream.Close()
	p, err := Run{Upstream: Upstream{URL: upstream.URL + "/secret", Cloud: true}}.startProxy(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	certFile := filepath.Join(t.TempDir(), "cloud.pem")
	if err := p.standBefore(certFile); err != nil {
		t.Fatal(err)
	}
	certificate, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(certificate)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: trusted}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", p.cloud.listener.Addr().String())
		},
	}}
	ask := func(method, url, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("qgjob", "qgjob")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		data, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(data)
	}
	if status, body := ask("POST", "https://hub.browserstack.com/wd/hub/session", `{"capabilities":{"alwaysMatch":{"appium:app":"bs://1"}}}`); status != http.StatusOK || !strings.Contains(body, "s1") || app != "bs://1" {
		t.Errorf("session: %d %s with app %v", status, body, app)
	}
	if status, body := ask("GET", "https://hub.browserstack.com/wd/hub/session/s1/source", ""); status != http.StatusOK {
		t.Errorf("command: %d %s", status, body)
	}
	if status, body := ask("GET", "https://api-cloud.browserstack.com/app-automate/sessions/s1.json", ""); status != http.StatusBadGateway || !strings.Contains(body, "at home") {
		t.Errorf("details: %d %s", status, body)
	}
	if res, err := client.Get("https://example.com/"); err == nil {
		res.Body.Close()
		t.Error("the certificate is good for other names")
	}
	evidence := p.close()
	var paths []string
	for _, r := range seen {
		paths = append(paths, r.Method+" "+r.URL.Path)
		if r.Header.Get("Authorization") != "" {
			t.Errorf("%s %s carries credentials", r.Method, r.URL.Path)
		}
	}
	want := "POST /secret/session, GET /secret/session/s1/source, GET /secret/app-automate/sessions/s1.json, DELETE /secret/session/s1"
	if got := strings.Join(paths, ", "); got != want {
		t.Errorf("the endpoint saw %s, want %s", got, want)
	}
	if len(evidence.Errors) != 1 || evidence.Errors[0].Cause != qgjob.CauseCloudUnreachable || !strings.Contains(evidence.Errors[0].Message, "at home") {
		t.Errorf("evidence: %+v", evidence.Errors)
	}
}

func TestCausesOfClouds(t *testing.T) {
	for text, want := range map[string]qgjob.Cause{
		"[BROWSERSTACK_QUEUE_SIZE_EXCEEDED] All parallel tests are currently in use, including the queued tests.": qgjob.CauseCloudQueueFull,
		"BrowserStack cannot be reached at hub.browserstack.com: connect: ECONNREFUSED":                           qgjob.CauseCloudUnreachable,
		"BrowserStack refuses the credentials (status 401: Unauthorized)":                                         qgjob.CauseCloudRefused,
		"[BROWSERSTACK_INVALID_DEVICE] Could not find device":                                                     qgjob.CauseProjectInvalid,
	} {
		if got := creationCause(text); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}
