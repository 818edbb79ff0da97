package appwright

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/tail"
)

// Upstream is the Appium server of the device, and the capabilities that each session on it must have. A
// capability that is nil is taken out of what the test asked for.
type Upstream struct {
	URL          string
	Capabilities map[string]any
	// Cloud says that it makes its sessions on BrowserStack and has what AppWright wants of BrowserStack's REST
	// interface under /app-automate. The app is its own matter then.
	Cloud bool
}

// App is the build that the worker has installed on the device.
type App struct {
	Platform    string // qgjob.PlatformAndroid or qgjob.PlatformIOS
	Path        string // the file on this host; AppWright refuses to start without one
	Package     string
	Activity    string // launchable
	Label       string
	VersionCode int64
	VersionName string
}

// Run is one execution of one spec file on one device.
type Run struct {
	ProjectDir string // as Inspect returned it; its dependencies are installed
	ConfigPath string // absolute, as Inspect found it
	Playwright string // name of the Playwright project, as Choose returned it
	Provider   string // of the Playwright project, as Choose returned it
	Spec       string // relative to ProjectDir, with forward slashes
	Shard      string // part/parts of the spec's tests; empty: all of them

	WorkDir      string // empty or missing; private to this run, and the caller's to remove
	ArtifactsDir string // what is to be kept is put here: report, blob report, the tests' output

	Upstream Upstream
	App      App

	Ready  <-chan struct{} // closed when the device may be given a session; nil: it may now
	HandOn bool            // a session may be left open for the next run, and the next test
	Parked *Parked         // a session that a run before left open on the device; nil: none

	Ahead   *Ahead // a runner that was started for this run, and is its own from now on; nil: one is started
	Start   Start  // of the runner, where none fits; an empty ScriptDir is made in WorkDir
	Session func() // called once, when the run's first session is there; may be nil
	// Check says whether the device is there and answers, with a *Failure where it is not. It is called when the device has owed an answer for
	// long; an error ends the run. It may be nil.
	Check func(ctx context.Context) error

	TestTimeout time.Duration // for each test, its session included
	Silence     time.Duration // without output or a command to the device; zero: no limit
	Deadline    time.Duration // for everything
	Env         []string      // variables for the tests, as NAME=value

	cloudEnv []string // by which AppWright finds what stands before the cloud
}

// Do runs the spec and returns how that ended, with what was seen. The tests' output goes to log, to which
// only one goroutine writes at a time. When Do returns, no process of the run is left, its port is free, and
// its Appium sessions are deleted as far as Appium answers.
//
// The error is a [Failure] of the worker's host: then nothing is known of the test. When ctx is done the
// processes are ended, and the outcome is canceled.
func (r Run) Do(ctx context.Context, log io.Writer) (qgjob.Result, Evidence, error) {
	if r.Ahead != nil {
		defer r.Ahead.Close()
	}
	runner, err := r.runner()
	if err != nil {
		return qgjob.Result{}, Evidence{}, err
	}
	defer runner.Close()
	out := &syncWriter{w: log}
	t, err := makeTools(r.WorkDir, r.App, r.buildName(), capabilityString(r.Upstream.Capabilities, "appium:udid"))
	defer t.remove()
	if err != nil {
		return qgjob.Result{}, Evidence{}, hostFailure("make the run's private directory "+r.WorkDir, err)
	}
	p, err := r.startProxy(out.logf)
	if err != nil {
		return qgjob.Result{}, Evidence{}, hostFailure("start the run's session proxy", err)
	}
	if r.cloudEnv, err = r.openCloud(t, p); err != nil {
		p.close()
		return qgjob.Result{}, Evidence{}, hostFailure("start what stands before the cloud", err)
	}
	seen, err := r.execute(ctx, runner, t, p, out)
	seen.evidence = p.close()
	if err == nil {
		err = r.collect(t, &seen)
	}
	if err != nil {
		p.endParked()
		return qgjob.Result{}, seen.evidence, err
	}
	result := seen.result(r.name)
	if result.Outcome == qgjob.OutcomePassed {
		seen.evidence.Parked = p.unpark()
	}
	p.endParked()
	seen.evidence.Phases = seen.phases()
	seen.evidence.AskDevice = seen.askDevice(result)
	return result, seen.evidence, nil
}

// runner is the process that this run is to use: the one that was started ahead, if it fits.
func (r Run) runner() (*Ahead, error) {
	if err := r.prepare(); err != nil {
		return nil, err
	}
	start := r.Start
	start.ProjectDir, start.Env = r.ProjectDir, r.Env
	if start.ScriptDir == "" {
		start.ScriptDir = filepath.Join(r.WorkDir, "runner")
	}
	if r.Ahead != nil && r.Ahead.Fits(start) {
		return r.Ahead, nil
	}
	return StartAhead(start)
}

