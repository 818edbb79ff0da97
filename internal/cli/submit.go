package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
)

// defaultWait is the time limit of commands that wait for a job.
const defaultWait = 2 * time.Hour

type submitOptions struct {
	connection
	orgID, appVersionID string
	tests               []string
	priority            priority
	target              string
	requires            string
	allowUnmatched      bool
	matrix              []string
	shards              int
	failFast            bool
	maxFailures         int
	deadline            time.Duration
	maxCost             float64
	costGiven           bool
	queueTimeout        time.Duration
	video               string
	environment         environmentOptions
	cancelPrevious      bool
	wait, noWait        bool
	waitTimeout         time.Duration
	reports             reportOptions
	github              githubOptions

	app              string
	bundle, noBundle bool
	projectDir       string
	config, project  string
	idempotencyKey   string
	keyGiven         bool // --idempotency-key is on the command line, be it empty
	json             bool

	// Made by parse.
	targets      []qgjob.Target
	requirements []string
	projectRoot  string // the project to pack; "" for none

	local *localRun // nil: the tests run on a server's devices
}

// priority is the value of --priority: an integer from 0, the most urgent, to 1000.
type priority int

func (p *priority) String() string { return strconv.Itoa(int(*p)) }
func (p *priority) Type() string   { return "int" }
func (p *priority) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || qgjob.CheckPriority(n) != nil {
		return fmt.Errorf("use an integer from %d (most urgent) to %d", qgjob.MostUrgent, qgjob.LeastUrgent)
	}
	*p = priority(n)
	return nil
}

