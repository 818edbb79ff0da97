package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/build"
	"qgjob/internal/bundle"
	"qgjob/internal/device"
)

const (
	bundleExt = ".tar.zst"
	buildExt  = ".apk"
	// dependenciesName is the directory of the projects' npm packages, below the worker's.
	dependenciesName = "dependencies"
)

// ready is an attempt whose runner can be started.
type ready struct {
	task     Task
	plan     Plan
	setup    Setup
	prepared bool // the device holds the build, with its data cleared
}

// setUp takes an attempt from its assignment to a device that is ready for its run, or, when the build is
// believed to be on the device, to where only prepare is left. What no device can mend is found before the
// device is touched.
func (a *Agent) setUp(ctx context.Context, at *attempt, session device.Session, dir string, log io.Writer, report *qgjob.Report) (r ready, err error) {
	project := filepath.Join(dir, "project")
	bundleSHA, err := a.unpack(ctx, at, project, log)
	if err != nil {
		return r, err
	}
	r.task = Task{
		DeviceID: at.slot.id, Org: at.Job.OrgID, KeepDir: filepath.Join(a.own.work(), "kept"),
		Dir: project, BundleSHA256: bundleSHA, WorkDir: filepath.Join(dir, "run"), ArtifactsDir: filepath.Join(dir, artifactsName),
		CacheDir: filepath.Join(a.o.DataDir, dependenciesName),
		Spec:     at.Job.TestPath, Shard: at.Job.Shard, ConfigPath: at.Job.ConfigPath, Project: at.Job.Project, Kind: at.kind, Platform: at.platform, Env: at.env,
	}
	if r.task.Project == "" {
		r.task.Project = a.o.Project
	}
	if r.plan, err = a.o.Runner.Plan(ctx, r.task, log); err != nil {
		return r, err
	}
	a.o.Runner.Ready(r.task, r.plan)
	b, versionName, err := a.build(ctx, at, project, r.plan)
	if err != nil {
		return r, err
	}
	report.BuildSHA256 = b.SHA256
	r.setup = Setup{Build: b, VersionName: versionName, Check: session.Check, Limits: a.o.Limits}
	fmt.Fprintf(log, "[qgjob] device %s, build %s (%s), attempt %d: %s\n", at.slot.id, b.SHA256[:12], b.Package, at.Number, at.Reason)
	if err := session.Check(ctx); err != nil {
		return r, err
	}
	_, r.setup.HandOn = session.(device.Keeper)
	if h, ok := session.(device.Holder); ok && r.setup.HandOn { // it is up already
		if app, ok := h.Installed(); ok && app == b.Key {
			r.setup.Endpoint, err = session.Endpoint(ctx)
			return r, err
		}
	}
	if err := a.prepare(ctx, session, b, log, report); err != nil {
		return r, err
	}
	r.prepared = true
	r.setup.Endpoint, err = session.Endpoint(ctx)
	return r, err
}

// prepare puts the build on the device, or clears its data there.
func (a *Agent) prepare(ctx context.Context, session device.Session, b device.Build, log io.Writer, report *qgjob.Report) error {
	prepared, err := session.Prepare(ctx, b)
	report.InstallMS, report.ResetMS = prepared.Install.Milliseconds(), prepared.Reset.Milliseconds()
	report.Installed = prepared.Installed
	if err != nil {
		return err
	}
	report.InstallSaved = !prepared.Installed
	if prepared.Installed {
		fmt.Fprintf(log, "[qgjob] app installed in %v\n", prepared.Install.Round(time.Millisecond))
	} else {
		fmt.Fprintf(log, "[qgjob] app was installed already; its data cleared in %v\n", prepared.Reset.Round(time.Millisecond))
	}
	return nil
}

// downloadPatience is how long a download waits for a server that is away, as when it is started again: that costs the job nothing.
const downloadPatience = time.Minute

