package android

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"qgjob"
	"qgjob/internal/device"
)

// findADB finds the adb of this host: on the PATH, else in an Android SDK.
func findADB() (string, error) {
	found := adbCandidates()
	if len(found) == 0 {
		return "", device.Failf(qgjob.CauseHostFailed, "adb is missing on this host: install it (Debian, Ubuntu: apt install adb; macOS: brew install android-platform-tools)")
	}
	return found[0], nil
}

// Available says whether this host has adb.
func Available() bool { return len(adbCandidates()) > 0 }

func adbCandidates() []string {
	var found []string
	if path, err := exec.LookPath("adb"); err == nil {
		found = append(found, path)
	}
	for _, key := range []string{"ANDROID_HOME", "ANDROID_SDK_ROOT"} {
		if sdk := os.Getenv(key); sdk != "" {
			if path, err := exec.LookPath(filepath.Join(sdk, "platform-tools", "adb")); err == nil {
				found = append(found, path)
			}
		}
	}
	return found
}

var adbVersion = regexp.MustCompile(`version 1\.0\.(\d+)`)

// fittingADB finds an adb of the running server's version: an adb of another version would kill the server
// and start its own, under everybody who uses it.
func (d *Driver) fittingADB(ctx context.Context) (string, error) {
	if _, err := findADB(); err != nil {
		return "", err
	}
	asking, cancel := context.WithTimeoutCause(ctx, serverTimeout, errServerHangs)
	defer cancel()
	server, err := d.client.Version(asking)
	if err != nil {
		return "", d.serverFailure(ctx, err)
	}
	var seen []string
	for _, path := range adbCandidates() {
		out, err := exec.CommandContext(asking, path, "version").Output()
		if err != nil {
			seen = append(seen, fmt.Sprintf("%s: %v", path, err))
			continue
		}
		m := adbVersion.FindSubmatch(out)
		if m == nil {
			seen = append(seen, path+": of an unknown version")
			continue
		}
		if string(m[1]) == strconv.Itoa(server) {
			return path, nil
		}
		seen = append(seen, fmt.Sprintf("%s: version 1.0.%s", path, m[1]))
	}
	return "", device.Failf(qgjob.CauseHostFailed, "the adb server on port %d is version 1.0.%d and no adb of this host is (%s): put the adb that started it first on the PATH", d.client.Port, server, strings.Join(seen, "; "))
}

// makeAndroidHome makes the little of an Android SDK that Appium asks for, a link to adb, in a directory.
func makeAndroidHome(dir, adbPath string) error {
	tools := filepath.Join(dir, "platform-tools")
	if err := os.MkdirAll(tools, 0o755); err != nil {
		return err
	}
	target, err := filepath.EvalSymlinks(adbPath)
	if err != nil {
		return err
	}
	link := filepath.Join(tools, "adb")
	if old, err := os.Readlink(link); err == nil && old == target {
		return nil
	}
	if err := os.RemoveAll(link); err != nil {
		return err
	}
	return os.Symlink(target, link)
}