func (p *program) submitCommand() *cobra.Command {
	o := submitOptions{priority: qgjob.DefaultPriority}
	cmd := &cobra.Command{
		Use:   "submit",
		Short: "Submit tests, and wait for their verdict with --wait",
		Long: `Submit queues spec files of an AppWright project for one app version: one, several (--test repeated), a
pattern's or a whole folder's. Each is a job; together they are one run with one verdict, which is passed
only when every job passed. What did not pass when it last ran on the branch comes first.

In the directory of an AppWright project (package.json and appwright.config.ts) the project travels
with the job, without what .gitignore names. Elsewhere the job runs in the worker's own project directory.

A submit is repeated safely: one that is sent again because its answer was lost names the same run, and
so does a CI step that is run again while its run is live or after it passed. A step whose run did not
pass runs it again.

With --wait, Ctrl-C asks whether to cancel; a second one cancels. In CI the first one, or SIGTERM, does.

` + exitHelp(),
		Example: `  qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=tests/onboarding.spec.js
  qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=tests/onboarding.spec.js --priority=0 --target=device --wait
  qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=tests/checkout.spec.js --app=app-release.apk --wait --wait-timeout=30m
  qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=tests --test='e2e/**/*.spec.ts' --wait --fail-fast
  qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=tests --matrix=target=device,emulator --wait --junit=results.xml
  qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=tests --deadline=20m --max-cost=5 --wait
  QGJOB_ORG=qualgent qgjob submit --app-version-id=xyz123 --test=tests/checkout.spec.js --json`,
	}
	f := cmd.Flags()
	o.flags(p, cmd)
	f.BoolVar(&o.wait, "wait", false, "wait for the verdict and exit by it")
	f.BoolVar(&o.noWait, "no-wait", false, "return as soon as the jobs are queued (the default)")
	cmd.MarkFlagsMutuallyExclusive("wait", "no-wait")
	return command(cmd, func(ctx context.Context) error {
		o.keyGiven, o.costGiven = f.Changed("idempotency-key"), f.Changed("max-cost")
		if err := o.parse(); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

// flags adds the flags of every command that submits.
func (o *submitOptions) flags(p *program, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.orgID, "org-id", p.env("QGJOB_ORG"), "organization (required); also QGJOB_ORG")
	f.StringVar(&o.appVersionID, "app-version-id", "", "app version under test (required)")
	f.StringArrayVar(&o.tests, "test", nil, "spec `file`, folder or pattern, relative to the test project (required; repeat for more)")
	f.Var(&o.priority, "priority", "0 (most urgent) to 1000: a lower number is more urgent")
	f.StringVar(&o.target, "target", "", "kind of device: device, emulator or browserstack (default any own phone or emulator)")
	f.StringVar(&o.requires, "requires", "", "what else is asked of the device, `terms` joined by commas: platform=android, os>=12, os<15, model=Pixel *|Galaxy S2?, tag=lab, device=ID")
	f.BoolVar(&o.allowUnmatched, "allow-unmatched", false, "wait even if no known device can run the tests (default: exit 18)")
	f.StringArrayVar(&o.matrix, "matrix", nil, "run each spec once for each of `target=a,b`, and for each requires=TERMS (repeat for more)")
	f.IntVar(&o.shards, "shard", 0, "split each spec into so many jobs, for specs of very many tests")
	f.BoolVar(&o.failFast, "fail-fast", false, "stop the run at its first job that fails: the same as --max-failures=1")
	f.IntVar(&o.maxFailures, "max-failures", 0, "stop the run once so many of its jobs failed (default never)")
	f.StringVar(&o.video, "video", "off", "record the screens of phones and emulators: off, on, or retain-on-failure")
	f.DurationVar(&o.queueTimeout, "queue-timeout", 0, "cancel the jobs that no device has taken after so long (default they wait; with --wait this exits 21)")
	f.DurationVar(&o.deadline, "deadline", 0, "run jobs on BrowserStack that own devices are expected to end later than so long from now, as far as the budget goes")
	f.Float64Var(&o.maxCost, "max-cost", 0, "what --deadline may cost, in the unit of the workers' price of a minute (default: as the organization's budget has it)")
	f.BoolVar(&o.cancelPrevious, "cancel-previous", false, "cancel what is left of the branch's older runs of this workflow; needs a CI that tells the branch, or QGJOB_BRANCH")
	f.DurationVar(&o.waitTimeout, "wait-timeout", defaultWait, "how long to wait for the verdict; the jobs go on after it")
	f.StringVar(&o.app, "app", "", "build to test, a `file`: an APK, an IPA, or a simulator's .app, zipped (default: the app version's newest build, or the one that the config names)")
	f.BoolVar(&o.bundle, "bundle", false, "pack the test project (the default in a project's directory)")
	f.BoolVar(&o.noBundle, "no-bundle", false, "pack nothing: the jobs run in the worker's own project directory")
	f.StringVar(&o.projectDir, "project-dir", "", "`directory` of the test project (default: the current one)")
	f.StringVar(&o.config, "config", "", "AppWright config `file`, relative to the test project (default appwright.config.ts or .js)")
	f.StringVar(&o.project, "project", "", "Playwright project to run (default: the one whose provider fits the device)")
	f.StringVar(&o.idempotencyKey, "idempotency-key", "", "submits with the same `key` and content name the same run, for seven days")
	f.BoolVar(&o.json, "json", false, "print JSON: the job as status --json does, or the run")
	o.environment.flags(f)
	o.reports.flags(f)
	p.connectionFlags(f, &o.connection)
	cmd.MarkFlagsMutuallyExclusive("bundle", "no-bundle")
	cmd.MarkFlagsMutuallyExclusive("fail-fast", "max-failures")
	completeWords(cmd, "video", "off", qgjob.VideoOn, qgjob.VideoRetainOnFailure)
	completeWords(cmd, "target", qgjob.TargetDevice, qgjob.TargetEmulator, qgjob.TargetBrowserStack)
}

// parse checks everything that can be known without the server, and names the flag that is wrong.
func (o *submitOptions) parse() (err error) {
	if err := o.check(); err != nil {
		return err
	}
	for _, id := range []struct{ flag, value string }{{"--org-id", o.orgID}, {"--app-version-id", o.appVersionID}} {
		if err := qgjob.CheckID(id.flag, id.value); err != nil {
			return err
		}
	}
	if o.tests, err = cleanTests(o.tests); err != nil {
		return err
	}
	if o.targets, o.requirements, err = parseKinds(o.target, o.requires, o.matrix); err != nil {
		return err
	}
	switch {
	case o.shards < 0 || o.shards > qgjob.MaxShards:
		return exitf(exitUsage, "--shard must be a number of parts from 2 to %d", qgjob.MaxShards)
	case o.maxFailures < 0:
		return exitf(exitUsage, "--max-failures must be at least 1; leave it out to run every job")
	case o.queueTimeout != 0 && (o.queueTimeout < time.Second || o.queueTimeout > maxQueueTimeout):
		return exitf(exitUsage, "--queue-timeout must be from 1s to %s, for example 30m", maxQueueTimeout)
	case o.deadline != 0 && (o.deadline < time.Second || o.deadline > maxDeadline):
		return exitf(exitUsage, "--deadline must be from 1s to %s, for example 20m", maxDeadline)
	case (o.costGiven || o.maxCost != 0) && !qgjob.IsBudget(o.maxCost):
		return exitf(exitUsage, "--max-cost must be from 0.01 to 1000000000, for example 2.50")
	case o.maxCost > 0 && o.deadline == 0:
		return exitf(exitUsage, "--max-cost is what --deadline may cost: add it, for example --deadline=20m")
	case o.failFast:
		o.maxFailures = 1
	}
	if o.reports.wanted() && !o.wait {
		return exitf(exitUsage, "reports are made of results: add --wait, or use 'qgjob wait' later")
	}
	if o.waitTimeout <= 0 {
		return exitf(exitUsage, "--wait-timeout must be longer than 0, for example 30m")
	}
	if o.keyGiven && (o.idempotencyKey == "" || len(o.idempotencyKey) > 255) {
		return exitf(exitUsage, "--idempotency-key must have 1 to 255 characters")
	}
	if err := o.parseProject(); err != nil {
		return err
	}
	return o.reports.html.parse(o.projectRoot)
}

// parseKinds are the kinds of device and the requirements that each spec is to run with, every kind with every
// requirement: --target's and --requires', or those of --matrix.
func parseKinds(target, requires string, matrix []string) (targets []qgjob.Target, requirements []string, err error) {
	for _, axis := range matrix {
		name, values, _ := strings.Cut(axis, "=")
		switch {
		case values == "" || name != "target" && name != "requires":
			return nil, nil, exitf(exitUsage, "--matrix %q is no axis: use target=device,emulator or requires=os>=12", axis)
		case name == "target" && target != "" || name == "requires" && requires != "":
			return nil, nil, exitf(exitUsage, "--matrix and --%s both say what to ask for: leave one out", name)
		case name == "target":
			for value := range strings.SplitSeq(values, ",") {
				kind, err := qgjob.ParseTarget(strings.TrimSpace(value))
				if err != nil {
					return nil, nil, exitf(exitUsage, "--matrix: %v", err)
				}
				if !slices.Contains(targets, kind) {
					targets = append(targets, kind)
				}
			}
		default: // commas join the terms of one requirement
			r, err := qgjob.ParseRequirement(values)
			if err != nil {
				return nil, nil, exitf(exitUsage, "--matrix: %v", err)
			}
			if !slices.Contains(requirements, r.String()) {
				requirements = append(requirements, r.String())
			}
		}
	}
	if targets == nil {
		kind, err := qgjob.ParseTarget(target)
		if err != nil {
			return nil, nil, exitf(exitUsage, "--target: %v", err)
		}
		targets = []qgjob.Target{kind}
	}
	if requirements == nil {
		r, err := qgjob.ParseRequirement(requires)
		if err != nil {
			return nil, nil, exitf(exitUsage, "--requires: %v", err)
		}
		requirements = []string{r.String()}
	}
	return targets, requirements, nil
}

// maxJobs is how many jobs a run may have.
const maxJobs = 10_000

// The longest --deadline and --queue-timeout.
const (
	maxDeadline     = 7 * 24 * time.Hour
	maxQueueTimeout = 30 * 24 * time.Hour
)

// jobs are the jobs of the given specs: each once for every target, requirement and part.
func (o *submitOptions) jobs(specs []string) ([]api.JobSpec, error) {
	urgency := int(o.priority)
	parts := []string{""}
	if o.shards > 1 {
		parts = nil
		for i := range o.shards {
			parts = append(parts, fmt.Sprintf("%d/%d", i+1, o.shards))
		}
	}
	if n := len(specs) * len(o.targets) * len(o.requirements) * len(parts); n > maxJobs {
		return nil, exitf(exitUsage, "these are %d jobs: a run has at most %d; submit them in several runs", n, maxJobs)
	}
	var jobs []api.JobSpec
	for _, spec := range specs {
		for _, target := range o.targets {
			for _, requires := range o.requirements {
				for _, part := range parts {
					jobs = append(jobs, api.JobSpec{TestPath: spec, Shard: part, Priority: &urgency, Target: string(target), Requires: requires})
				}
			}
		}
	}
	return jobs, nil
}

func (o *submitOptions) parseProject() (err error) {
	if o.config != "" {
		if o.config, err = qgjob.CleanTestPath(filepath.ToSlash(o.config)); err != nil {
			return exitf(exitUsage, "--config: %v", err)
		}
	}
	if o.noBundle {
		if o.projectDir != "" {
			return exitf(exitUsage, "--project-dir and --no-bundle contradict each other: leave one out")
		}
		return nil
	}
	if o.bundle && o.projectDir == "" {
		o.projectDir = "."
	}
	o.projectRoot, err = chooseProject(o.projectDir, o.config)
	return err
}

func (o *submitOptions) run(ctx context.Context, p *program) error {
	stopped, interruption := p.interruptible(ctx)
	defer interruption.stop()
	request, files, err := o.prepare(stopped, p)
	if err != nil {
		return err
	}
	defer files.close()
	if err := o.checkServer(stopped); err != nil {
		return err
	}
	if o.local != nil {
		if err := o.local.awaitDevices(stopped, p, &o.connection); err != nil {
			return err
		}
	}
	if err := files.upload(stopped, o.client(reachTime), request); err != nil {
		return o.explain(err)
	}
	run, err := o.submit(ctx, stopped, request)
	if err != nil {
		return err
	}
	files.close()
	signal := interruption.stop()
	o.github.submitted(run)
	if !o.json {
		p.printSubmitted(run)
	}
	if !o.wait {
		return o.afterSubmit(ctx, p, run)
	}
	s := subjectOf(run)
	if o.github.on {
		all := newWaitedRun(run)
		all.logs = func(j qgjob.Job) string { return o.github.group(ctx, j) }
		s = all
	}
	w := p.newWaiting(&o.connection, s, o.waitTimeout, o.json)
	w.cancels, w.early, w.reports, w.local = true, signal, &o.reports, o.local
	verdict := w.run(ctx)
	if o.github.on {
		o.github.report(context.WithoutCancel(ctx), run.ID)
	}
	return verdict
}

// subjectOf is what a command that waits for a run waits for: its one job, in the contract's words, or all.
func subjectOf(run qgjob.Run) subject {
	if len(run.Jobs) == 1 {
		return newWaitedJob(run.Jobs[0])
	}
	return newWaitedRun(run)
}

// printSubmitted says what was submitted.
func (p *program) printSubmitted(run qgjob.Run) {
	if len(run.Jobs) == 1 {
		fmt.Fprintf(p.stdout, "Success! Job submitted: %s\n", run.Jobs[0].ID)
		return
	}
	fmt.Fprintf(p.stdout, "Success! Run submitted: %s\n", run.ID)
	for _, j := range run.Jobs {
		fmt.Fprintf(p.stdout, "Job submitted: %s | Test: %s\n", j.ID, jobName(j))
	}
}

// afterSubmit is what a submit that does not wait says.
func (o *submitOptions) afterSubmit(ctx context.Context, p *program, run qgjob.Run) error {
	job := run.Jobs[0]
	if len(run.Jobs) > 1 {
		if o.json {
			return printJSON(p.stdout, run)
		}
		fmt.Fprintf(p.stderr, "Priority: %d (0 is the most urgent, 1000 the least) | Jobs: %d | State: %s\n", job.Priority, len(run.Jobs), run.State)
		fmt.Fprintf(p.stderr, "Follow it with: qgjob status --run-id=%s --wait\n", run.ID)
		return nil
	}
	if o.json {
		detail, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.JobDetail, error) {
			return c.Job(ctx, job.ID)
		})
		if err != nil {
			return err
		}
		return printJSON(p.stdout, detail)
	}
	fmt.Fprintf(p.stderr, "Priority: %d (0 is the most urgent, 1000 the least) | Target: %s | State: %s\n", job.Priority, job.Target, job.State)
	fmt.Fprintf(p.stderr, "Follow it with: qgjob status --job-id=%s --wait\n", job.ID)
	return nil
}

