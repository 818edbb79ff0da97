package android

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/adb"
)

// Bounds of an install.
const (
	stallTimeout   = 60 * time.Second // without a byte going to the device
	verdictTimeout = 5 * time.Minute  // from the last byte to the package manager's answer
	hashTimeout    = 2 * time.Minute  // of the device's hash over a build
	progressEvery  = 5 * time.Second  // between lines of the log
)

// apk is a file that is to be a package on the device.
type apk struct{ path, sha256, pkg string }

// Prepare implements device.Session.
func (s *session) Prepare(ctx context.Context, b device.Build) (device.Preparation, error) {
	if err := s.use(); err != nil {
		return device.Preparation{}, err
	}
	if !packageName.MatchString(b.Package) {
		return device.Preparation{}, device.Failf(qgjob.CauseBadBuild, "build %s has no valid package name: %q", b.Path, b.Package)
	}
	var did device.Preparation
	file := apk{b.Path, b.SHA256, b.Package}
	there, err := s.installed(ctx, file)
	if err != nil {
		return did, err
	}
	if !s.swept { // of what a worker left that died while it recorded
		s.swept = s.sweepFilm(ctx) == nil
	}
	began := time.Now()
	if there {
		if err := s.reset(ctx, b.Package); err != nil {
			return did, err
		}
		did.Reset = time.Since(began)
	} else {
		took, err := s.installBesideAppium(ctx, file)
		if err != nil {
			return did, err
		}
		did.Installed, did.Install = true, took
		s.log.Info("build installed", "package", b.Package, "sha256", b.SHA256, "took", did.Install.Round(time.Millisecond))
	}
	s.record.Set(record{Package: b.Package, App: b.Key})
	return did, nil
}

// installBesideAppium installs a build while the Appium starts that Endpoint will ask for, and says how long the install took.
func (s *session) installBesideAppium(ctx context.Context, file apk) (took time.Duration, err error) {
	starting, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var appium sync.WaitGroup
	appium.Go(func() { s.startAppium(starting) })
	defer appium.Wait()
	began := time.Now()
	if err = s.install(ctx, file); err != nil {
		giveUp()
	}
	return time.Since(began), err
}

