package appwright

import (
	"regexp"

	"qgjob"
)

// Error codes of the WebDriver specification (W3C WebDriver, section 6.6) that are used here.
const (
	codeUnknown         = "unknown error"
	codeNotCreated      = "session not created"
	codeInvalidSession  = "invalid session id"
	codeInvalidArgument = "invalid argument"
)

type textCause struct {
	text  *regexp.Regexp
	cause qgjob.Cause
}

// infrastructureTexts are what adb, Appium 2 and its uiautomator2 driver say when something below the test
// broke. The first that fits decides.
var infrastructureTexts = []textCause{
	{regexp.MustCompile(`BROWSERSTACK_QUEUE_SIZE_EXCEEDED|All parallel tests are currently in use`), qgjob.CauseCloudQueueFull},
	{regexp.MustCompile(`BROWSERSTACK_INVALID_(DEVICE|OS)`), qgjob.CauseProjectInvalid}, // the config names a phone that BrowserStack has not
	{regexp.MustCompile(`BrowserStack cannot be reached`), qgjob.CauseCloudUnreachable},
	{regexp.MustCompile(`BrowserStack refuses`), qgjob.CauseCloudRefused},
	{regexp.MustCompile(`BROWSERSTACK_(IDLE_TIMEOUT|SESSION_LIMIT)`), qgjob.CauseSessionDied},
	{regexp.MustCompile(`INSTALL_PARSE_FAILED_|INSTALL_FAILED_INVALID_APK|INSTALL_FAILED_DEXOPT`), qgjob.CauseBadBuild},
	{regexp.MustCompile(`INSTALL_FAILED_|INSTALL_CANCELED_BY_USER`), qgjob.CauseInstallRefused},
	{regexp.MustCompile(`ENOSPC`), qgjob.CauseHostDiskFull},
	{regexp.MustCompile(`was not in the list of connected devices|Could not find (online devices|a connected Android device)|[Dd]evice '[^']*' not found|device (still )?(offline|unauthorized)|no devices/emulators found`), qgjob.CauseDeviceOffline},
	{regexp.MustCompile(`adb.* timed out after \d+ms|timeout of \d+ms exceeded`), qgjob.CauseDeviceHung},
	{regexp.MustCompile(`instrumentation process (is not running|cannot be initialized)|[Cc]ould not proxy command to the remote server|socket hang up|ECONNRESET`), qgjob.CauseSessionDied},
	{regexp.MustCompile(`ECONNREFUSED`), qgjob.CauseAppiumDied},
	{regexp.MustCompile(`session is either terminated or not started`), qgjob.CauseSessionDied},
}

// infrastructureCause reads a text; empty when it does not tell of the infrastructure.
func infrastructureCause(text string) qgjob.Cause {
	for _, t := range infrastructureTexts {
		if t.text.MatchString(text) {
			return t.cause
		}
	}
	return ""
}

// commandCause is the cause behind an error that Appium gave to a command of a session; empty when it is the
// test's own matter.
func commandCause(code, message string) qgjob.Cause {
	switch code {
	case codeInvalidSession:
		return qgjob.CauseSessionDied
	case codeUnknown, "timeout":
		return infrastructureCause(message)
	}
	return ""
}

// creationCause is the cause behind a session that could not be made.
func creationCause(message string) qgjob.Cause {
	switch cause := infrastructureCause(message); cause {
	case "", qgjob.CauseSessionDied, qgjob.CauseAppiumDied:
		// Appium itself answered, and so is alive; what it could not reach is the device's server.
		return qgjob.CauseSessionNotCreated
	default:
		return cause
	}
}

// errorTextCause reads the text of a test's error for what AppWright and webdriver make of an infrastructure
// failure. It is the last resort, when the proxy saw nothing.
func errorTextCause(text string) qgjob.Cause {
	if regexpNoSession.MatchString(text) {
		return creationCause(text)
	}
	if regexpWebDriver.MatchString(text) {
		return infrastructureCause(text)
	}
	return ""
}

var (
	regexpNoSession = regexp.MustCompile(`Failed to create (a )?session|session not created`)
	regexpWebDriver = regexp.MustCompile(`WebDriverError|webdriver|unknown error:|Request failed with status`)
)
