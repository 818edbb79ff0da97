package appwright

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"qgjob"
)

// inspectionTimeout bounds the evaluation of a project's config, which is the user's code.
const inspectionTimeout = time.Minute

// Project is what a test project turned out to be.
type Project struct {
	Dir         string // absolute, without symbolic links
	ConfigPath  string // absolute
	AppWright   string // version
	Playwright  string // version
	Playwrights []PlaywrightProject
}

// PlaywrightProject is one of the projects in a config: a name with the device and the app that it is for.
type PlaywrightProject struct {
	Name      string
	Provider  string   // as the config says: local-device, emulator, browserstack
	Platform  string   // android, ios
	BuildPath string   // absolute, or a URL, or empty when the config names no build
	Specs     []string // spec files, relative to the project's directory, with forward slashes
}

// providers maps a kind of device to AppWright's name for it.
var providers = map[qgjob.Target]string{
	qgjob.TargetDevice:       "local-device",
	qgjob.TargetEmulator:     "emulator",
	qgjob.TargetBrowserStack: "browserstack",
}

// Inspect finds out whether the project can work, and which Playwright projects its config holds. It
// evaluates the config but starts no global setup, no web server and no test. configPath is relative to the
// project or absolute; empty means appwright.config.ts or appwright.config.js. The config sees env (NAME=value), as its
// tests will. What the project lacks is a [Failure] of cause project_invalid that spells out the mending.
func Inspect(ctx context.Context, projectDir, configPath string, env []string) (Project, error) {
	dir, err := filepath.EvalSymlinks(projectDir)
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return Project{}, failuref(qgjob.CauseProjectInvalid, "the test project %s cannot be opened: %w", projectDir, err)
	}
	p := Project{Dir: dir}
	if p.ConfigPath, err = findConfig(dir, configPath); err != nil {
		return Project{}, err
	}
	if p.AppWright, p.Playwright, err = checkVersions(dir); err != nil {
		return Project{}, err
	}
	if p.Playwrights, err = p.readConfig(ctx, env); err != nil {
		return Project{}, err
	}
	return p, nil
}

var configNames = []string{"appwright.config.ts", "appwright.config.js", "appwright.config.mts", "appwright.config.mjs", "appwright.config.cts", "appwright.config.cjs"}

func findConfig(dir, configPath string) (string, error) {
	names := configNames
	if configPath != "" {
		names = []string{configPath}
	}
	for _, name := range names {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, filepath.FromSlash(name))
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	if configPath != "" {
		return "", failuref(qgjob.CauseProjectInvalid, "the config %s is not in the test project: check --config, and that the file is not ignored by git", configPath)
	}
	return "", failuref(qgjob.CauseProjectInvalid, "the test project holds no %s and no %s: submit from the directory that holds it, or name it with --config", configNames[0], configNames[1])
}

// readConfig lets Playwright evaluate the config twice at the same time: once to learn the projects, once
// to list the spec files of each, which no reporter is told.
func (p Project) readConfig(ctx context.Context, env []string) ([]PlaywrightProject, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectionTimeout)
	defer cancel()
	tmp, err := os.MkdirTemp("", "qgjob-inspect-")
	if err != nil {
		return nil, hostFailure("make a directory for the inspection", err)
	}
	defer os.RemoveAll(tmp)
	reporter, events := filepath.Join(tmp, "reporter.cjs"), filepath.Join(tmp, "events")
	if err := os.WriteFile(reporter, reporterJS, 0o600); err != nil {
		return nil, hostFailure("write the inspection's reporter", err)
	}

	type listing struct {
		specs map[string][]string
		err   error
	}
	listed := make(chan listing, 1)
	go func() {
		specs, err := p.listSpecs(ctx, tmp, env)
		listed <- listing{specs, err}
	}()
	// The pattern matches no file, so that no spec is loaded.
	out, runErr := p.playwright(ctx, tmp, append(slices.Clone(env), "QGJOB_EVENTS="+events), "test", "--list", "--config", p.ConfigPath, "--reporter", reporter, "/^$/")
	files := <-listed

	seen, err := readEvents(events)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, hostFailure("read the inspection's events", err)
	}
	if !seen.Configured {
		if ctx.Err() != nil {
			return nil, failuref(qgjob.CauseProjectInvalid, "the config %s was not evaluated within %s: %w", p.rel(p.ConfigPath), inspectionTimeout, context.Cause(ctx))
		}
		if f, ok := errors.AsType[*Failure](runErr); ok {
			return nil, f // of this host, and not of the project
		}
		if runErr == nil {
			runErr = errors.New("it ended the runner, as when something that it imports calls process.exit")
		}
		return nil, failuref(qgjob.CauseProjectInvalid, "the config %s cannot be loaded: %s (%w)", p.rel(p.ConfigPath), firstLines(out, 20), runErr)
	}
	if files.err != nil {
		return nil, files.err
	}
	projects := make([]PlaywrightProject, 0, len(seen.Projects))
	for _, e := range seen.Projects {
		projects = append(projects, PlaywrightProject{
			Name: e.Name, Provider: e.Provider, Platform: e.Platform,
			BuildPath: p.buildPath(e.BuildPath), Specs: files.specs[e.Name],
		})
	}
	return projects, nil
}

