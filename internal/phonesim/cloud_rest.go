package phonesim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cloudApp is an uploaded app.
type cloudApp struct {
	id, customID, name string
	os                 string // android or ios
	info               apkInfo
	sha256             string
	content            []byte
	uploadedAt         time.Time // by the cloud's clock
}

func (a *cloudApp) url() string { return "bs://" + a.id }

// cloudRefusal is what the REST interface says of a request that it refuses.
type cloudRefusal string

func (r cloudRefusal) Error() string { return string(r) }

// timeFormat is how the REST interface writes times.
const timeFormat = "2006-01-02 15:04:05 UTC"

// routes are those of the REST interface, of the hub, and of what the dashboard serves.
func (c *Cloud) routes() http.Handler {
	mux := http.NewServeMux()
	rest := func(pattern string, handle http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !c.authorized(r) {
				w.Header().Set("WWW-Authenticate", `Basic realm="Application"`)
				writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "Unauthorized"})
				return
			}
			handle(w, r)
		})
	}
	rest("GET /app-automate/plan.json", c.getPlan)
	rest("POST /app-automate/upload", c.postUpload)
	rest("GET /app-automate/recent_apps", c.getApps)
	rest("GET /app-automate/recent_apps/{custom}", c.getApps)
	rest("DELETE /app-automate/app/delete/{id}", c.deleteApp)
	rest("GET /app-automate/devices.json", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, cloudDevices) })
	rest("GET /app-automate/builds.json", c.getBuilds)
	rest("GET /app-automate/builds/{build}/sessions.json", c.getBuildSessions)
	rest("GET /app-automate/sessions/{file}", c.getSession)
	rest("PUT /app-automate/sessions/{file}", c.putSession)
	mux.HandleFunc("GET /sessions/{id}/video", c.getVideo)
	mux.HandleFunc("/wd/hub/", c.serveHub)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.log.Debug("the simulated BrowserStack has no such page", "method", r.Method, "path", r.URL.Path)
		writeJSON(w, http.StatusNotFound, map[string]string{"error": "Not Found"})
	})
	return mux
}

func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return err
	}
	return json.Unmarshal(body, v)
}

func (c *Cloud) getPlan(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{
		"automate_plan": "App Automate", "parallel_sessions_running": c.countRunning(), "parallel_sessions_max_allowed": c.options.Parallels,
		"team_parallel_sessions_max_allowed": c.options.Parallels, "queued_sessions": len(c.waiting), "queued_sessions_max_allowed": c.options.Queue,
	})
}

var customIDPattern = regexp.MustCompile(`[^A-Za-z0-9._-]`)

func (c *Cloud) postUpload(w http.ResponseWriter, r *http.Request) {
	app, status, err := c.takeUpload(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.ledger.UploadsRefused++
		c.log.Info("upload refused", "reason", err)
		writeJSON(w, status, map[string]string{"error": err.Error()})
		return
	}
	app.uploadedAt = c.now()
	c.apps = append(c.apps, app)
	c.ledger.Uploads++
	c.ledger.UploadsOf[app.sha256]++
	c.log.Info("uploaded", "app", app.url(), "custom_id", app.customID, "package", app.info.pkg)
	answer := map[string]string{"app_url": app.url()}
	if app.customID != "" {
		answer["custom_id"], answer["shareable_id"] = app.customID, c.options.Username+"/"+app.customID
	}
	writeJSON(w, http.StatusOK, answer)
}

// takeUpload reads an upload and says, with the status of the answer, why it is refused.
func (c *Cloud) takeUpload(r *http.Request) (*cloudApp, int, error) {
	if !c.mayUpload() {
		return nil, http.StatusTooManyRequests, cloudRefusal(fmt.Sprintf("You have exceeded the limit of %d uploads per minute. Please try again later.", c.options.UploadsPerMinute))
	}
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, http.StatusUnprocessableEntity, cloudRefusal("Invalid request: either file or url is required")
	}
	app := &cloudApp{id: hashedID()}
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = app.take(part)
		}
		if err != nil {
			return nil, http.StatusBadRequest, err
		}
	}
	if err := pass(c.ctx, c.options.UploadTime); err != nil {
		return nil, http.StatusServiceUnavailable, err
	}
	if err := r.Context().Err(); err != nil {
		return nil, http.StatusBadRequest, err
	}
	c.mu.Lock()
	fault := c.fault
	c.mu.Unlock()
	if fault.Kind == CloudRefuseUpload {
		return nil, http.StatusUnprocessableEntity, cloudRefusal(fault.Message)
	}
	if app.content == nil {
		return nil, http.StatusUnprocessableEntity, cloudRefusal("Invalid request: either file or url is required")
	}
	read := readAPK
	if app.os == osIOS {
		read = readIPA
	}
	if app.info, err = read(app.content); err != nil {
		return nil, http.StatusUnprocessableEntity, cloudRefusal("Malformed archive: Failed to parse manifest file in the app: " + err.Error())
	}
	sum := sha256.Sum256(app.content)
	app.sha256 = hex.EncodeToString(sum[:])
	return app, http.StatusOK, nil
}