// files is the client that downloads.
func (a *Agent) files() *api.Client {
	c := *a.o.Client
	c.Patience = max(c.Patience, downloadPatience)
	return &c
}

// unpack puts the job's test project into dir: its bundle, or the project in the worker's own directory,
// which is packed first, so that both go one way. It returns the bundle's SHA-256.
func (a *Agent) unpack(ctx context.Context, at *attempt, dir string, log io.Writer) (sha string, err error) {
	job := at.Job
	sha = job.BundleSHA256
	if sha == "" {
		if sha, err = a.packOwn(ctx, log); err != nil {
			return "", err
		}
	}
	path, err := a.hold.get(ctx, sha, bundleExt, func(ctx context.Context) (io.ReadCloser, error) {
		return a.files().Bundle(ctx, job.OrgID, sha, at.Lease.Token)
	})
	if err != nil {
		return "", err
	}
	if err := unpackFile(path, sha, dir); err != nil {
		return "", err
	}
	if job.BundleSHA256 == "" {
		if err := linkDependencies(a.o.ProjectDir, dir); err != nil {
			return "", hostFailed(err)
		}
	}
	return sha, nil
}

// unpackFile unpacks a bundle of the cache. One that was damaged there is no fault of the project's.
func unpackFile(path, sha, dir string) error {
	file, err := os.Open(path)
	if err != nil {
		return hostFailed(err)
	}
	defer file.Close()
	err = bundle.Unpack(file, dir, sha)
	switch {
	case err == nil:
		return nil
	case qgjob.ErrorCode(err) != qgjob.CodeInvalid && qgjob.ErrorCode(err) != qgjob.CodeTooLarge:
		return hostFailed(err)
	case !holds(path, sha):
		os.Remove(path)
		return device.Failf(qgjob.CauseHostFailed, "bundle %s was damaged on the worker's disk, and is downloaded again the next time", sha)
	}
	return device.Failf(qgjob.CauseProjectInvalid, "%w", err)
}

// packOwn puts a bundle of the worker's own project into the cache.
func (a *Agent) packOwn(ctx context.Context, log io.Writer) (sha string, err error) {
	if a.o.ProjectDir == "" {
		return "", device.Failf(qgjob.CauseProjectInvalid, "the job brings no test project, and this worker has none: submit from the project's directory, or start the worker in it")
	}
	fmt.Fprintf(log, "[qgjob] the job brings no test project: the one in %s is taken\n", a.o.ProjectDir)
	return a.hold.put(bundleExt, func(w io.Writer) (string, error) {
		sha, _, err := bundle.Pack(ctx, a.o.ProjectDir, w)
		if code := qgjob.ErrorCode(err); code == qgjob.CodeInvalid || code == qgjob.CodeTooLarge {
			return "", device.Failf(qgjob.CauseProjectInvalid, "%w", err)
		}
		return sha, err
	})
}

