package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"qgjob/internal/appwright"
	"qgjob/internal/device"
)

// keptInspections is how many inspected projects are remembered.
const keptInspections = 32

// AppWright is the Runner that runs specs with the project's own AppWright.
type AppWright struct {
	turns turns

	mu    sync.Mutex
	known []inspection    // last used last
	kept  map[string]kept // by device
}

// kept is what waits for a device's next job.
type kept struct {
	ahead  *appwright.Ahead  // nil: no runner
	parked *appwright.Parked // nil: no session
}

// inspection is what was found out about a bundle, wherever it is unpacked.
type inspection struct {
	of      string // Task.inspected
	project appwright.Project
}

// inspected names all that the outcome of an inspection depends on. It is a hash: some of the variables may be secret.
func (t Task) inspected() string {
	sum := sha256.Sum256([]byte(strings.Join(append([]string{t.BundleSHA256, t.ConfigPath}, t.Env...), "\x00")))
	return hex.EncodeToString(sum[:])
}

// NewAppWright makes a runner. One serves all devices of a worker.
func NewAppWright() *AppWright { return &AppWright{kept: map[string]kept{}} }

// Plan implements Runner. A bundle is inspected once, and not by two attempts at the same time.
func (w *AppWright) Plan(ctx context.Context, t Task, log io.Writer) (Plan, error) {
	if err := appwright.Dependencies(ctx, t.Dir, t.CacheDir, t.Org, log); err != nil {
		return Plan{}, failureOf(err)
	}
	project, err := w.inspect(ctx, t)
	if err != nil {
		return Plan{}, failureOf(err)
	}
	chosen, err := project.Choose(t.Kind, t.Platform, t.Project)
	if err != nil {
		return Plan{}, failureOf(err)
	}
	if err := project.Has(chosen, t.Spec); err != nil {
		return Plan{}, failureOf(err)
	}
	return Plan{Dir: project.Dir, ConfigPath: project.ConfigPath, Project: chosen.Name, Provider: chosen.Provider, BuildPath: chosen.BuildPath}, nil
}

func (w *AppWright) inspect(ctx context.Context, t Task) (appwright.Project, error) {
	of := t.inspected()
	done, err := w.turns.take(ctx, of)
	if err != nil {
		return appwright.Project{}, err
	}
	defer done()
	if project, ok := w.recall(of, t.Dir); ok {
		return project, nil
	}
	project, err := appwright.Inspect(ctx, t.Dir, t.ConfigPath, t.Env)
	if err != nil {
		return project, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = append(w.known, inspection{of, project})
	w.known = w.known[max(0, len(w.known)-keptInspections):]
	return project, nil
}

// recall returns what an inspection found, as if it had been found in another directory.
func (w *AppWright) recall(of, taskDir string) (appwright.Project, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.known, func(k inspection) bool { return k.of == of })
	dir, err := filepath.EvalSymlinks(taskDir)
	if i < 0 || err != nil {
		return appwright.Project{}, false
	}
	found := w.known[i]
	w.known = append(slices.Delete(w.known, i, i+1), found)
	p := found.project
	p.ConfigPath = moved(p.ConfigPath, p.Dir, dir)
	p.Playwrights = slices.Clone(p.Playwrights)
	for i := range p.Playwrights {
		p.Playwrights[i].BuildPath = moved(p.Playwrights[i].BuildPath, p.Dir, dir)
	}
	p.Dir = dir
	return p, true
}

// moved is a path that was inside one directory, inside another one. Other paths stay as they are.
func moved(path, from, to string) string {
	rel, err := filepath.Rel(from, path)
	if path == "" || err != nil || !filepath.IsLocal(rel) {
		return path
	}
	return filepath.Join(to, rel)
}

// start says which runner a task needs.
func (t Task) start(p Plan) appwright.Start {
	project := sha256.Sum256([]byte(t.Org + " " + t.BundleSHA256))
	return appwright.Start{
		ProjectDir: p.Dir, Env: t.Env,
		ScriptDir:    filepath.Join(t.KeepDir, "runner"),
		TransformDir: filepath.Join(t.KeepDir, "transforms", hex.EncodeToString(project[:8])),
	}
}

// Ready implements Runner: it starts the runner, unless one that fits waits already.
func (w *AppWright) Ready(t Task, p Plan) {
	start := t.start(p)
	w.mu.Lock()
	k := w.kept[t.DeviceID]
	w.mu.Unlock()
	if k.ahead != nil && k.ahead.Fits(start) {
		return
	}
	if k.ahead != nil {
		k.ahead.Close()
	}
	ahead, err := appwright.StartAhead(start)
	if err != nil {
		ahead = nil // the run tells why, when it cannot start one either
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	k = w.kept[t.DeviceID]
	k.ahead = ahead
	w.kept[t.DeviceID] = k
}

// take hands over what is kept for a device.
func (w *AppWright) take(deviceID string) kept {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.kept[deviceID]
	delete(w.kept, deviceID)
	return k
}

// Rest implements Runner. The session that is kept is the device's to end.
func (w *AppWright) Rest(deviceID string) {
	if k := w.take(deviceID); k.ahead != nil {
		k.ahead.Close()
	}
}

// Run implements Runner. When the run has its session, the runner of the device's next job is started.
func (w *AppWright) Run(ctx context.Context, t Task, p Plan, on Setup, log io.Writer) (Verdict, error) {
	found := w.take(t.DeviceID)
	var next sync.WaitGroup
	result, evidence, err := appwright.Run{
		ProjectDir: p.Dir, ConfigPath: p.ConfigPath, Playwright: p.Project, Provider: p.Provider, Spec: t.Spec, Shard: t.Shard,
		WorkDir: t.WorkDir, ArtifactsDir: t.ArtifactsDir,
		Upstream: appwright.Upstream{URL: on.Endpoint.URL, Capabilities: on.Endpoint.Capabilities, Cloud: on.Endpoint.Cloud},
		App: appwright.App{
			Platform: t.Platform, Path: on.Build.Path, Package: on.Build.Package, Activity: on.Build.Activity,
			VersionCode: on.Build.VersionCode, VersionName: on.VersionName,
		},
		Ready: on.Ready, HandOn: on.HandOn, Parked: found.parked,
		Ahead: found.ahead, Start: t.start(p),
		Session:     func() { next.Go(func() { w.Ready(t, p) }) },
		Check:       on.check,
		TestTimeout: on.Limits.Test, Silence: on.Limits.Silence, Deadline: on.Limits.Deadline, Env: t.Env,
	}.Do(ctx, log)
	next.Wait()
	verdict := Verdict{Result: result, Suspect: evidence.AskDevice}
	if evidence.Parked != nil {
		verdict.Session = evidence.Parked.ID
		w.mu.Lock()
		defer w.mu.Unlock()
		k := w.kept[t.DeviceID]
		k.parked = evidence.Parked
		w.kept[t.DeviceID] = k
	}
	return verdict, failureOf(err)
}

// check is Check with an error as package appwright knows it.
func (s Setup) check(ctx context.Context) error {
	err := s.Check(ctx)
	if err == nil {
		return nil
	}
	return &appwright.Failure{Cause: device.CauseOf(err), Message: err.Error(), Err: err}
}

// failureOf is an error of package appwright as one that this package knows the cause of.
func failureOf(err error) error {
	if f, ok := errors.AsType[*appwright.Failure](err); ok {
		return device.Failf(f.Cause, "%w", err)
	}
	return err
}
