// Package appium installs and runs Appium servers for drivers: one server process a device, warm between
// jobs.
//
// The install is this package's own: exact versions from an embedded lock file, made once a directory by
// npm. A server lives in a process group of its own that ends with it, with Server.Close, and with the
// process that started it, however that dies. The package knows no devices: what a server drives is for
// the capabilities of its sessions to say.
package appium

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/filelock"
)

// Version is that of Appium, which the package.json of each edition pins.
const Version = "2.19.0"

// oldestNode is the oldest major version of Node.js that is supported.
const oldestNode = 20

// Edition is Appium with a driver.
type Edition struct {
	driver        string // as Appium calls it
	driverVersion string
	dir           string // of its package.json and package-lock.json
}

// Editions. A host installs those that its devices need.
var (
	Android = Edition{driver: "uiautomator2", driverVersion: "3.10.0", dir: "npm/android"}
	IOS     = Edition{driver: "xcuitest", driverVersion: "7.35.1", dir: "npm/ios"}
)

//go:embed npm
var npmFiles embed.FS

// file is one of the edition's own files.
func (e Edition) file(name string) []byte {
	content, _ := npmFiles.ReadFile(path.Join(e.dir, name)) // it is embedded
	return content
}

// Install is an installed Appium with its drivers. It is immutable: another set of versions gets another
// directory.
type Install struct {
	Dir     string // holds node_modules; also the APPIUM_HOME of its servers
	node    string
	edition Edition
}

// Ensure returns the install of an edition in a directory and makes it when it is missing, which takes half a minute
// and the npm registry. Any number of goroutines and processes may call it for one directory: one
// installs, the others wait. An install that was interrupted is made anew by the next call. The error is a
// *device.Failure, or wraps the context's error.
func Ensure(ctx context.Context, dir string, edition Edition, log *slog.Logger) (*Install, error) {
	node, err := findNode(ctx)
	if err != nil {
		return nil, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, device.Failf(qgjob.CauseHostFailed, "Appium cannot be installed: %w", err)
	}
	in := &Install{Dir: filepath.Join(dir, "appium-"+Version+"-"+edition.fingerprint()), node: node, edition: edition}
	if in.complete() {
		return in, nil
	}
	if err := in.make(ctx, dir, log); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("install of Appium %s: %w", Version, context.Cause(ctx))
		}
		if errors.Is(err, syscall.ENOSPC) {
			return nil, device.Failf(qgjob.CauseHostDiskFull, "Appium %s cannot be installed into %s: %w: free 300 MB", Version, dir, err)
		}
		if _, ok := errors.AsType[*device.Failure](err); ok {
			return nil, err
		}
		return nil, device.Failf(qgjob.CauseHostFailed, "Appium %s cannot be installed into %s: %w", Version, dir, err)
	}
	return in, nil
}

// Module is the directory of an npm package of the install.
func (in *Install) Module(name string) string {
	return filepath.Join(in.Dir, "node_modules", filepath.FromSlash(name))
}

// manifest is what Appium writes about the drivers that it found, with their absolute paths; its presence
// is the last step of an install.
func (in *Install) manifest() string {
	return filepath.Join(in.Dir, "node_modules", ".cache", "appium", "extensions.yaml")
}

func (in *Install) complete() bool {
	_, err := os.Stat(in.manifest())
	return err == nil
}

func (in *Install) entry() string { return filepath.Join(in.Module("appium"), "index.js") }

// make installs into a directory beside the final one and renames, so that what is there is whole.
func (in *Install) make(ctx context.Context, dir string, log *slog.Logger) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	unlock, err := filelock.Wait(ctx, filepath.Join(dir, "install.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if in.complete() {
		return nil
	}
	if _, err := os.Stat(in.Dir); errors.Is(err, fs.ErrNotExist) {
		log.Info("installing Appium, once on this host", "version", Version, "driver", in.edition.driver, "dir", in.Dir)
		began := time.Now()
		if err := in.download(ctx, dir); err != nil {
			return err
		}
		log.Info("Appium installed", "version", Version, "took", time.Since(began).Round(time.Second))
	}
	return in.register(ctx)
}

func (in *Install) download(ctx context.Context, dir string) error {
	npm, err := findNPM()
	if err != nil {
		return err
	}
	// Under the lock nobody else is installing: what is there was interrupted.
	leftovers, err := filepath.Glob(filepath.Join(dir, "installing-*"))
	if err != nil {
		return err
	}
	for _, l := range leftovers {
		if err := os.RemoveAll(l); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp(dir, "installing-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for _, name := range []string{"package.json", "package-lock.json"} {
		if err := os.WriteFile(filepath.Join(tmp, name), in.edition.file(name), 0o644); err != nil {
			return err
		}
	}
	cmd := groupCommand(ctx, npm, "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--no-progress", "--loglevel=error")
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w: %s: check that this host reaches the npm registry", err, lastLines(out))
	}
	return os.Rename(tmp, in.Dir)
}

// register makes Appium look for its drivers once, so that servers which start together only read what it wrote.
func (in *Install) register(ctx context.Context) error {
	cmd := groupCommand(ctx, in.node, in.entry(), "driver", "list", "--installed", "--json")
	cmd.Env = in.env(nil)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("appium driver list: %w: %s", err, lastLines(out))
	}
	if !bytes.Contains(out, []byte(in.edition.driverVersion)) || !in.complete() {
		return fmt.Errorf("the installed Appium does not find its driver %s %s: remove %s and try again: %s", in.edition.driver, in.edition.driverVersion, in.Dir, lastLines(out))
	}
	return nil
}

// fingerprint tells installs of different lock files apart.
func (e Edition) fingerprint() string {
	sum := sha256.Sum256(append(e.file("package.json"), e.file("package-lock.json")...))
	return hex.EncodeToString(sum[:4])
}

// CheckHost says what this host lacks to run Appium and tests: Node.js, new enough, and npm.
func CheckHost(ctx context.Context) error {
	if _, err := findNode(ctx); err != nil {
		return err
	}
	_, err := findNPM()
	return err
}

func findNPM() (string, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", device.Failf(qgjob.CauseHostFailed, "npm is not on the PATH: install Node.js %d or newer with npm: %w", oldestNode, err)
	}
	return npm, nil
}

func findNode(ctx context.Context) (string, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return "", device.Failf(qgjob.CauseHostFailed, "node is not on the PATH: install Node.js %d or newer: %w", oldestNode, err)
	}
	out, err := exec.CommandContext(ctx, node, "--version").Output()
	if err != nil {
		return "", device.Failf(qgjob.CauseHostFailed, "%s does not run: install Node.js %d or newer: %w", node, oldestNode, err)
	}
	version := strings.TrimSpace(string(out))
	major, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < oldestNode {
		return "", device.Failf(qgjob.CauseHostFailed, "%s is Node.js %s: install Node.js %d or newer", node, version, oldestNode)
	}
	return node, nil
}

// lastLines is the end of a command's output, which is where the reason is.
func lastLines(out []byte) string {
	const most = 1000
	out = bytes.TrimSpace(out)
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return string(out)
}