// linkDependencies lets a copy of the worker's own project use what is installed in that project.
func linkDependencies(own, dir string) error {
	installed := filepath.Join(own, "node_modules")
	if info, err := os.Stat(installed); err != nil || !info.IsDir() {
		return nil
	}
	err := os.Symlink(installed, filepath.Join(dir, "node_modules"))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// build finds the build to install, and the name of its version: the job's, or the one that the project's
// config names.
func (a *Agent) build(ctx context.Context, at *attempt, project string, plan Plan) (b device.Build, versionName string, err error) {
	job := at.Job
	path := plan.BuildPath
	switch {
	case job.BuildSHA256 != "":
		path, err = a.hold.get(ctx, job.BuildSHA256, buildExt, func(ctx context.Context) (io.ReadCloser, error) {
			return a.files().Build(ctx, job.OrgID, job.AppVersionID, job.BuildSHA256, at.Lease.Token)
		})
		if err != nil {
			return b, "", err
		}
	case path == "":
		return b, "", device.Failf(qgjob.CauseProjectInvalid, "there is no app to test: submit with --app, or name a buildPath in the project's config")
	case strings.Contains(path, "://"):
		return b, "", device.Failf(qgjob.CauseProjectInvalid, "buildPath %s of the project's config is no file: submit the build with --app", path)
	default:
		path = a.buildFile(job, project, path)
	}
	info, err := a.parse(job, path)
	if err != nil {
		return b, "", badBuild(project, path, err)
	}
	if err := fits(info, at); err != nil {
		return b, "", err
	}
	return device.Build{
		Path: path, Platform: info.Platform, Simulator: info.Simulator, SHA256: info.SHA256, Package: info.Package, Activity: info.Activity, VersionCode: info.VersionCode,
		Key: qgjob.App{OrgID: job.OrgID, AppVersionID: job.AppVersionID, BuildSHA256: info.SHA256},
	}, info.VersionName, nil
}

// fits refuses a build for other devices than the one that the job was given: the server knows only of builds that were uploaded.
func fits(info build.Info, at *attempt) error {
	switch kind := info.Kind(); {
	case at.platform != "" && info.Platform != at.platform:
		return device.Failf(qgjob.CauseProjectInvalid, "the build of %s is for %s, and the job was given a device with %s: ask for the platform (--requires=platform=%s), or submit the build with --app", info.Package, info.Platform, at.platform, info.Platform)
	case at.kind == qgjob.TargetBrowserStack && info.Simulator:
		return device.Failf(qgjob.CauseProjectInvalid, "the build of %s is for simulators, and BrowserStack has iPhones only: submit an IPA with --app", info.Package)
	case at.kind == qgjob.TargetBrowserStack:
	case kind != "" && kind != at.kind:
		return device.Failf(qgjob.CauseProjectInvalid, "the build of %s is for target %s, and the job was given a %s: submit with --target=%s, or the build with --app", info.Package, kind, at.kind, kind)
	}
	return nil
}

// parse reads a build. One that came from the server is known by its SHA-256 and read once.
func (a *Agent) parse(job qgjob.Job, path string) (build.Info, error) {
	a.mu.Lock()
	info, known := a.builds[job.BuildSHA256]
	a.mu.Unlock()
	if known {
		return info, nil
	}
	info, err := build.Parse(path)
	if job.BuildSHA256 != "" && (err != nil || info.SHA256 != job.BuildSHA256) && !holds(path, job.BuildSHA256) {
		os.Remove(path)
		return build.Info{}, device.Failf(qgjob.CauseHostFailed, "build %s was damaged or removed on the worker's disk, and is downloaded again the next time", job.BuildSHA256)
	}
	if err == nil && job.BuildSHA256 != "" {
		a.mu.Lock()
		a.builds[job.BuildSHA256] = info
		a.mu.Unlock()
	}
	return info, err
}

// buildFile is where the build that a config names is. Builds are seldom part of a bundle, because git
// ignores them: for a job that runs the worker's own project, it is taken from there.
func (a *Agent) buildFile(job qgjob.Job, project, path string) string {
	real, err := filepath.EvalSymlinks(project)
	if _, statErr := os.Stat(path); err != nil || statErr == nil || job.BundleSHA256 != "" {
		return path
	}
	rel, err := filepath.Rel(real, path)
	if err != nil || !filepath.IsLocal(rel) {
		return path
	}
	return filepath.Join(a.o.ProjectDir, rel)
}

func badBuild(project, path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if rel, relErr := filepath.Rel(project, path); relErr == nil && filepath.IsLocal(rel) {
			path = rel
		}
		return device.Failf(qgjob.CauseProjectInvalid, "the project's config names build %s, which is not in the bundle (does git ignore it?): submit the build with --app", path)
	case qgjob.ErrorCode(err) == qgjob.CodeInvalid:
		return device.Failf(qgjob.CauseBadBuild, "%w", err)
	}
	return hostFailed(err)
}
