package agent

import (
	"context"
	"io"

	"qgjob"
	"qgjob/internal/device"
)

// Runner readies a test project and runs one spec of it. AppWright is the real one; the tests of the
// worker's protocol have one that needs no phone. Several goroutines may call it. Its errors are a
// *device.Failure, or wrap the context's error when ctx ended first.
type Runner interface {
	// Plan installs what the project depends on and chooses what to run. The device is not touched yet.
	Plan(ctx context.Context, t Task, log io.Writer) (Plan, error)

	// Run runs the spec to its end. When ctx ends first, no process of the run is left when it returns.
	Run(ctx context.Context, t Task, p Plan, on Setup, log io.Writer) (Verdict, error)
}

// Task is one spec of an unpacked test project, for one kind of device.
type Task struct {
	Dir          string // the project
	BundleSHA256 string // of what Dir was unpacked from: the same for the same project
	WorkDir      string // for what the run needs, removed after it
	ArtifactsDir string // for what the run makes, removed when the attempt has ended
	CacheDir     string // for dependencies, shared by all workers of a data directory
	Spec         string // relative to Dir, with forward slashes
	Shard        string // part/parts of the spec's tests; empty: all of them
	ConfigPath   string // "": appwright.config.ts or .js
	Project      string // of Playwright; "" takes the one that fits Kind
	Kind         qgjob.Target
}

// Plan is what was chosen.
type Plan struct {
	Dir        string // the project, without symbolic links
	ConfigPath string // absolute
	Project    string // of Playwright
	BuildPath  string // of the app as the config names it, absolute or a URL; "" where it names none
}

// Setup is a device that is ready for the run.
type Setup struct {
	Endpoint    device.Endpoint
	Build       device.Build
	VersionName string // of the build
	Limits      Limits
}

// Verdict is how a run ended.
type Verdict struct {
	qgjob.Result
	Suspect bool // it could be the device's doing: a look at the device decides
}
