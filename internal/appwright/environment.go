package appwright

import (
	"os"
	"strconv"
)

// passedOn are the variables of the worker that its tests see, too. Nothing else of the worker's
// environment reaches them: it may hold credentials.
var passedOn = []string{"LANG", "LC_ALL", "TZ", "NODE_EXTRA_CA_CERTS"}

// baseEnvironment is what any Node process of a user's project gets.
func baseEnvironment(path, home, tmp string) []string {
	env := []string{
		"PATH=" + path,
		"HOME=" + home,
		"TMPDIR=" + tmp,
		"PLAYWRIGHT_HTML_OPEN=never",
		"PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1",
	}
	for _, name := range passedOn {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// environment is the whole environment of a run. What the run needs comes after what the caller passes, and
// so cannot be overridden by it.
func (r Run) environment(t tools, proxyPort int) []string {
	env := baseEnvironment(t.path("bin")+string(os.PathListSeparator)+os.Getenv("PATH"), t.path("home"), t.path("tmp"))
	env = append(env, r.Env...)
	env = append(env,
		"PATH="+t.path("bin")+string(os.PathListSeparator)+os.Getenv("PATH"),
		"NODE_OPTIONS=--require "+t.path("preload.cjs"),
		"QGJOB_SESSION_PORT="+strconv.Itoa(proxyPort),
		"QGJOB_EVENTS="+t.path("events"),
		"ANDROID_HOME="+t.path("sdk"),
		"ANDROID_SDK_ROOT="+t.path("sdk"),
		"JAVA_HOME="+t.path("sdk"), // AppWright asks that it be set, and nothing here runs Java
		"PLAYWRIGHT_JSON_OUTPUT_FILE="+t.path("report.json"),
		"PLAYWRIGHT_JSON_OUTPUT_NAME="+t.path("report.json"), // the name before Playwright 1.49
		"PLAYWRIGHT_BLOB_OUTPUT_DIR="+r.artifact("blob-report"),
	)
	if r.App.Path != "" {
		env = append(env, "QGJOB_BUILD_PATH="+t.path(buildName))
	}
	if serial := capabilityString(r.Upstream.Capabilities, "appium:udid"); serial != "" {
		env = append(env, "ANDROID_SERIAL="+serial)
	}
	if port := capabilityString(r.Upstream.Capabilities, "appium:adbPort"); port != "" {
		env = append(env, "ANDROID_ADB_SERVER_PORT="+port)
	}
	return env
}
