package android

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// sdkTimeout bounds what is asked of the Android SDK's programs.
const sdkTimeout = time.Minute

// sdk is the Android SDK's part that makes and runs emulators.
type sdk struct {
	dir        string // "" where only the PATH has its programs
	avdHome    string
	emulator   string
	avdmanager string // "" where there is none
}

func findSDK(dir, avdHome string) (sdk, error) {
	s := sdk{dir: cmp.Or(dir, os.Getenv("ANDROID_HOME"), os.Getenv("ANDROID_SDK_ROOT")), avdHome: cmp.Or(avdHome, os.Getenv("ANDROID_AVD_HOME"))}
	if s.avdHome == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return sdk{}, device.Failf(qgjob.CauseHostFailed, "this user has no home directory for AVDs: set ANDROID_AVD_HOME: %w", err)
		}
		s.avdHome = filepath.Join(home, ".android", "avd")
	}
	s.emulator = s.program("emulator", "emulator")
	s.avdmanager = s.program("avdmanager", "cmdline-tools/latest/bin", "cmdline-tools/*/bin", "tools/bin")
	if s.emulator == "" {
		return sdk{}, device.Failf(qgjob.CauseHostFailed, "the Android emulator is not on this host: set ANDROID_HOME to the directory of an Android SDK that has it (sdkmanager emulator)")
	}
	return s, nil
}

// program finds one of the SDK's programs, in one of its directories or on the PATH.
func (s sdk) program(name string, dirs ...string) string {
	if s.dir != "" {
		for _, dir := range dirs {
			found, err := filepath.Glob(filepath.Join(s.dir, filepath.FromSlash(dir), name))
			if err == nil && len(found) > 0 {
				return found[len(found)-1]
			}
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// sdkVariables are what the SDK's programs need of the worker's environment, which may hold credentials.
var sdkVariables = regexp.MustCompile(`^(PATH|HOME|USER|LANG|LC_ALL|TZ|TMPDIR|DISPLAY|XAUTHORITY|XDG_\w+|LD_LIBRARY_PATH|JAVA_HOME|ANDROID_\w+)$`)

func (s sdk) env(adbPort int) []string {
	env := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return !sdkVariables.MatchString(name)
	})
	if s.dir != "" {
		env = append(env, "ANDROID_HOME="+s.dir, "ANDROID_SDK_ROOT="+s.dir)
	}
	return append(env, "ANDROID_AVD_HOME="+s.avdHome, "ANDROID_ADB_SERVER_PORT="+strconv.Itoa(adbPort))
}

// avds lists the AVDs of this user.
func (s sdk) avds(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, sdkTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.emulator, "-list-avds")
	cmd.Env = s.env(0)
	out, err := cmd.Output()
	if err != nil {
		return nil, device.Failf(qgjob.CauseHostFailed, "%s -list-avds: %w: check the Android SDK of this host", s.emulator, err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		// Some versions print notes among the names.
		if name := strings.TrimSpace(line); avdName.MatchString(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

var avdName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// makeAVD creates an AVD that does not exist.
func (e *Emulators) makeAVD(ctx context.Context, name string) error {
	e.creating.Lock()
	defer e.creating.Unlock()
	there, err := e.sdk.avds(ctx)
	if err != nil || slices.Contains(there, name) {
		return err
	}
	if e.sdk.avdmanager == "" {
		return device.Failf(qgjob.CauseHostFailed, "AVD %s cannot be created, because avdmanager is not on this host: install the SDK's command-line tools, or name AVDs with --avd", name)
	}
	bounded, cancel := context.WithTimeout(ctx, sdkTimeout)
	defer cancel()
	cmd := exec.CommandContext(bounded, e.sdk.avdmanager, "create", "avd", "-n", name, "-k", e.opts.Image)
	cmd.Env = e.sdk.env(e.phones.client.Port)
	cmd.Stdin = strings.NewReader("no\n") // no custom hardware profile
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("creation of AVD %s: %w", name, context.Cause(ctx))
	}
	if err != nil {
		return device.Failf(qgjob.CauseHostFailed, "AVD %s cannot be created: %w: %.500s", name, err, strings.TrimSpace(string(out)))
	}
	e.log.Info("AVD created", "avd", name, "image", e.opts.Image)
	return nil
}

// imageTags are the kinds of system images, the one that is liked best last.
var imageTags = []string{"google_apis_playstore", "default", "google_apis"}

// newestImage is the system image of the highest API level that runs on this host's processor.
func (s sdk) newestImage() (string, error) {
	abi := map[string]string{"amd64": "x86_64", "arm64": "arm64-v8a"}[runtime.GOARCH]
	var best string
	var bestLevel, bestTag int
	found, err := filepath.Glob(filepath.Join(s.dir, "system-images", "android-*", "*", abi))
	if err != nil {
		return "", device.Failf(qgjob.CauseHostFailed, "the system images in %s cannot be listed: %w", s.dir, err)
	}
	for _, path := range found {
		parts := strings.Split(filepath.ToSlash(path), "/")
		level, tag := apiLevel(path), slices.Index(imageTags, parts[len(parts)-2])
		if tag < 0 || level < bestLevel || level == bestLevel && tag < bestTag {
			continue // of watches and televisions, or not better
		}
		best, bestLevel, bestTag = strings.Join(parts[len(parts)-4:], ";"), level, tag
	}
	if s.dir == "" || best == "" {
		return "", device.Failf(qgjob.CauseHostFailed, "there is no system image for %s under ANDROID_HOME (%s) to create emulators from: install one (sdkmanager \"system-images;android-34;google_apis;%s\"), or name AVDs with --avd", abi, cmp.Or(s.dir, "not set"), abi)
	}
	return best, nil
}

var levelPattern = regexp.MustCompile(`android-(\d+)`)

// apiLevel reads the level in the name of a system image, 0 where there is none.
func apiLevel(image string) int {
	m := levelPattern.FindAllStringSubmatch(image, -1)
	if m == nil {
		return 0
	}
	level, _ := strconv.Atoi(m[len(m)-1][1]) // digits
	return level
}

// versionOf is the Android version of an AVD that is not running, as far as its files tell: image is what it
// would be created from.
func (s sdk) versionOf(avd, image string) string {
	config, err := os.ReadFile(filepath.Join(s.avdHome, avd+".avd", "config.ini"))
	for line := range strings.Lines(string(config)) {
		if value, ok := strings.CutPrefix(strings.ReplaceAll(line, " ", ""), "image.sysdir.1="); ok && err == nil {
			image = value
		}
	}
	return qgjob.AndroidVersion(apiLevel(image))
}
