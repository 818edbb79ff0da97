package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"qgjob"
)

var run = qgjob.Run{ID: "r1", State: qgjob.Failed, AppVersionID: "v1", CI: &qgjob.CI{Branch: "a<b"}, Jobs: []qgjob.Job{{TestPath: "a.spec.ts", State: qgjob.Failed}, {TestPath: "b.spec.ts", State: qgjob.Passed}}}

// TestSend: a receiver can check who sent a body and when, and knows a repetition by its id.
func TestSend(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var header http.Header
	var got []byte
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		header = r.Header
		got, _ = io.ReadAll(r.Body)
	}))
	defer receiver.Close()
	body, err := Body(qgjob.WebhookJSON, run)
	if err != nil {
		t.Fatal(err)
	}
	if status, err := NewSender(true).Send(t.Context(), receiver.URL, "secret", "id1", body, now); status != 200 || err != nil {
		t.Fatal(status, err)
	}
	mac := hmac.New(sha256.New, []byte("secret"))
	fmt.Fprintf(mac, "1700000000.%s", got)
	if want := "t=1700000000,v1=" + hex.EncodeToString(mac.Sum(nil)); header.Get(SignatureHeader) != want || header.Get(IDHeader) != "id1" {
		t.Errorf("headers %v, want the signature %s", header, want)
	}
	var sent struct {
		Event string
		Run   qgjob.Run
	}
	if err := json.Unmarshal(got, &sent); err != nil || sent.Event != "run.finished" || sent.Run.State != qgjob.Failed || len(sent.Run.Jobs) != 2 {
		t.Errorf("%s, %v", got, err)
	}
}

func TestSlack(t *testing.T) {
	body, err := Body(qgjob.WebhookSlack, run)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]string
	if err := json.Unmarshal(body, &m); err != nil || !strings.Contains(m["text"], "*failed* (1 of 2 jobs passed") || !strings.Contains(m["text"], "Branch a&lt;b") || !strings.Contains(m["text"], "• a.spec.ts") {
		t.Errorf("%s, %v", body, err)
	}
}

// TestRefused: no private address is reached, by whatever name; a redirect is an answer and not a way.
func TestRefused(t *testing.T) {
	reached := 0
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached++
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer receiver.Close()
	port := receiver.URL[strings.LastIndex(receiver.URL, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"} {
		_, err := NewSender(false).Send(t.Context(), "http://"+host+port+"/hook-secret", "s", "i", nil, time.Now())
		if err == nil || reached != 0 || strings.Contains(err.Error(), "hook-secret") {
			t.Errorf("%s: %v, reached %d times", host, err, reached)
		}
	}
	if status, err := NewSender(true).Send(t.Context(), receiver.URL, "s", "i", nil, time.Now()); status != 307 || err == nil || reached != 1 {
		t.Errorf("a redirect: %d, %v, reached %d times", status, err, reached)
	}
	for address, ok := range map[string]bool{
		"8.8.8.8:443": true, "[2001:4860:4860::8888]:443": true,
		"10.0.0.1:80": false, "172.16.3.4:80": false, "192.168.1.1:80": false, "169.254.169.254:80": false, "100.64.0.1:80": false,
		"0.0.0.0:80": false, "[::1]:80": false, "[fe80::1]:80": false, "[fd00::1]:80": false, "[64:ff9b::7f00:1]:80": false, "224.0.0.1:80": false,
	} {
		if err := checkAddress(address); (err == nil) != ok {
			t.Errorf("%s: %v, want allowed %v", address, err, ok)
		}
	}
}

func TestNext(t *testing.T) {
	total := time.Duration(0)
	for tries := 1; ; tries++ {
		wait, ok := Next(tries)
		if !ok {
			break
		}
		total += wait
	}
	if total < 20*time.Hour || total > 48*time.Hour {
		t.Errorf("a delivery is tried for %s", total)
	}
}
