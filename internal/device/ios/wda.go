package ios

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/appium"
)

// Ports for WebDriverAgent, which a simulator shares with its host.
const (
	firstWDAPort = 19000
	lastWDAPort  = 19799
)

const (
	wdaTimeout    = 6 * time.Minute // from the start of xcodebuild, which builds for minutes the first time, to the first answer
	wdaLook       = 250 * time.Millisecond
	statusTimeout = 3 * time.Second
	screenTimeout = 10 * time.Second
	stopTimeout   = 10 * time.Second // from SIGTERM to SIGKILL
	wdaTail       = 600              // bytes of xcodebuild's output in a message
	mostAnswer    = 64 << 20         // bytes of an answer; a picture of a large screen in base64 has some
)

// agent is a WebDriverAgent that xcodebuild runs on a device: a test that never ends.
type agent struct {
	*device.Process // xcodebuild's

	url  string
	udid string
	log  string
}

// ensureWDA makes s.wda one that answers.
func (s *session) ensureWDA(ctx context.Context, install *appium.Install) error {
	s.mu.Lock()
	wda := s.wda
	s.mu.Unlock()
	if wda != nil {
		err := wda.alive(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.log.Warn("WebDriverAgent does not answer: it is started again", "error", err)
		s.stopWDA()
	}
	if s.port != 0 && !device.PortFree(s.port) { // of a simulator, whose ports are this host's
		s.ports.Unlock()
		s.port = 0
	}
	if s.port == 0 {
		var err error
		if s.port, s.ports, err = device.ReservePort(device.HostLockDir, firstWDAPort, lastWDAPort); err != nil {
			return err
		}
	}
	host, err := s.t.address(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if wda, err = s.startWDA(install, "http://"+net.JoinHostPort(host, strconv.Itoa(s.port))); err != nil {
		return err
	}
	if err := wda.ready(ctx); err != nil {
		wda.Stop(stopTimeout)
		return err
	}
	s.log.Info("WebDriverAgent started", "url", wda.url, "took", time.Since(began).Round(time.Millisecond))
	s.mu.Lock()
	s.wda = wda
	s.mu.Unlock()
	return nil
}

// startWDA runs xcodebuild as Appium does.
func (s *session) startWDA(install *appium.Install, url string) (*agent, error) {
	x := xcode{udid: s.info.Serial, path: s.d.opts.Path}
	xcodebuild, err := x.find("xcodebuild")
	if err != nil {
		return nil, err
	}
	project, err := s.project(install)
	if err != nil {
		return nil, device.Failf(qgjob.CauseHostFailed, "WebDriverAgent's project cannot be made: %w", err)
	}
	args := []string{
		"build-for-testing", "test-without-building", "-project", filepath.Join(project, "WebDriverAgent.xcodeproj"), "-scheme", "WebDriverAgentRunner",
		"-derivedDataPath", filepath.Join(s.dir, "wda"), "-destination", "id=" + s.info.Serial,
		"GCC_TREAT_WARNINGS_AS_ERRORS=0", "COMPILER_INDEX_STORE_ENABLE=NO",
	}
	if s.info.Kind == qgjob.TargetDevice {
		args = append(args, "-allowProvisioningUpdates", "-allowProvisioningDeviceRegistration")
		if s.d.opts.Team != "" {
			args = append(args, "DEVELOPMENT_TEAM="+s.d.opts.Team, "CODE_SIGN_IDENTITY=Apple Development")
		}
	}
	w := &agent{url: url, udid: s.info.Serial, log: filepath.Join(s.dir, "wda.log")}
	output, err := os.Create(w.log)
	if err != nil {
		return nil, device.Failf(qgjob.CauseHostFailed, "WebDriverAgent cannot be started: %w", err)
	}
	defer output.Close() // the process has its own
	cmd := device.LifelineCommand(xcodebuild, args...)
	cmd.Dir = project
	cmd.Env = append(x.environment(), "USE_PORT="+strconv.Itoa(s.port))
	cmd.Stdout, cmd.Stderr = output, output
	if w.Process, err = device.StartProcess(cmd); err != nil {
		return nil, device.Failf(qgjob.CauseHostFailed, "WebDriverAgent cannot be started: %w", err)
	}
	return w, nil
}

// wdaName is what Apple's registry knows as Facebook's: another team signs under another name.
const wdaName = "com.facebook.WebDriverAgent"

// project is the directory of WebDriverAgent's project: as it is installed, or, where a team signs it, a copy under a name of the team's own.
func (s *session) project(install *appium.Install) (string, error) {
	original := install.Module("appium-webdriveragent")
	team := s.d.opts.Team
	if team == "" || s.info.Kind != qgjob.TargetDevice {
		return original, nil
	}
	dir := filepath.Join(s.dir, "wda-project-"+team+"-"+filepath.Base(install.Dir))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := os.CopyFS(tmp, os.DirFS(original)); err != nil {
		return "", err
	}
	file := filepath.Join(tmp, "WebDriverAgent.xcodeproj", "project.pbxproj")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	named := strings.ReplaceAll(string(text), wdaName, "dev.qgjob."+strings.ToLower(team)+".WebDriverAgent")
	if err := os.WriteFile(file, []byte(named), 0o644); err != nil {
		return "", err
	}
	return dir, os.Rename(tmp, dir)
}

// ready returns when WebDriverAgent answers.
func (w *agent) ready(ctx context.Context) error {
	late := device.Failf(qgjob.CauseDeviceHung, "WebDriverAgent did not start on iPhone %s within %v: unlock it, and read %s", w.udid, wdaTimeout, w.log)
	ctx, cancel := context.WithTimeoutCause(ctx, wdaTimeout, late)
	defer cancel()
	look := time.NewTicker(wdaLook)
	defer look.Stop()
	for {
		if _, err := w.status(ctx); err == nil && !w.Gone() {
			return nil
		}
		select {
		case <-look.C:
		case <-w.Done():
			return w.failure()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// failure says why xcodebuild ended.
func (w *agent) failure() error {
	data, err := os.ReadFile(w.log)
	if err != nil {
		return device.Failf(qgjob.CauseHostFailed, "WebDriverAgent did not start on iPhone %s: %w", w.udid, err)
	}
	text := strings.TrimSpace(string(data[max(0, len(data)-wdaTail):]))
	advice := "read " + w.log
	switch {
	case strings.Contains(text, "requires a development team"):
		advice = "name the team that signs it (qgjob worker --ios-team)"
	case gone.MatchString(text):
		return device.Failf(qgjob.CauseDeviceOffline, "iPhone %s was lost when WebDriverAgent was to start on it: %s", w.udid, text)
	}
	return device.Failf(qgjob.CauseHostFailed, "WebDriverAgent did not start on iPhone %s: %s: %s", w.udid, advice, text)
}

// alive says whether WebDriverAgent runs and answers.
func (w *agent) alive(ctx context.Context) error {
	if w.Gone() {
		return device.Failf(qgjob.CauseSessionDied, "WebDriverAgent on iPhone %s has ended by itself: read %s", w.udid, w.log)
	}
	_, err := w.status(ctx)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("WebDriverAgent on iPhone %s: %w", w.udid, context.Cause(ctx))
	}
	return device.Failf(qgjob.CauseDeviceHung, "WebDriverAgent on iPhone %s does not answer: %w: restart the device", w.udid, err)
}

// status asks WebDriverAgent how it is; session is the one that is open, "" for none.
func (w *agent) status(ctx context.Context) (session string, err error) {
	var answer struct {
		SessionID string `json:"sessionId"`
	}
	err = w.call(ctx, statusTimeout, http.MethodGet, "/status", &answer)
	return answer.SessionID, err
}

// endSession ends a session that is open, whoever made it.
func (w *agent) endSession(ctx context.Context) error {
	session, err := w.status(ctx)
	if err != nil || session == "" {
		return err
	}
	var ignored json.RawMessage
	return w.call(ctx, statusTimeout, http.MethodDelete, "/session/"+session, &ignored)
}

// wdaClient keeps no connections: an answer must come from the process that runs now.
var wdaClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

var errNoStatus = errors.New("it does not answer")

// screen asks for what the device shows, which needs no session.
func (w *agent) screen(ctx context.Context) (png []byte, err error) {
	var answer struct {
		Value []byte `json:"value"`
	}
	err = w.call(ctx, screenTimeout, http.MethodGet, "/screenshot", &answer)
	return answer.Value, err
}

func (w *agent) call(ctx context.Context, timeout time.Duration, method, path string, answer any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errNoStatus)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, w.url+path, nil)
	if err != nil {
		return err
	}
	got, err := wdaClient.Do(request)
	if err != nil {
		return err
	}
	defer got.Body.Close()
	body, err := io.ReadAll(io.LimitReader(got.Body, mostAnswer))
	if err == nil && got.StatusCode != http.StatusOK && got.StatusCode != http.StatusNotFound { // of a session that has just ended
		err = fmt.Errorf("%s %s: %s: %.200s", method, path, got.Status, body)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(body, answer)
}

// stopWDA ends xcodebuild, and WebDriverAgent with it.
func (s *session) stopWDA() {
	s.mu.Lock()
	wda := s.wda
	s.wda = nil
	s.mu.Unlock()
	if wda != nil {
		wda.Stop(stopTimeout)
	}
}
