// Package webhook sends what became of a run to an address that an organization registered.
//
// What it promises: a body is signed with the hook's secret and the time, so that nobody else can make one
// or send an old one again; addresses of private networks and of this machine are refused when the
// connection is made, whatever name led there, unless they are allowed; redirects are not followed.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"qgjob"
)

// The headers of a delivery besides its body.
const (
	IDHeader        = "Qgjob-Delivery"  // the same for every try of one delivery
	SignatureHeader = "Qgjob-Signature" // t=<unix seconds>,v1=<HMAC-SHA256 of "<t>.<body>" in hexadecimal>
)

// sendTime is how long a receiver may take to answer.
const sendTime = 10 * time.Second

// backoff is the wait before each further try; after the last one a delivery is given up.
var backoff = []time.Duration{
	10 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
}

// Next is the wait after so many failed tries; ok is false when there is no further one.
func Next(tries int) (wait time.Duration, ok bool) {
	if tries < 1 || tries > len(backoff) {
		return 0, false
	}
	return backoff[tries-1], true
}

// CheckURL refuses what cannot be a receiver's address.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return qgjob.Errorf(qgjob.CodeInvalid, "url is no receiver's address: use http or https, without a user or a password")
	}
	return nil
}

// Body is what is sent of a run with its verdict: plain JSON, or a message as Slack's incoming webhooks take.
func Body(format qgjob.WebhookFormat, run qgjob.Run) ([]byte, error) {
	count := map[qgjob.JobState]int{}
	var failed []string
	for _, j := range run.Jobs {
		count[j.State]++
		if j.State != qgjob.Passed && len(failed) < 20 {
			failed = append(failed, j.TestPath)
		}
	}
	if format == qgjob.WebhookSlack {
		text := fmt.Sprintf("qgjob: run %s is *%s* (%d of %d jobs passed, app version %s)", run.ID, run.State, count[qgjob.Passed], len(run.Jobs), slackText(run.AppVersionID))
		if run.CI != nil && run.CI.Branch != "" {
			text += "\nBranch " + slackText(run.CI.Branch)
		}
		if run.CI != nil && run.CI.URL != "" {
			text += "\n" + slackText(run.CI.URL)
		}
		for _, path := range failed {
			text += "\n• " + slackText(path)
		}
		return json.Marshal(map[string]string{"text": text})
	}
	return json.Marshal(struct {
		Event string    `json:"event"`
		Run   qgjob.Run `json:"run"`
	}{"run.finished", run})
}

// slackText is a text without Slack's control characters (https://api.slack.com/reference/surfaces/formatting).
func slackText(s string) string {
	var b bytes.Buffer
	for _, r := range s {
		switch r {
		case '&':
			b.WriteString("&amp;")
		case '<':
			b.WriteString("&lt;")
		case '>':
			b.WriteString("&gt;")
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Sign is the signature header of a body at a moment.
func Sign(secret string, body []byte, now time.Time) string {
	t := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// Sender delivers. Make it with NewSender; it may be used concurrently.
type Sender struct{ client *http.Client }

// NewSender makes a sender that refuses private and loopback addresses unless they are allowed.
func NewSender(allowPrivate bool) *Sender {
	dialer := &net.Dialer{Timeout: sendTime}
	if !allowPrivate {
		dialer.Control = func(_, address string, _ syscall.RawConn) error { return checkAddress(address) }
	}
	return &Sender{client: &http.Client{
		Timeout:       sendTime,
		Transport:     &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true, TLSHandshakeTimeout: sendTime}, // no proxy: it would connect for us
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// shared is the address space of carrier-grade translation (RFC 6598), which netip does not call private.
var shared = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("64:ff9b::/96")}

// checkAddress refuses an address, as resolved, that is not one of the public internet.
func checkAddress(address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := at.Addr().Unmap()
	public := ip.IsGlobalUnicast() && !ip.IsPrivate()
	for _, p := range shared {
		public = public && !p.Contains(ip)
	}
	if !public {
		return fmt.Errorf("%s is no address of the public internet: qgjob server --webhook-allow-private allows it", ip)
	}
	return nil
}

// Send delivers a body once. status is the receiver's answer, 0 when there was none; anything but 2xx is an error.
func (s *Sender) Send(ctx context.Context, address, secret, id string, body []byte, now time.Time) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "qgjob")
	req.Header.Set(IDHeader, id)
	req.Header.Set(SignatureHeader, Sign(secret, body, now))
	resp, err := s.client.Do(req)
	if err != nil {
		if e, ok := err.(*url.Error); ok {
			err = e.Err // without the address, which may hold the receiver's secret
		}
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // the status says it
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return resp.StatusCode, fmt.Errorf("the receiver answered %s", resp.Status)
	}
	return resp.StatusCode, nil
}
