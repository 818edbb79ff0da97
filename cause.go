package qgjob

// Cause is the stable name of why an attempt did not pass. People script against these names.
type Cause string

// The causes.
const (
	CauseTestFailed   Cause = "test_failed"
	CauseTestTimedOut Cause = "test_timed_out"
	CauseRunTimedOut  Cause = "run_timed_out"
	CauseTestSilent   Cause = "test_silent"
	CauseAppCrashed   Cause = "app_crashed"

	CauseNoTestsMatched  Cause = "no_tests_matched"
	CauseAllTestsSkipped Cause = "all_tests_skipped"

	// CauseAllTestsQuarantined is that of a job that passed without a test that counts. No attempt ends with it.
	CauseAllTestsQuarantined Cause = "all_tests_quarantined"

	CauseSecretsUnavailable Cause = "secrets_unavailable"
	CauseProjectInvalid     Cause = "project_invalid"
	CauseBadBuild           Cause = "bad_build"

	CauseDeviceOffline     Cause = "device_offline"
	CauseDeviceHung        Cause = "device_hung"
	CauseEmulatorNotBooted Cause = "emulator_not_booted"
	CauseInstallRefused    Cause = "install_refused"
	CauseSessionNotCreated Cause = "session_not_created"
	CauseSessionDied       Cause = "session_died"
	CauseAppiumDied        Cause = "appium_died"
	CauseRunnerCrashed     Cause = "runner_crashed"
	CauseReportInvalid     Cause = "report_invalid"
	CauseHostFailed        Cause = "host_failed"
	CauseHostDiskFull      Cause = "host_disk_full"
	CauseTransferFailed    Cause = "transfer_failed"
	CauseRegistryRefused   Cause = "registry_refused"
	CauseSetupTimedOut     Cause = "setup_timed_out"
	CauseLeaseExpired      Cause = "lease_expired"
	CauseCloudUnreachable  Cause = "cloud_unreachable"
	CauseCloudQueueFull    Cause = "cloud_queue_full"
	CauseCloudRefused      Cause = "cloud_refused"

	CauseCanceled      Cause = "canceled"
	CauseRunStopped    Cause = "run_stopped"
	CauseSuperseded    Cause = "superseded"
	CauseQueueTimedOut Cause = "queue_timed_out"
	CauseHandedBack    Cause = "handed_back"
	CauseNotDelivered  Cause = "not_delivered"
)

type causeFacts struct {
	advice string
	final  bool // no other device can mend it: the verdict is errored at once
	free   bool // spends no budget
	test   bool // the test's doing: spends its budget, not the infrastructure's
	cancel bool // the job ends as canceled
}

var causes = map[Cause]causeFacts{
	CauseTestFailed:   {advice: "read the error and the log of the attempt", test: true},
	CauseTestTimedOut: {advice: "find in the log what it waits for; if it needs longer, call test.setTimeout(...) in the spec, or raise its worker's limit (qgjob worker --test-timeout, 5 minutes unless given), which outweighs the config's timeout", test: true},
	CauseRunTimedOut:  {advice: "the spec as a whole took longer than its worker allows (qgjob worker --run-timeout): split the spec, shard it, or raise the limit", test: true},
	CauseTestSilent:   {advice: "the run printed nothing and asked nothing of its device: find in the log what it waits for", test: true},
	CauseAppCrashed:   {advice: "the app under test died; read the device log", test: true},

	CauseNoTestsMatched:      {advice: "check the path and that the file is part of the bundle and holds tests", final: true},
	CauseAllTestsSkipped:     {advice: "the spec ran no test: every one is marked as skipped", final: true},
	CauseAllTestsQuarantined: {advice: "every test that passed or failed is quarantined: see qgjob flaky"},
	CauseSecretsUnavailable:  {advice: "give all servers of a database one --secret-key-file, and submit again", final: true},
	CauseProjectInvalid:      {advice: "mend the test project as the message says and submit again", final: true},
	CauseBadBuild:            {advice: "the build cannot be installed on any device: build it again", final: true},

	CauseDeviceOffline:     {advice: "check the cable, the battery and adb devices"},
	CauseDeviceHung:        {advice: "reboot the device"},
	CauseEmulatorNotBooted: {advice: "read the emulator's log on the worker's host; check its memory and hardware acceleration (emulator -accel-check)"},
	CauseInstallRefused:    {advice: "check the device's free storage and its settings"},
	CauseSessionNotCreated: {advice: "read Appium's log of the attempt"},
	CauseSessionDied:       {advice: "read Appium's log of the attempt; the device may be short of memory"},
	CauseAppiumDied:        {advice: "read Appium's log on the worker's host"},
	CauseRunnerCrashed:     {advice: "read the log of the attempt; the host may be short of memory"},
	CauseReportInvalid:     {advice: "check that the project's config lets the JSON reporter run"},
	CauseHostFailed:        {advice: "read the worker's log"},
	CauseHostDiskFull:      {advice: "free disk space on the worker's host"},
	CauseTransferFailed:    {advice: "check the network from the worker to the server and to the registry of packages"},
	CauseRegistryRefused:   {advice: "the registry of packages does not take the worker's credentials: set the variable that the project's .npmrc names (NPM_TOKEN) where the worker runs"},
	CauseSetupTimedOut:     {advice: "the device or the package registry was too slow; read the log"},
	CauseLeaseExpired:      {advice: "the worker stopped answering: look at its host"},
	CauseCloudUnreachable:  {advice: "check the network between the worker's host and the cloud, and the cloud's status page"},
	CauseCloudQueueFull:    {advice: "others use the account's parallels: run it again later, or raise the plan"},
	CauseCloudRefused:      {advice: "check the worker's credentials for the cloud, and the account's plan"},

	CauseCanceled:      {advice: "somebody canceled it", cancel: true},
	CauseRunStopped:    {advice: "its run reached the number of failures that it was submitted with (--max-failures)", cancel: true},
	CauseSuperseded:    {advice: "a newer run of its branch took over (--cancel-previous)", cancel: true},
	CauseQueueTimedOut: {advice: "no device took it in the time that it was submitted with (--queue-timeout): qgjob devices and qgjob queue show what there is", cancel: true},
	CauseHandedBack:    {advice: "its worker stopped; it runs again on another", free: true},
	CauseNotDelivered:  {advice: "its worker never received it; it runs again", free: true},
}

// Known says whether the cause is one of this version's.
func (c Cause) Known() bool { _, ok := causes[c]; return ok }

// Advice says what a person can do about the cause.
func (c Cause) Advice() string { return causes[c].advice }

// Final says that no other device can mend it: the job ends as errored at once.
func (c Cause) Final() bool { return causes[c].final }

// Free says that an attempt that ended so spends no retry budget.
func (c Cause) Free() bool { return causes[c].free }

// Test says that it is the test's doing, or its app's: the attempt failed or timed out, and was not errored.
func (c Cause) Test() bool { return causes[c].test }

// Cancels says that it ends a job as canceled.
func (c Cause) Cancels() bool { return causes[c].cancel }