// listSpecs returns the spec files of each Playwright project.
func (p Project) listSpecs(ctx context.Context, tmp string, env []string) (map[string][]string, error) {
	out, err := p.playwright(ctx, tmp, env, "list-files", "--config", p.ConfigPath)
	var answer struct {
		Projects []struct {
			Name  string   `json:"name"`
			Files []string `json:"files"`
		} `json:"projects"`
		Error *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if f, ok := errors.AsType[*Failure](err); ok {
		return nil, f
	}
	if jsonErr := json.Unmarshal(out, &answer); jsonErr != nil {
		return nil, failuref(qgjob.CauseProjectInvalid, "the spec files of config %s cannot be listed: %s (%w)", p.rel(p.ConfigPath), firstLines(out, 20), errors.Join(err, jsonErr))
	}
	if answer.Error != nil {
		return nil, failuref(qgjob.CauseProjectInvalid, "the config %s cannot be loaded: %s", p.rel(p.ConfigPath), stripANSI(answer.Error.Message))
	}
	specs := map[string][]string{}
	for _, project := range answer.Projects {
		for _, file := range project.Files {
			specs[project.Name] = append(specs[project.Name], p.rel(file))
		}
	}
	return specs, nil
}

// playwright runs one short command of Playwright and returns what it printed. Output that tells of the
// failure stands in either stream, depending on the kind of failure.
func (p Project) playwright(ctx context.Context, tmp string, env []string, args ...string) ([]byte, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, failuref(qgjob.CauseHostFailed, "node is not installed on the worker's host: install Node 20 or later: %w", err)
	}
	var out, errOut bytes.Buffer
	home, _, err := installed(p.Dir, "@playwright/test")
	if err != nil {
		return nil, err
	}
	process, err := startProcess(command{
		path: node, args: append([]string{filepath.Join(home, "cli.js")}, args...), dir: p.Dir,
		env: append(baseEnvironment(os.Getenv("PATH"), tmp, tmp), env...), stdout: &out, stderr: &errOut,
	})
	if err != nil {
		return nil, hostFailure("start node", err)
	}
	exit := process.wait(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case exit.ok():
		return out.Bytes(), nil
	}
	return append(errOut.Bytes(), out.Bytes()...), fmt.Errorf("playwright %s: %s", args[0], exit)
}

func (p Project) rel(path string) string {
	rel, err := filepath.Rel(p.Dir, path)
	if err != nil {
		return path
	}
	return filepath.ToSlash(rel)
}

// buildPath makes a config's buildPath absolute. AppWright reads it relative to its working directory,
// which is the project's.
func (p Project) buildPath(path string) string {
	if path == "" || filepath.IsAbs(path) || strings.Contains(path, "://") {
		return path
	}
	return filepath.Join(p.Dir, filepath.FromSlash(path))
}