func (r Run) prepare() error {
	switch {
	case r.Spec == "" || r.Playwright == "":
		return failuref(qgjob.CauseHostFailed, "a run needs a spec and a Playwright project")
	case !filepath.IsAbs(r.ProjectDir) || !filepath.IsAbs(r.ConfigPath) || !filepath.IsAbs(r.WorkDir) || !filepath.IsAbs(r.ArtifactsDir):
		return failuref(qgjob.CauseHostFailed, "a run needs absolute paths")
	case r.TestTimeout < time.Millisecond || r.Deadline <= 0:
		return failuref(qgjob.CauseHostFailed, "a run needs a time limit for its tests and one for everything")
	}
	for _, dir := range []string{r.WorkDir, r.ArtifactsDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return hostFailure("make the run's directory", err)
		}
	}
	return nil
}

// execute runs Playwright to its end, or to the run's.
func (r Run) execute(ctx context.Context, runner *Ahead, t tools, p *proxy, out *syncWriter) (observation, error) {
	limited, cancel := context.WithTimeout(ctx, r.Deadline)
	defer cancel()
	limited, stop := context.WithCancelCause(limited)
	defer stop(nil)
	if r.Silence > 0 {
		watch := time.AfterFunc(r.Silence, func() { stop(errSilent) })
		p.watch.Store(watch)
		defer func() {
			p.watch.Store(nil)
			watch.Stop()
		}()
	}
	if r.Check != nil {
		var watching sync.WaitGroup
		defer watching.Wait()
		watched, end := context.WithCancel(limited)
		defer end()
		watching.Go(func() { r.watchDevice(watched, p, hungCommand, func(err error) { stop(&sickDevice{err}) }) })
	}
	end := &tail.Writer{Limit: tailSize}
	seen := observation{began: time.Now(), platform: r.App.Platform}
	if err := runner.run(r.ProjectDir, r.environment(t, p.port()), r.arguments(t), io.MultiWriter(out, end, p)); err != nil && runner.lives() {
		return seen, hostFailure("give the runner its order", err)
	}
	seen.exit = runner.wait(limited)
	seen.ended = time.Now()
	seen.canceled = ctx.Err() != nil
	seen.sick = sickness(context.Cause(limited))
	seen.overdue = !seen.canceled && seen.sick == nil && limited.Err() != nil
	seen.silent = seen.overdue && errors.Is(context.Cause(limited), errSilent)
	seen.silence = r.Silence
	seen.deadline, seen.spec, seen.output = r.Deadline, r.Spec, end.String()
	return seen, nil
}

// errSilent ends a run that does nothing any more.
var errSilent = errors.New("nothing happened for too long")

// arguments are those of Playwright's command line. AppWright's own command would pass them on joined and
// split again at spaces, and do nothing else. --project takes several values, so it comes last. The config's
// share of a shard, and a test.only that was left in the spec, would pass tests over in silence.
func (r Run) arguments(t tools) []string {
	shard := []string{"--shard=1/1"}
	if r.Shard != "" { // Playwright splits a file only when its tests may run beside each other
		shard = []string{"--shard=" + r.Shard, "--fully-parallel"}
	}
	return slices.Concat([]string{
		"test", specPattern(filepath.Join(r.ProjectDir, filepath.FromSlash(r.Spec))),
		"--config", r.ConfigPath,
		"--workers=1", "--retries=0", "--forbid-only",
		"--timeout=" + strconv.FormatInt(r.TestTimeout.Milliseconds(), 10),
		"--reporter=" + t.path("reporter.cjs") + ",list,json,blob",
		"--output", r.artifact("test-results"),
	}, shard, []string{"--project", r.Playwright})
}

// regexpSpecial are the characters that mean something in a JavaScript regular expression.
var regexpSpecial = regexp.MustCompile(`[\\^$.*+?()\[\]{}|/]`)

// specPattern is the regular expression that fits one file only. Playwright reads /.../ as an expression
// with its flags; without the slashes it would ignore case.
func specPattern(path string) string {
	return "/^" + regexpSpecial.ReplaceAllString(path, `\$0`) + "$/"
}

// collect reads what the reporters wrote and keeps the report.
func (r Run) collect(t tools, seen *observation) error {
	var err error
	seen.events, err = readEvents(t.path("events"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return hostFailure("read the run's events", err)
	}
	data, err := os.ReadFile(t.path("report.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return hostFailure("read the run's report", err)
	}
	seen.report, seen.reportErr = parseReport(data)
	if err := os.WriteFile(r.artifact("report.json"), data, 0o644); err != nil {
		return hostFailure("keep the run's report", err)
	}
	return nil
}

func (r Run) artifact(name string) string { return filepath.Join(r.ArtifactsDir, name) }

// name makes a path relative to the project where it is in the project.
func (r Run) name(file string) string {
	rel, err := filepath.Rel(r.ProjectDir, file)
	if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return file
	}
	return filepath.ToSlash(rel)
}

// syncWriter lets the runner's output and the proxy's notes share a log.
type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}

func (s *syncWriter) logf(format string, args ...any) {
	fmt.Fprintf(s, "[qgjob] "+format+"\n", args...)
}

// tailSize is how much of the end of a run's output is remembered for a message.
const tailSize = 4 << 10
