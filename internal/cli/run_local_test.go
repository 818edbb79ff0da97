package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"qgjob"
)

// TestNoUsableDevice says of a host without a device that can be used what is wrong with it.
func TestNoUsableDevice(t *testing.T) {
	locked := qgjob.Device{ID: "R58M", State: qgjob.DeviceUnauthorized, Message: "confirm the dialog on its screen"}
	gone := qgjob.Device{ID: "R59N", State: qgjob.DeviceOffline}
	for name, c := range map[string]struct {
		devices []qgjob.Device
		note    string
		code    exitCode
		says    string
	}{
		"no device":      {nil, "", exitNoDevice, "adb sees no phone"},
		"not to be used": {[]qgjob.Device{locked, gone}, "Device R58M is ...", exitNoDevice, "R58M is unauthorized: confirm the dialog on its screen; R59N is offline"},
		"not to be seen": {nil, "Devices cannot be listed: adb is of another version.", exitInfrastructure, "Devices cannot be listed: adb is of another version."},
	} {
		if err := noUsableDevice(c.devices, c.note); exitOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: exit code %d, %v", name, exitOf(err), err)
		}
	}
	if usable(locked) || usable(gone) || !usable(qgjob.Device{State: qgjob.DeviceBooting}) {
		t.Error("a device is usable that is not, or is not that will be")
	}
}

// TestResultsReplaceOnlyTheirOwn lets a local run replace what an earlier one left, and nothing else.
func TestResultsReplaceOnlyTheirOwn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "results")
	for range 2 {
		if err := checkResults(dir); err != nil {
			t.Fatal(err)
		}
		if err := clearResults(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("what the earlier run left is still there (%v)", err)
		}
		if err := markResults(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, "a.spec.ts", "attempt-1"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	own := t.TempDir()
	if err := checkResults(own); err != nil {
		t.Errorf("an empty directory: %v", err)
	}
	for _, name := range []string{"thesis.txt", resultsMark} {
		if err := os.WriteFile(filepath.Join(own, name), []byte("mine\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if checkResults(own) == nil || clearResults(own) == nil {
			t.Error("somebody's own directory is taken for results")
		}
	}
	if _, err := os.Stat(filepath.Join(own, "thesis.txt")); err != nil {
		t.Error(err)
	}
}