func (a *cloudApp) take(part *multipart.Part) error {
	content, err := io.ReadAll(io.LimitReader(part, maxAPK))
	if err != nil {
		return err
	}
	switch part.FormName() {
	case "file":
		switch filepath.Ext(part.FileName()) {
		case ".apk":
			a.os = osAndroid
		case ".ipa":
			a.os = osIOS
		default:
			return cloudRefusal("Invalid file extension: Supported file formats are .apk, .aab and .ipa, of which the simulated BrowserStack takes the first and the last")
		}
		a.name, a.content = part.FileName(), content
	case "custom_id":
		a.customID = customIDPattern.ReplaceAllString(string(content), "")
		if len(a.customID) > longestCustom {
			return fmt.Errorf("custom_id can have %d characters at most", longestCustom)
		}
	}
	return nil
}

// mayUpload counts an upload, unless there were too many within the last minute.
func (c *Cloud) mayUpload() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	c.uploads = slices.DeleteFunc(c.uploads, func(at time.Time) bool { return now.Sub(at) >= time.Minute })
	if len(c.uploads) >= c.options.UploadsPerMinute {
		return false
	}
	c.uploads = append(c.uploads, now)
	return true
}

// liveApps are the uploads that have not been deleted for their age. It is called with the lock held.
func (c *Cloud) liveApps() []*cloudApp {
	now := c.now()
	c.apps = slices.DeleteFunc(c.apps, func(a *cloudApp) bool { return now.Sub(a.uploadedAt) >= uploadLife })
	return c.apps
}

// findApp finds what the capability "app" names: bs:// with an id, or a custom_id, of which the newest upload counts.
func (c *Cloud) findApp(name string) *cloudApp {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range slices.Backward(c.liveApps()) {
		if name == a.url() || name != "" && name == a.customID {
			return a
		}
	}
	return nil
}

func (c *Cloud) getApps(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []map[string]string{}
	for _, a := range slices.Backward(c.liveApps()) {
		if custom := r.PathValue("custom"); custom != "" && custom != a.customID || len(list) == 10 {
			continue
		}
		list = append(list, map[string]string{
			"app_name": a.name, "app_version": a.info.versionName, "app_url": a.url(), "app_id": a.id, "uploaded_at": a.uploadedAt.UTC().Format(timeFormat),
			"custom_id": a.customID, "shareable_id": c.options.Username + "/" + a.customID,
		})
	}
	if len(list) == 0 {
		writeJSON(w, http.StatusOK, map[string]string{"message": "No results found"})
		return
	}
	writeJSON(w, http.StatusOK, list)
}

func (c *Cloud) deleteApp(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.apps)
	c.apps = slices.DeleteFunc(c.apps, func(a *cloudApp) bool { return a.id == r.PathValue("id") })
	if len(c.apps) == before {
		writeJSON(w, http.StatusNotFound, map[string]any{"success": false, "message": "App not found"})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"success": true})
}

// DeleteUploads removes every upload of a file, as somebody with the dashboard at hand would.
func (c *Cloud) DeleteUploads(sha256 string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apps = slices.DeleteFunc(c.apps, func(a *cloudApp) bool { return a.sha256 == sha256 })
}

// page applies limit and offset to a list of n, and returns the ends of what is left.
func page(r *http.Request, n int) (from, to int) {
	number := func(name string, otherwise int) int {
		if v, err := strconv.Atoi(r.URL.Query().Get(name)); err == nil && v >= 0 {
			return v
		}
		return otherwise
	}
	from = min(number("offset", 0), n)
	return from, min(from+min(number("limit", 10), 100), n)
}