// prepare makes the request and the files that travel with it.
func (o *submitOptions) prepare(ctx context.Context, p *program) (_ api.SubmitRequest, _ *submitFiles, err error) {
	video, err := qgjob.ParseVideo(o.video)
	if err != nil {
		return api.SubmitRequest{}, nil, exitf(exitUsage, "--video: %v", err)
	}
	request := api.SubmitRequest{
		OrgID: o.orgID, AppVersionID: o.appVersionID, Project: o.project, ConfigPath: o.config,
		CI: p.ciFacts(), MaxFailures: o.maxFailures, CancelPrevious: o.cancelPrevious, AllowUnmatched: o.allowUnmatched,
		Video:               string(video),
		QueueTimeoutSeconds: int64(o.queueTimeout.Round(time.Second) / time.Second),
		DeadlineSeconds:     int64(o.deadline.Round(time.Second) / time.Second), MaxCost: o.maxCost,
	}
	if o.cancelPrevious && (request.CI == nil || request.CI.Branch == "") {
		return request, nil, exitf(exitUsage, "--cancel-previous needs to know the branch, and no CI tells it: set QGJOB_BRANCH")
	}
	if request.Env, request.Secrets, err = o.environment.read(p); err != nil {
		return request, nil, err
	}
	files := &submitFiles{}
	defer func() {
		if err != nil {
			files.close()
		}
	}()
	if o.app != "" {
		if err := files.addBuild(o.app); err != nil {
			return request, nil, err
		}
		request.BuildSHA256 = files.build.SHA256
	}
	if o.projectRoot != "" {
		if err := files.pack(ctx, o.projectRoot); err != nil {
			return request, nil, err
		}
		request.BundleSHA256 = files.bundle.SHA256
	}
	specs, err := o.specs(p, files.packed)
	if err != nil {
		return request, nil, err
	}
	if request.Jobs, err = o.jobs(specs); err != nil {
		return request, nil, err
	}
	switch {
	case o.keyGiven:
		request.IdempotencyKey = o.idempotencyKey
	default:
		if request.IdempotencyKey = p.ciKey(request); request.IdempotencyKey != "" {
			request.RepeatFailed = true
		} else {
			request.IdempotencyKey = randomKey()
		}
	}
	return request, files, nil
}

