package browserstack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

const (
	// uploadLife is how old an upload may be to be used: BrowserStack deletes it after 30 days, and a run that
	// begins with it must end with it.
	uploadLife = 28 * 24 * time.Hour
	// BrowserStack takes so many uploads within a minute.
	uploadsPerMinute = 5
	uploadMinute     = time.Minute
	// afterTooMany is how long to wait when BrowserStack counts more uploads than this driver made.
	afterTooMany = 15 * time.Second
)

// uploads has each build on the account once, known there by its SHA-256 as the custom id.
type uploads struct {
	rest *rest
	log  *slog.Logger
	now  func() time.Time
	wait func(context.Context, time.Duration) error

	mu    sync.Mutex
	turns map[string]chan struct{} // by SHA-256; holds a token while somebody works on it
	sent  []time.Time              // of the uploads within the last minute
}

func newUploads(r *rest, log *slog.Logger) *uploads {
	return &uploads{rest: r, log: log, now: time.Now, wait: pause, turns: map[string]chan struct{}{}}
}

// customID is what the account calls a build.
func customID(sha256 string) string { return "qgjob-" + sha256 }

// ensure returns the reference of a build at BrowserStack, and says whether it had to be uploaded. The account
// is asked each time: somebody may have deleted it.
func (u *uploads) ensure(ctx context.Context, b device.Build) (ref string, uploaded bool, err error) {
	turn := u.turn(b.SHA256)
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return "", false, fmt.Errorf("upload of build %.12s: %w", b.SHA256, context.Cause(ctx))
	}
	if ref, err = u.find(ctx, b.SHA256); err != nil || ref != "" {
		return ref, false, err
	}
	for {
		if err := u.mayUpload(ctx); err != nil {
			return "", false, err
		}
		began := u.now()
		ref, err = u.upload(ctx, b)
		if no, ok := errors.AsType[*refusal](err); ok && no.status == http.StatusTooManyRequests {
			u.log.Info("BrowserStack takes no more uploads for now", "wait", afterTooMany)
			if err := u.wait(ctx, afterTooMany); err != nil {
				return "", false, err
			}
			continue
		}
		if err == nil {
			u.log.Info("build uploaded to BrowserStack", "sha256", b.SHA256, "took", u.now().Sub(began).Round(time.Millisecond))
		}
		return ref, err == nil, err
	}
}

func (u *uploads) turn(sha256 string) chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.turns[sha256] == nil {
		u.turns[sha256] = make(chan struct{}, 1)
	}
	return u.turns[sha256]
}

// find returns the newest upload of a build that will live on for a while, "" for none.
func (u *uploads) find(ctx context.Context, sha256 string) (ref string, err error) {
	var answer json.RawMessage
	if err := u.rest.get(ctx, &answer, nil, "recent_apps", customID(sha256)); err != nil {
		if no, ok := errors.AsType[*refusal](err); ok && no.status == http.StatusNotFound {
			return "", nil
		}
		return "", err
	}
	var apps []struct {
		URL        string `json:"app_url"`
		UploadedAt string `json:"uploaded_at"`
	}
	if json.Unmarshal(answer, &apps) != nil {
		return "", nil // {"message": "No results found"}
	}
	var newest time.Time
	for _, a := range apps {
		at, err := time.Parse(timeLayout, a.UploadedAt)
		if err == nil && at.After(newest) && u.now().Sub(at) < uploadLife {
			ref, newest = a.URL, at
		}
	}
	return ref, nil
}

// mayUpload waits until one more upload is within the limit, and counts it.
func (u *uploads) mayUpload(ctx context.Context) error {
	for {
		u.mu.Lock()
		now := u.now()
		u.sent = slices.DeleteFunc(u.sent, func(at time.Time) bool { return now.Sub(at) >= uploadMinute })
		if len(u.sent) < uploadsPerMinute {
			u.sent = append(u.sent, now)
			u.mu.Unlock()
			return nil
		}
		left := uploadMinute - now.Sub(u.sent[0])
		u.mu.Unlock()
		if err := u.wait(ctx, left); err != nil {
			return err
		}
	}
}

func (u *uploads) upload(ctx context.Context, b device.Build) (string, error) {
	file, err := os.Open(b.Path)
	if err != nil {
		return "", device.Failf(qgjob.CauseHostFailed, "build cannot be read: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", device.Failf(qgjob.CauseHostFailed, "build cannot be read: %w", err)
	}
	// The form around the file is written beforehand, so that the length of all is known.
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	err = w.WriteField("custom_id", customID(b.SHA256))
	if err == nil {
		_, err = w.CreateFormFile("file", fileName(b))
	}
	head := form.Len()
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return "", device.Failf(qgjob.CauseHostFailed, "the upload cannot be made: %w", err)
	}
	body := io.MultiReader(bytes.NewReader(form.Bytes()[:head]), file, bytes.NewReader(form.Bytes()[head:]))
	to := u.rest.api.JoinPath("upload")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), io.NopCloser(body))
	if err != nil {
		return "", device.Failf(qgjob.CauseHostFailed, "the upload cannot be made: %w", err)
	}
	req.ContentLength = int64(form.Len()) + info.Size()
	var answer struct {
		URL string `json:"app_url"`
	}
	if err := u.rest.send(req, w.FormDataContentType(), &answer); err != nil {
		if no, ok := errors.AsType[*refusal](err); ok && (no.status == http.StatusBadRequest || no.status == http.StatusUnprocessableEntity) {
			return "", device.Failf(qgjob.CauseBadBuild, "BrowserStack does not take build %.12s of %s: %w: build it again", b.SHA256, b.Package, no)
		}
		return "", err
	}
	if !strings.HasPrefix(answer.URL, "bs://") {
		return "", device.Failf(qgjob.CauseCloudRefused, "BrowserStack took build %.12s and did not say how it calls it: try again", b.SHA256)
	}
	return answer.URL, nil
}

// fileName has the ending by which BrowserStack knows an app.
func fileName(b device.Build) string {
	ending := ".apk"
	if b.Platform == qgjob.PlatformIOS {
		ending = ".ipa"
	}
	return strings.TrimSuffix(filepath.Base(b.Path), filepath.Ext(b.Path)) + ending
}

// pause waits for a duration.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for BrowserStack: %w", context.Cause(ctx))
	}
}
