package appwright

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"qgjob"
)

// playwrightPackages must all be of one version that AppWright works with.
var playwrightPackages = []string{"@playwright/test", "playwright", "playwright-core"}

// The first and the last of these minor versions, 1.46.1 and 1.49.1, were seen to work. 1.56.1 lacks the
// command by which the spec files are listed, and from 1.61 on AppWright's config is rejected; AppWright's own
// version range lets npm choose them.
var (
	oldestPlaywright = version{1, 46, 1}
	beyondPlaywright = version{1, 50, 0}
)

const pinAdvice = `pin Playwright in package.json with "devDependencies": {"@playwright/test": "1.49.1"} and "overrides": {"@playwright/test": "1.49.1", "playwright": "1.49.1", "playwright-core": "1.49.1"}, then run npm install and submit again`

type version struct{ major, minor, patch int }

func (v version) before(w version) bool {
	if v.major != w.major {
		return v.major < w.major
	}
	if v.minor != w.minor {
		return v.minor < w.minor
	}
	return v.patch < w.patch
}

// parseVersion reads the numbers of a semantic version; what follows a - or + does not matter here.
func parseVersion(s string) (version, bool) {
	s, _, _ = strings.Cut(s, "+")
	s, _, _ = strings.Cut(s, "-")
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return version{}, false
	}
	var n [3]int
	for i, part := range parts {
		var err error
		if n[i], err = strconv.Atoi(part); err != nil {
			return version{}, false
		}
	}
	return version{n[0], n[1], n[2]}, true
}

// checkVersions returns the versions of AppWright and Playwright that the project resolves to, if they can
// work together.
func checkVersions(dir string) (appwright, playwright string, err error) {
	home, appwright, err := installed(dir, "appwright")
	if err != nil {
		return "", "", err
	}
	if v, ok := parseVersion(appwright); !ok || v.major != 0 || v.minor != 1 {
		return "", "", failuref(qgjob.CauseProjectInvalid, "the test project has appwright %s, and qgjob runs 0.1.x: run npm install --save-dev --save-exact appwright@0.1.1 and submit again", appwright)
	}
	for _, name := range playwrightPackages {
		ours, found, err := installed(dir, name)
		if err != nil {
			return "", "", err
		}
		theirs, _, err := installed(home, name)
		if err != nil {
			return "", "", err
		}
		if theirs != ours {
			return "", "", failuref(qgjob.CauseProjectInvalid, "the test project and its appwright use different copies of %s (%s and %s), and Playwright refuses to be loaded twice: %s", name, ours, theirs, pinAdvice)
		}
		v, ok := parseVersion(found)
		if !ok || v.before(oldestPlaywright) || !v.before(beyondPlaywright) {
			return "", "", failuref(qgjob.CauseProjectInvalid, "the test project has %s %s, with which appwright %s does not work: %s", name, found, appwright, pinAdvice)
		}
		if playwright != "" && playwright != found {
			return "", "", failuref(qgjob.CauseProjectInvalid, "the test project has %s %s next to another Playwright package of version %s: %s", name, found, playwright, pinAdvice)
		}
		playwright = found
	}
	return appwright, playwright, nil
}

// installed finds an npm package as Node does, in the node_modules of the directory or of one above it.
// It returns the package's real directory and version.
func installed(dir, name string) (home, version string, err error) {
	for at := dir; ; at = filepath.Dir(at) {
		manifest, readErr := os.ReadFile(filepath.Join(at, "node_modules", filepath.FromSlash(name), "package.json"))
		switch {
		case readErr == nil:
			var pkg struct {
				Version string `json:"version"`
			}
			if err := json.Unmarshal(manifest, &pkg); err != nil {
				return "", "", failuref(qgjob.CauseProjectInvalid, "package %s is damaged (%w): remove node_modules and run npm ci", name, err)
			}
			home, err = filepath.EvalSymlinks(filepath.Join(at, "node_modules", filepath.FromSlash(name)))
			if err != nil {
				return "", "", failuref(qgjob.CauseProjectInvalid, "package %s cannot be opened: %w", name, err)
			}
			return home, pkg.Version, nil
		case !errors.Is(readErr, fs.ErrNotExist):
			return "", "", failuref(qgjob.CauseProjectInvalid, "package %s cannot be read: %w", name, readErr)
		case at == filepath.Dir(at):
			return "", "", failuref(qgjob.CauseProjectInvalid, "package %s is not among the test project's dependencies: run npm install --save-dev --save-exact appwright@0.1.1, %s", name, pinAdvice)
		}
	}
}