// specs are the spec files that the tests name, among the files of the packed project where there is one.
func (o *submitOptions) specs(p *program, packed []string) ([]string, error) {
	if o.projectRoot == "" {
		for _, test := range o.tests {
			if isPattern(test) || test == "." {
				return nil, exitf(exitUsage, "--test %s: a pattern needs the test project: run this in its directory, or name it with --project-dir", test)
			}
		}
		return expandTests(o.tests, nil)
	}
	specs, err := expandTests(o.tests, packed)
	for _, spec := range specs {
		if !slices.Contains(packed, spec) {
			fmt.Fprintf(p.stderr, "Warning: %s is not among the %d files of the test project in %s (is it ignored by git?).\n", spec, len(packed), o.projectRoot)
		}
	}
	return specs, err
}

// submit sends the request. An interrupt does not cut it off at once: its answer decides whether there is
// a job to cancel, so it is given two more seconds.
func (o *submitOptions) submit(ctx, stopped context.Context, request api.SubmitRequest) (qgjob.Run, error) {
	if cause := context.Cause(stopped); cause != nil {
		return qgjob.Run{}, cause
	}
	sending, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(stopped, func() { time.AfterFunc(2*time.Second, cancel) })()
	run, err := o.client(reachTime).Submit(sending, request)
	switch {
	case err == nil && len(run.Jobs) != len(request.Jobs):
		return run, exitf(exitInfrastructure, "the server answered the submit of %d jobs with %d jobs", len(request.Jobs), len(run.Jobs))
	case qgjob.ErrorCode(err) == qgjob.CodeConflict && o.keyGiven:
		return run, exitf(exitUsage, "--idempotency-key %q was used for another submit within seven days (%v): use a new key, or submit the same again", o.idempotencyKey, err)
	case qgjob.ErrorCode(err) == qgjob.CodeUnmatched && o.local != nil:
		return run, exitf(exitNoDevice, "%v\nWith --local the devices are this host's: connect or start one that fits, or ask for less.", err)
	case qgjob.ErrorCode(err) == qgjob.CodeUnavailable || sending.Err() != nil:
		return run, exitf(exitInfrastructure, "it is not known whether the job was submitted: %v\n"+
			"Submit again with --idempotency-key=%s: if it was, that names the same job.", err, request.IdempotencyKey)
	}
	return run, err
}
