package ios

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// xcode calls Xcode's programs for one device, "" for none.
type xcode struct {
	udid string
	path string // PATH
}

// find is where a program of Xcode's is.
func (x xcode) find(name string) (string, error) {
	for _, dir := range filepath.SplitList(x.path) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", device.Failf(qgjob.CauseHostFailed, "%s is not on the PATH: install Xcode, and choose it with `sudo xcode-select -s`", name)
}

// environment of Xcode's programs: what they need of the worker's, which may hold credentials.
func (x xcode) environment() []string {
	env := []string{"PATH=" + x.path}
	for _, name := range []string{"HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "DEVELOPER_DIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// refusal is what a program said that did not do what it was asked for.
type refusal struct {
	text string
}

func (r *refusal) Error() string { return r.text }

// xcrun runs a program within a bound and returns what it printed. The error is a Failure for a device that does not answer, the caller's context's, or a *refusal.
func (x xcode) xcrun(ctx context.Context, bound time.Duration, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := x.stream(ctx, bound, &out, args...)
	if r, ok := errors.AsType[*refusal](err); ok {
		return nil, x.explain(doing(args), strings.TrimSpace(r.text+"\n"+out.String()))
	}
	return out.Bytes(), err
}

// doing names what a program was asked for.
func doing(args []string) string { return strings.Join(args[:min(3, len(args))], " ") }

// stream is xcrun for a program that prints much, which is written as it comes. A *refusal has its standard error, unexplained.
func (x xcode) stream(ctx context.Context, bound time.Duration, out io.Writer, args ...string) error {
	path, err := x.find("xcrun")
	if err != nil {
		return err
	}
	doing := doing(args)
	hung := device.Failf(qgjob.CauseDeviceHung, "iPhone %s does not answer: `%s` took longer than %v: restart the device", x.udid, doing, bound)
	if x.udid == "" {
		hung = device.Failf(qgjob.CauseHostFailed, "`%s` took longer than %v on this Mac", doing, bound)
	}
	asking, cancel := context.WithTimeoutCause(ctx, bound, hung)
	defer cancel()
	var errOut bytes.Buffer
	cmd := exec.CommandContext(asking, path, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = x.environment(), out, &errOut
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	err = cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s on iPhone %s: %w", doing, x.udid, context.Cause(ctx))
	case asking.Err() != nil:
		return context.Cause(asking)
	}
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		return device.Failf(qgjob.CauseHostFailed, "%s: %w", doing, err)
	}
	return &refusal{text: errOut.String()}
}

// gone matches what simctl and devicectl say of a device that is not there any more.
var gone = regexp.MustCompile(`current state: Shut(down|ting Down)|Invalid device|device is not connected|device was not found|CoreDeviceError error (1000|4000)\b|unable to locate a device|has not been paired|Unable to find a (device|destination)`)

// explain makes a program's words an error.
func (x xcode) explain(doing, text string) error {
	if gone.MatchString(text) {
		return device.Failf(qgjob.CauseDeviceOffline, "iPhone %s was lost during %q: check the cable, and that the simulator runs: %.300s", x.udid, doing, text)
	}
	return &refusal{text: text}
}

// refused makes what is left of an error a Failure: the program's refusal.
func (x xcode) refused(doing string, err error) error {
	if r, ok := errors.AsType[*refusal](err); ok {
		return device.Failf(qgjob.CauseHostFailed, "%s on iPhone %s: %.500s", doing, x.udid, r.text)
	}
	return err
}

// devicectl runs it and reads the result that it writes into a file. The file has a directory of its own, which loses its name
// and then goes with it: a program that outlives its call and writes finds no place for it, whenever that is.
func (x xcode) devicectl(ctx context.Context, bound time.Duration, result any, args ...string) error {
	dir, err := os.MkdirTemp("", "qgjob-devicectl-*")
	if err != nil {
		return device.Failf(qgjob.CauseHostFailed, "%w", err)
	}
	defer func() {
		gone := dir + "-gone"
		if os.Rename(dir, gone) == nil {
			os.RemoveAll(gone)
		}
	}()
	file := filepath.Join(dir, "result.json")
	if _, err := x.xcrun(ctx, bound, append(append([]string{"devicectl"}, args...), "--json-output", file)...); err != nil {
		return err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return device.Failf(qgjob.CauseHostFailed, "%w", err)
	}
	answer := struct {
		Result any `json:"result"`
	}{result}
	if err := json.Unmarshal(content, &answer); err != nil {
		return device.Failf(qgjob.CauseHostFailed, "devicectl's answer cannot be read: %w: Xcode 15 or newer is needed", err)
	}
	return nil
}

// legacyCode is how iOS's installer names a refusal.
var legacyCode = regexp.MustCompile(`LegacyErrorString\s*=\s*"?(\w+)`)

// badBuild are the refusals that every device of the kind would give.
var badBuild = map[string]bool{
	"PackageExtractionFailed": true, "PackageInspectionFailed": true, "MissingBundleIdentifier": true, "MissingBundlePath": true,
	"MissingBundleExecutable": true, "BundleExecutableHasNoArchitectures": true,
}

// refusedInstall makes an installer's refusal a Failure.
func (x xcode) refusedInstall(bundle string, err error) error {
	r, ok := errors.AsType[*refusal](err)
	if !ok {
		return err
	}
	code := ""
	if m := legacyCode.FindStringSubmatch(r.text); m != nil {
		code = m[1]
	}
	advice := "read the reason, and free storage or take another device"
	switch code {
	case "ApplicationVerificationFailed":
		advice = "its signature or provisioning profile is not for this device: add the device's UDID to the profile and sign the app again"
	case "DeviceOSVersionTooLow":
		advice = "it needs a newer iOS: ask for one with --requires=os>=…"
	case "IncorrectArchitecture":
		advice = "it was built for the other kind of device: an IPA is for iPhones, a zipped .app from a simulator build for simulators"
	}
	cause := qgjob.CauseInstallRefused
	if badBuild[code] {
		cause, advice = qgjob.CauseBadBuild, "build it again"
	}
	return device.Failf(cause, "iPhone %s refuses to install %s (%s): %s: %.600s", x.udid, bundle, code, advice, r.text)
}
