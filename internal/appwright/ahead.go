package appwright

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"qgjob"
)

//go:embed js/runner.cjs
var runnerJS []byte

//go:embed js/worker.cjs
var workerJS []byte

// Start says which runner to start ahead of the run that it is for. Runs that agree in it can use the same one.
type Start struct {
	ProjectDir   string   // its dependencies are what is loaded
	ScriptDir    string   // where runners find their programs; made when it is missing
	TransformDir string   // where Playwright keeps what it compiled; shared by runs of one project only
	Env          []string // the variables of the run, as NAME=value
}

// Ahead is a runner's process that has loaded Playwright and AppWright, or is about to, and waits for the
// run that it is for. It has evaluated nothing of the project yet, and knows no variable of the run but those
// that Node itself reads. Whoever has one runs it with [Run.Do] or ends it with Close.
type Ahead struct {
	start   startKey
	process *process
	order   io.WriteCloser
	output  *outlet
	ended   bool // nothing of it is left
}

// startKey is what a runner is started with, resolved.
type startKey struct {
	node, playwright, appwright, transformDir, env string
}

// nodeVariable matches the variables that Node reads when it starts, and never again.
var nodeVariable = regexp.MustCompile(`^NODE_[A-Z_]+=`)

// StartAhead starts a runner. The error is a [Failure].
func StartAhead(s Start) (*Ahead, error) {
	key, err := s.key()
	if err != nil {
		return nil, err
	}
	if err := writeScripts(s.ScriptDir); err != nil {
		return nil, hostFailure("write the runner's programs", err)
	}
	if s.TransformDir != "" {
		if err := os.MkdirAll(s.TransformDir, 0o700); err != nil {
			return nil, hostFailure("make the directory for compiled specs", err)
		}
	}
	input, order, err := os.Pipe()
	if err != nil {
		return nil, hostFailure("start node", err)
	}
	defer input.Close()
	a := &Ahead{start: key, order: order, output: &outlet{}}
	env := append(baseEnvironment(os.Getenv("PATH"), s.ScriptDir, os.TempDir()), key.loadTime()...)
	if port, ok := os.LookupEnv("ANDROID_ADB_SERVER_PORT"); ok { // whose runner it is shows in its environment
		env = append(env, "ANDROID_ADB_SERVER_PORT="+port)
	}
	a.process, err = startProcess(command{
		path: key.node, args: []string{"--require", filepath.Join(s.ScriptDir, "preload.cjs"), filepath.Join(s.ScriptDir, "runner.cjs")},
		dir: s.ScriptDir, env: append(env, nodeVariables(s.Env)...), stdin: input, stdout: a.output, stderr: a.output,
	})
	if err != nil {
		order.Close()
		return nil, hostFailure("start node", err)
	}
	return a, nil
}

func (s Start) key() (startKey, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return startKey{}, failuref(qgjob.CauseHostFailed, "node is not installed on the worker's host: install Node 20 or later: %w", err)
	}
	playwright, _, err := installed(s.ProjectDir, "@playwright/test")
	if err != nil {
		return startKey{}, err
	}
	appwright, _, err := installed(s.ProjectDir, "appwright")
	if err != nil {
		return startKey{}, err
	}
	return startKey{node, playwright, appwright, s.TransformDir, strings.Join(nodeVariables(s.Env), "\n")}, nil
}

// loadTime are the variables that Playwright, AppWright and the runner's programs read when they are loaded.
func (k startKey) loadTime() []string {
	env := []string{"QGJOB_PLAYWRIGHT=" + k.playwright, "QGJOB_APPWRIGHT=" + k.appwright}
	if k.transformDir != "" {
		env = append(env, "PWTEST_CACHE_DIR="+k.transformDir)
	}
	return env
}

func nodeVariables(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		return !nodeVariable.MatchString(v) || strings.HasPrefix(v, "NODE_OPTIONS=")
	})
}

// Fits says whether the runner lives and is what s would start.
func (a *Ahead) Fits(s Start) bool {
	key, err := s.key()
	return err == nil && key == a.start && a.lives()
}

func (a *Ahead) lives() bool {
	select {
	case <-a.process.done:
		return false
	default:
		return true
	}
}

// Close ends a runner that was not used. It is idempotent.
func (a *Ahead) Close() {
	if a.ended {
		return
	}
	a.ended = true
	a.order.Close()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	a.process.wait(ended)
}

// run gives the runner its order. From then on it is the run's process.
func (a *Ahead) run(dir string, env, args []string, output io.Writer) error {
	variables := map[string]string{markVariable: a.process.mark}
	for _, v := range append(env, a.start.loadTime()...) {
		name, value, _ := strings.Cut(v, "=")
		variables[name] = value
	}
	line, err := json.Marshal(map[string]any{"cwd": dir, "env": variables, "args": args})
	if err != nil {
		return err
	}
	a.output.to(output)
	_, err = a.order.Write(append(line, '\n'))
	return errors.Join(err, a.order.Close())
}

// wait waits for the end of the run that the runner was given.
func (a *Ahead) wait(ctx context.Context) exit {
	a.ended = true
	return a.process.wait(ctx)
}

// outlet passes on what is written to it once it has a writer; what comes before, a warning of a package
// that was loaded, is kept until then.
type outlet struct {
	mu   sync.Mutex
	kept []byte
	w    io.Writer
}

// keptOutput bounds what a runner that waits may say.
const keptOutput = 16 << 10

func (o *outlet) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.w != nil {
		return o.w.Write(b)
	}
	o.kept = append(o.kept, b[:min(len(b), keptOutput-len(o.kept))]...)
	return len(b), nil
}

func (o *outlet) to(w io.Writer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.w = w
	w.Write(o.kept)
	o.kept = nil
}

// writeScripts puts the runner's programs into a directory. Those that are there are this version's: the
// directory is one process's own.
func writeScripts(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"preload.cjs": preloadJS, "runner.cjs": runnerJS, "worker.cjs": workerJS} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		tmp, err := os.CreateTemp(dir, "*.new")
		if err != nil {
			return err
		}
		_, err = tmp.Write(content)
		if err = errors.Join(err, tmp.Close()); err == nil {
			err = os.Rename(tmp.Name(), path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
