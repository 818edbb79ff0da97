package appwright

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"qgjob"
)

//go:embed js/preload.cjs
var preloadJS []byte

//go:embed js/reporter.cjs
var reporterJS []byte

// tools is the private directory of a run: the stand-ins that come first on PATH, an Android SDK of three
// files, what Node loads, and places for the run's files.
//
//	bin/                            npx pkill osascript adb xcrun
//	sdk/build-tools/0.0.0/aapt      answers for the build that the worker installed
//	sdk/emulator/emulator           lists one name
//	sdk/platform-tools/adb
//	preload.cjs reporter.cjs
//	app.apk                         a link to the build, or app.ipa, or app.app
//	home/ tmp/                      HOME and TMPDIR of the tests
//	events report.json              what the reporters write
type tools struct {
	dir  string // the directory under a name that a shell can take unquoted, as AppWright hands it to one
	link string // the symbolic link that gives it such a name, if it needed one
}

// buildName is the build's name for AppWright, which insists on the ending: of an iOS app, on the one that goes with the provider.
func (r Run) buildName() string {
	switch {
	case r.App.Platform != qgjob.PlatformIOS:
		return "app.apk"
	case r.Provider == providers[qgjob.TargetEmulator]:
		return "app.app"
	}
	return "app.ipa"
}

// shellSafe is what AppWright's unquoted command lines, NODE_OPTIONS and Playwright's comma-separated
// options all take as it is.
var shellSafe = regexp.MustCompile(`^[A-Za-z0-9/._@%+=:-]+$`)

func makeTools(dir string, app App, build, serial string) (tools, error) {
	t := tools{dir: dir}
	if !shellSafe.MatchString(dir) {
		link, err := safeName(dir)
		if err != nil {
			return tools{}, err
		}
		t = tools{dir: filepath.Join(link, "run"), link: link}
	}
	for name, content := range standIns(app, serial) {
		if err := t.write(name, content, 0o755); err != nil {
			return t, err
		}
	}
	for name, content := range map[string]string{"preload.cjs": string(preloadJS), "reporter.cjs": string(reporterJS)} {
		if err := t.write(name, content, 0o644); err != nil {
			return t, err
		}
	}
	if app.Path != "" {
		if err := os.Symlink(app.Path, t.path(build)); err != nil {
			return t, err
		}
	}
	for _, name := range []string{"home", "tmp"} {
		if err := os.MkdirAll(t.path(name), 0o700); err != nil {
			return t, err
		}
	}
	return t, nil
}

// safeName makes a directory with a plain name that holds a link "run" to dir.
func safeName(dir string) (string, error) {
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		if !shellSafe.MatchString(parent) {
			continue
		}
		link, err := os.MkdirTemp(parent, "qgjob-")
		if err != nil {
			return "", err
		}
		return link, os.Symlink(dir, filepath.Join(link, "run"))
	}
	return "", fmt.Errorf("neither %s nor any temporary directory has a name that a shell takes unquoted", dir)
}

func (t tools) path(name string) string { return filepath.Join(t.dir, filepath.FromSlash(name)) }

func (t tools) write(name, content string, mode os.FileMode) error {
	path := t.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), mode)
}

// remove takes away the link, if there is one; the directory is its owner's.
func (t tools) remove() {
	if t.link != "" {
		os.RemoveAll(t.link)
	}
}

// standIns are the commands that AppWright finds instead of the real ones, by their paths.
func standIns(app App, serial string) map[string]string {
	adb := adbStandIn(serial)
	return map[string]string{
		// "npx appium driver ..." has nothing to do: the worker's Appium has its drivers. "npx appium" has
		// nothing to start; it announces what AppWright waits for and lives until its parent ends or closes
		// its pipe.
		"bin/npx": `#!/bin/sh
case "$1 $2" in
"appium driver") exit 0 ;;
"appium "*) echo "Appium REST http interface listener started (by qgjob)"; exec cat >/dev/null ;;
esac
` + handOver("npx"),
		// Later versions of AppWright end every Appium of the host after each test, and expect to find one.
		"bin/pkill": `#!/bin/sh
case "$*" in
*appium*) exit 0 ;;
esac
echo "qgjob: a test on a shared host ends no processes by name" >&2
exit 1
`,
		"bin/osascript": script("echo " + shellQuote(app.Package)),
		"bin/adb":       adb,
		"bin/xcrun":     xcrunStandIn(serial),

		"sdk/platform-tools/adb":     adb,
		"sdk/emulator/emulator":      script("echo qgjob"),
		"sdk/build-tools/0.0.0/aapt": script("cat <<'QGJOB_END'\n" + badging(app) + "QGJOB_END"),
	}
}

// badging is what aapt dump badging would say of the build, as far as anybody reads it.
func badging(app App) string {
	label := plain(app.Label, app.Package)
	return fmt.Sprintf("package: name='%s' versionCode='%d' versionName='%s'\napplication-label:'%s'\nlaunchable-activity: name='%s'  label='%s' icon=''\n",
		plain(app.Package, ""), app.VersionCode, plain(app.VersionName, ""), label, plain(app.Activity, ""), label)
}

// adbStandIn shows the test its own device only. Everything else goes to the real adb, which finds the
// device and the adb server in the environment.
func adbStandIn(serial string) string {
	return `#!/bin/sh
case "$*" in
devices) printf 'List of devices attached\n%s\tdevice\n\n' ` + shellQuote(serial) + `; exit 0 ;;
esac
` + handOver("adb")
}

// xcrunStandIn shows the test its own iPhone only.
func xcrunStandIn(serial string) string {
	return `#!/bin/sh
case "$*" in
"xctrace list devices") echo 'iPhone (qgjob) ('` + shellQuote(serial) + `')'; exit 0 ;;
esac
` + handOver("xcrun")
}

// handOver lets the real command of a name do it, where the host has one.
func handOver(name string) string {
	real, err := exec.LookPath(name)
	if err != nil {
		return "echo 'qgjob: " + name + " is not installed on this host' >&2\nexit 127\n"
	}
	return "exec " + shellQuote(real) + ` "$@"` + "\n"
}

func script(body string) string { return "#!/bin/sh\n" + body + "\n" }

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// plain takes quotes and line ends out of a text for people, so that it can stand between quotes.
func plain(s, otherwise string) string {
	s = strings.Map(func(r rune) rune {
		if r == '\'' || r < ' ' {
			return ' '
		}
		return r
	}, s)
	if strings.TrimSpace(s) == "" {
		return otherwise
	}
	return s
}