func (c *Cloud) getBuilds(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	status := map[string]string{} // by the build's name
	var names []string            // the one with the newest session first
	for _, s := range slices.Backward(c.sessions) {
		if status[s.Build] == "" {
			names = append(names, s.Build)
			status[s.Build] = "done"
		}
		if s.Status == "running" {
			status[s.Build] = "running"
		}
	}
	if want := r.URL.Query().Get("status"); want != "" {
		names = slices.DeleteFunc(names, func(name string) bool { return status[name] != want })
	}
	list := []any{}
	from, to := page(r, len(names))
	for _, name := range names[from:to] {
		list = append(list, map[string]any{"automation_build": map[string]any{"name": name, "status": status[name], "duration": 0, "hashed_id": buildID(name)}})
	}
	writeJSON(w, http.StatusOK, list)
}

func (c *Cloud) getBuildSessions(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*cloudSession
	for _, s := range slices.Backward(c.sessions) {
		if want := r.URL.Query().Get("status"); buildID(s.Build) == r.PathValue("build") && (want == "" || want == s.Status) {
			found = append(found, s)
		}
	}
	list := []any{}
	from, to := page(r, len(found))
	for _, s := range found[from:to] {
		list = append(list, map[string]any{"automation_session": c.describe(s)})
	}
	writeJSON(w, http.StatusOK, list)
}

// named returns the session that a path names as ID.json. It is called with the lock held.
func (c *Cloud) named(r *http.Request) *cloudSession {
	id, ok := strings.CutSuffix(r.PathValue("file"), ".json")
	if !ok {
		return nil
	}
	return c.session(id)
}

func noSession(w http.ResponseWriter) {
	writeJSON(w, http.StatusNotFound, map[string]string{"error": "Session not found"})
}

func (c *Cloud) getSession(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.named(r)
	if s == nil {
		noSession(w)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"automation_session": c.describe(s)})
}

func (c *Cloud) putSession(w http.ResponseWriter, r *http.Request) {
	var change struct {
		Name   *string `json:"name"`
		Status *string `json:"status"`
		Reason *string `json:"reason"`
	}
	err := readJSON(w, r, &change)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.named(r)
	switch {
	case s == nil:
		noSession(w)
		return
	case err != nil:
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	if change.Name != nil {
		s.Name = *change.Name
	}
	if change.Status != nil {
		s.marked = "passed"
		if *change.Status != "passed" {
			s.marked = "failed"
		}
		if s.EndedAt != nil {
			s.Status = s.marked
		}
	}
	if change.Reason != nil {
		s.Reason = *change.Reason
	}
	writeJSON(w, http.StatusOK, map[string]any{"automation_session": c.describe(s)})
}

// describe is a session as the REST interface shows it. It is called with the lock held.
func (c *Cloud) describe(s *cloudSession) map[string]any {
	duration := 0
	if s.MadeAt != nil {
		end := c.now()
		if s.EndedAt != nil {
			end = *s.EndedAt
		}
		duration = int(end.Sub(*s.MadeAt).Seconds())
	}
	page := "/app-automate/dashboard/builds/" + buildID(s.Build) + "/sessions/" + s.ID
	return map[string]any{
		"name": s.Name, "duration": duration, "os": s.os, "os_version": s.osVersion, "browser_version": "app", "browser": nil, "device": s.Device,
		"status": s.Status, "hashed_id": s.ID, "reason": s.Reason, "build_name": s.Build, "project_name": s.Project,
		"logs": c.URL() + page + "/logs", "browser_url": c.URL() + page, "public_url": c.URL() + page + "?auth_token=" + s.token,
		"video_url":   c.URL() + "/sessions/" + s.ID + "/video?token=" + s.token,
		"app_details": map[string]any{"app_url": s.app.url(), "app_name": s.app.name, "app_version": s.app.info.versionName, "app_custom_id": s.app.customID, "uploaded_at": s.app.uploadedAt.UTC().Format(timeFormat)},
	}
}

// getVideo serves the recording of a session that has ended. It needs no credentials but the token. Nothing
// was recorded: it is a film of no length.
func (c *Cloud) getVideo(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.session(r.PathValue("id"))
	if s == nil || s.EndedAt == nil || s.token != r.URL.Query().Get("token") {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "video/mp4")
	_, _ = io.WriteString(w, "\x00\x00\x00\x14ftypisom\x00\x00\x02\x00isom\x00\x00\x00\x08moov") // the client may be gone
}
