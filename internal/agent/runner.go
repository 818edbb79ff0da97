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

	// Ready starts what takes time and needs no device, so that Run finds it done: it does not wait, and fails
	// for no reason of its own. What it starts is kept for the task's device until Run takes it or Rest ends it.
	Ready(t Task, p Plan)

	// Run runs the spec to its end. When ctx ends first, no process of the run is left when it returns.
	Run(ctx context.Context, t Task, p Plan, on Setup, log io.Writer) (Verdict, error)

	// Rest ends what is kept for a device between its jobs.
	Rest(deviceID string)
}

// Task is one spec of an unpacked test project, for one kind of device.
type Task struct {
	DeviceID     string // one task at a time for each device
	Org          string
	Dir          string // the project; the same path for every task of a device
	BundleSHA256 string // of what Dir was unpacked from: the same for the same project
	WorkDir      string // for what the run needs, removed after it
	ArtifactsDir string // for what the run makes, removed when the attempt has ended
	CacheDir     string // for dependencies, shared by all workers of a data directory
	KeepDir      string // for what is kept while the worker lives
	Spec         string // relative to Dir, with forward slashes
	Shard        string // part/parts of the spec's tests; empty: all of them
	ConfigPath   string // "": appwright.config.ts or .js
	Project      string // of Playwright; "" takes the one that fits Kind
	Kind         qgjob.Target
	Platform     string
	Env          []string // of the tests, as NAME=value
}

// Plan is what was chosen.
type Plan struct {
	Dir        string // the project, without symbolic links
	ConfigPath string // absolute
	Project    string // of Playwright
	Provider   string // AppWright's, of the project
	BuildPath  string // of the app as the config names it, absolute or a URL; "" where it names none
}

// Setup is a device for the run.
type Setup struct {
	Endpoint    device.Endpoint
	Ready       <-chan struct{} // closed when the device may be used; nil: it may now
	HandOn      bool            // an Appium session may be left open for the device's next job
	Build       device.Build
	VersionName string                      // of the build
	Check       func(context.Context) error // of the device; several goroutines may call it
	Limits      Limits
}

// Verdict is how a run ended.
type Verdict struct {
	qgjob.Result
	Suspect bool   // it could be the device's doing: a look at the device decides
	Session string // the Appium session that the runner keeps open for the device's next job; "": none
}