// packageName is what Android takes for one; nothing else goes into a command line.
var packageName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+$`)

// installed says whether the device holds exactly these bytes as the package. It asks the device each time:
// somebody may have replaced the app, by hand or from another host.
func (s *session) installed(ctx context.Context, file apk) (bool, error) {
	out, err := s.shell(ctx, commandTimeout, "pm path "+file.pkg)
	if err != nil {
		return false, err
	}
	paths := strings.Fields(strings.ReplaceAll(out.Stdout, "package:", " "))
	if len(paths) != 1 { // not there, or in several parts, which none of ours is
		return false, nil
	}
	sum, err := s.hash(ctx, paths[0])
	if err != nil {
		return false, err
	}
	return sum == file.sha256, nil
}

// hash is the SHA-256 of a file on the device, "" for one that cannot be read. Phones before Android 8 have
// no sha256sum: their file is read and hashed here, which is slower and proves as much.
func (s *session) hash(ctx context.Context, path string) (string, error) {
	out, err := s.shell(ctx, hashTimeout, "sha256sum "+adb.Quote(path))
	if err != nil {
		return "", err
	}
	if fields := strings.Fields(out.Stdout); out.Code == 0 && len(fields) > 0 {
		return fields[0], nil
	}
	command := "cat " + adb.Quote(path)
	asking, cancel := s.bounded(ctx, hashTimeout, command)
	defer cancel()
	conn, err := s.d.client.Exec(asking, s.serial, command)
	if err != nil {
		return "", s.explain(ctx, command, err)
	}
	defer conn.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, conn); err != nil {
		return "", s.explain(ctx, command, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// reset clears the app's data, and gives it back the permissions that clearing takes away: they were
// granted at the install, as AppWright asks for.
func (s *session) reset(ctx context.Context, pkg string) error {
	out, err := s.shell(ctx, commandTimeout, "pm clear "+pkg)
	if err != nil {
		return err
	}
	if !strings.Contains(out.Stdout, "Success") {
		return device.Failf(qgjob.CauseInstallRefused, "device %s does not clear the data of %s: %.300s", s.serial, pkg, out.Text())
	}
	out, err = s.shell(ctx, commandTimeout, "dumpsys package "+pkg)
	if err != nil {
		return err
	}
	var grants []string
	for _, p := range revokedPermissions(out.Stdout) {
		grants = append(grants, "pm grant "+pkg+" "+p)
	}
	if len(grants) == 0 {
		return nil
	}
	// One that the device does not grant is the app's to ask for, as after a fresh install.
	_, err = s.shell(ctx, commandTimeout, strings.Join(grants, "; "))
	return err
}

var revokedPermission = regexp.MustCompile(`^\s+([A-Za-z0-9_.]+): granted=false`)

// revokedPermissions are the runtime permissions that `dumpsys package` shows as not granted.
func revokedPermissions(dump string) []string {
	var permissions []string
	runtime := false
	for line := range strings.Lines(dump) {
		if strings.HasSuffix(strings.TrimSpace(line), ":") {
			runtime = strings.TrimSpace(line) == "runtime permissions:"
			continue
		}
		if m := revokedPermission.FindStringSubmatch(line); runtime && m != nil {
			permissions = append(permissions, m[1])
		}
	}
	return permissions
}

// install puts a file on the device as its package, in the place of whatever is there, and proves it.
func (s *session) install(ctx context.Context, file apk) error {
	verdict, err := s.stream(ctx, file)
	if err != nil {
		return err
	}
	if code := verdict.code(); replaceable[code] {
		s.log.Info("another build of the app is in the way: it is uninstalled", "package", file.pkg, "code", code)
		out, err := s.shell(ctx, verdictTimeout, "pm uninstall "+file.pkg)
		if err != nil {
			return err
		}
		if strings.Contains(out.Stdout, "Success") {
			if verdict, err = s.stream(ctx, file); err != nil {
				return err
			}
		}
	}
	if err := verdict.failure(s.serial, file); err != nil {
		return err
	}
	there, err := s.installed(ctx, file)
	if err != nil {
		return err
	}
	if !there {
		return device.Failf(qgjob.CauseInstallRefused, "device %s says that it installed %s and holds something else", s.serial, file.pkg)
	}
	return nil
}

// stream sends a file to the device's package manager and returns what that says.
//   - -r replaces, -t allows test builds, -g grants the permissions that the app asks for.
func (s *session) stream(ctx context.Context, file apk) (verdict, error) {
	content, err := os.Open(file.path)
	if err != nil {
		return "", device.Failf(qgjob.CauseHostFailed, "build cannot be read: %w", err)
	}
	defer content.Close()
	info, err := content.Stat()
	if err != nil {
		return "", device.Failf(qgjob.CauseHostFailed, "build cannot be read: %w", err)
	}
	doing := "install of " + file.pkg
	sending, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(stallTimeout, func() { cancel(s.hung(doing, stallTimeout)) })
	defer stalled.Stop()

	conn, err := s.d.client.Exec(sending, s.serial, fmt.Sprintf("cmd package install -r -t -g -S %d", info.Size()))
	if err != nil {
		return "", s.explain(ctx, doing, err)
	}
	defer conn.Close()
	answer := make(chan reply, 1)
	go func() { // a refusal may come before everything was sent
		text, err := io.ReadAll(io.LimitReader(conn, 64<<10))
		answer <- reply{string(text), err}
	}()
	progress := &progress{w: conn, total: info.Size(), log: s.log, last: time.Now(), moved: func() { stalled.Reset(stallTimeout) }}
	_, sendErr := io.Copy(progress, content)
	if sendErr == nil {
		stalled.Stop()
		late := time.AfterFunc(verdictTimeout, func() { cancel(s.hung(doing, verdictTimeout)) })
		defer late.Stop()
	}
	got := <-answer
	if v := verdict(strings.TrimSpace(got.text)); v != "" {
		if starting(got.text) {
			return "", s.notUpYet()
		}
		return v, nil
	}
	if sendErr != nil {
		return "", s.explain(ctx, doing, sendErr)
	}
	if got.err == nil {
		got.err = adb.ErrCut
	}
	return "", s.explain(ctx, doing, got.err)
}

type reply struct {
	text string
	err  error
}

// progress counts what goes to a device, says so in the log from time to time, and tells when it moves.
type progress struct {
	w           io.Writer
	sent, total int64
	last        time.Time
	log         *slog.Logger
	moved       func()
}

func (p *progress) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.sent += int64(n)
	if n > 0 {
		p.moved()
	}
	if now := time.Now(); now.Sub(p.last) >= progressEvery {
		p.last = now
		p.log.Info("sending the build", "sent_mb", p.sent>>20, "of_mb", p.total>>20)
	}
	return n, err
}

// verdict is the package manager's answer: Success, Failure [CODE: text], or an exception's text.
type verdict string

var installCode = regexp.MustCompile(`\b(INSTALL_[A-Z0-9_]+)\b`)

// code is INSTALL_..., or "".
func (v verdict) code() string {
	if m := installCode.FindStringSubmatch(string(v)); m != nil {
		return m[1]
	}
	return ""
}

// replaceable are the refusals for the sake of what is installed already.
var replaceable = map[string]bool{
	"INSTALL_FAILED_ALREADY_EXISTS":                  true,
	"INSTALL_FAILED_UPDATE_INCOMPATIBLE":             true, // signed by somebody else
	"INSTALL_PARSE_FAILED_INCONSISTENT_CERTIFICATES": true, // the same, on older phones
	"INSTALL_FAILED_VERSION_DOWNGRADE":               true,
	"INSTALL_FAILED_PERMISSION_MODEL_DOWNGRADE":      true,
	"INSTALL_FAILED_SHARED_USER_INCOMPATIBLE":        true,
	"INSTALL_FAILED_UID_CHANGED":                     true,
}

// badBuild are the refusals that every device would give, besides every INSTALL_PARSE_FAILED_*. What depends
// on the device's Android version, processor, storage, settings or other apps is not among them.
var badBuild = map[string]bool{
	"INSTALL_FAILED_INVALID_APK":      true,
	"INSTALL_FAILED_BAD_DEX_METADATA": true,
	"INSTALL_FAILED_BAD_SIGNATURE":    true,
	"INSTALL_FAILED_MISSING_SPLIT":    true,
	"INSTALL_FAILED_DEXOPT":           true,
}

// installAdvice says what to do about a refusal, where more can be said than its code does.
var installAdvice = map[string]string{
	"INSTALL_FAILED_INSUFFICIENT_STORAGE":   "free storage on the device",
	"INSTALL_FAILED_USER_RESTRICTED":        "allow \"Install via USB\" in the device's developer options, and confirm its dialog",
	"INSTALL_FAILED_NO_MATCHING_ABIS":       "the build has no native code for this device's processor: build for it, or choose another kind of device",
	"INSTALL_FAILED_CPU_ABI_INCOMPATIBLE":   "the build has no native code for this device's processor: build for it, or choose another kind of device",
	"INSTALL_FAILED_OLDER_SDK":              "the build needs a newer Android than this device has",
	"INSTALL_FAILED_DEPRECATED_SDK_VERSION": "the build targets an Android version that is too old for this device",
	"INSTALL_FAILED_VERIFICATION_FAILURE":   "turn off \"Verify apps over USB\" in the device's developer options",
	"INSTALL_FAILED_ABORTED":                "confirm the install on the device's screen",
}

// failure is nil for a success.
func (v verdict) failure(serial string, file apk) error {
	if strings.HasPrefix(string(v), "Success") {
		return nil
	}
	code := v.code()
	if badBuild[code] || strings.HasPrefix(code, "INSTALL_PARSE_FAILED_") {
		return device.Failf(qgjob.CauseBadBuild, "build %.12s of %s cannot be installed: %.500s: build it again", file.sha256, file.pkg, v)
	}
	advice := installAdvice[code]
	if advice == "" {
		advice = "check the device's free storage and its settings"
	}
	return device.Failf(qgjob.CauseInstallRefused, "device %s refused build %.12s of %s: %.500s: %s", serial, file.sha256, file.pkg, v, advice)
}

// hashFile is the SHA-256 of a file on this host.
func hashFile(path string) (string, error) {
	content, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer content.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, content); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