// Choose returns the one Playwright project to run on a device of the given kind and platform: the one that is named, or
// the only one whose provider and platform fit. None, or several, is project_invalid and lists what there is.
func (p Project) Choose(kind qgjob.Target, platform, name string) (PlaywrightProject, error) {
	var fit []PlaywrightProject
	for _, candidate := range p.Playwrights {
		if name == "" && candidate.Provider == providers[kind] && candidate.isFor(platform) || name != "" && candidate.Name == name {
			fit = append(fit, candidate)
		}
	}
	switch {
	case len(fit) == 1 && !fit[0].isFor(platform):
		return PlaywrightProject{}, failuref(qgjob.CauseProjectInvalid, "Playwright project %q of %s is for platform %s, which cannot run on a device with %s: the config has %s; name another one with --project, or ask for the platform (--requires=platform=%s)", name, p.rel(p.ConfigPath), fit[0].Platform, platform, p.listProjects(), fit[0].Platform)
	case len(fit) == 1 && fit[0].Name == "":
		return PlaywrightProject{}, failuref(qgjob.CauseProjectInvalid, "the Playwright project for provider %s in %s has no name, which AppWright needs: give it one", fit[0].Provider, p.rel(p.ConfigPath))
	case len(fit) == 1 && !runsOn(fit[0].Provider, kind):
		return PlaywrightProject{}, failuref(qgjob.CauseProjectInvalid, "Playwright project %q of %s has provider %q, which cannot run on target %s: the config has %s; name another one with --project", name, p.rel(p.ConfigPath), fit[0].Provider, kind, p.listProjects())
	case len(fit) == 1:
		return fit[0], nil
	case name != "":
		return PlaywrightProject{}, failuref(qgjob.CauseProjectInvalid, "the config %s has no Playwright project named %q: it has %s", p.rel(p.ConfigPath), name, p.listProjects())
	case len(fit) == 0:
		return PlaywrightProject{}, failuref(qgjob.CauseProjectInvalid, "no Playwright project of %s has provider %q%s, which a job on target %s needs: it has %s; add one, or name one with --project%s", p.rel(p.ConfigPath), providers[kind], andPlatform(platform), kind, p.listProjects(), p.orIOS(kind, platform))
	}
	return PlaywrightProject{}, failuref(qgjob.CauseProjectInvalid, "several Playwright projects of %s have provider %q%s: it has %s; name one with --project", p.rel(p.ConfigPath), providers[kind], andPlatform(platform), p.listProjects())
}

// isFor says whether a project can run on a platform. One that names none is taken for any.
func (p PlaywrightProject) isFor(platform string) bool {
	return platform == "" || p.Platform == "" || p.Platform == platform
}

// andPlatform names a platform that is not the usual one.
func andPlatform(platform string) string {
	if platform != qgjob.PlatformIOS {
		return ""
	}
	return " and platform " + platform
}

// orIOS is what to ask for when the projects that are for a kind of device are for iOS.
func (p Project) orIOS(kind qgjob.Target, platform string) string {
	if platform == qgjob.PlatformIOS || !slices.ContainsFunc(p.Playwrights, func(c PlaywrightProject) bool {
		return c.Provider == providers[kind] && c.Platform == qgjob.PlatformIOS
	}) {
		return ""
	}
	return ", or ask for iOS (--requires=platform=ios, or a build for it)"
}

// runsOn says whether a Playwright project can be made to run on a kind of device: what is for a phone runs
// on an emulator, too, and the other way round.
func runsOn(provider string, kind qgjob.Target) bool {
	own := []string{providers[qgjob.TargetDevice], providers[qgjob.TargetEmulator]}
	return provider == providers[kind] || slices.Contains(own, provider) && slices.Contains(own, providers[kind])
}

func (p Project) listProjects() string {
	if len(p.Playwrights) == 0 {
		return "none"
	}
	var names []string
	for _, project := range p.Playwrights {
		provider := project.Provider
		if provider == "" {
			provider = "no provider"
		}
		if project.Platform == qgjob.PlatformIOS {
			provider += ", " + project.Platform
		}
		names = append(names, fmt.Sprintf("%q (%s)", project.Name, provider))
	}
	return strings.Join(names, ", ")
}

// Has says whether the Playwright project takes the spec, a path relative to the test project; when it does
// not, the [Failure] is no_tests_matched. Whether the spec holds a test shows only when it is run.
func (p Project) Has(playwright PlaywrightProject, spec string) error {
	if slices.Contains(playwright.Specs, spec) {
		return nil
	}
	info, err := os.Stat(filepath.Join(p.Dir, filepath.FromSlash(spec)))
	if err != nil || !info.Mode().IsRegular() {
		return failuref(qgjob.CauseNoTestsMatched, "the test project holds no file %s: check the path, and that git does not ignore it", spec)
	}
	return failuref(qgjob.CauseNoTestsMatched, "%s is no spec of Playwright project %q: check testDir and testMatch in %s", spec, playwright.Name, p.rel(p.ConfigPath))
}

func firstLines(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(stripANSI(string(out))), "\n")
	return strings.Join(lines[:min(n, len(lines))], "\n")
}
