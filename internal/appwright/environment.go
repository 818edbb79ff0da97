package appwright

import (
	"os"
	"regexp"
	"strconv"
	"strings"
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
		"QGJOB_REPORT="+t.path("report.json"),
		"QGJOB_BLOB_DIR="+r.artifact("blob-report"),
	)
	switch {
	case r.Upstream.Cloud:
		env = append(env, "QGJOB_BUILD_PATH="+cloudBuildAt+r.buildName())
	case r.App.Path != "":
		env = append(env, "QGJOB_BUILD_PATH="+t.path(r.buildName()))
	}
	if serial := capabilityString(r.Upstream.Capabilities, "appium:udid"); serial != "" {
		env = append(env, "ANDROID_SERIAL="+serial)
	}
	if port := capabilityString(r.Upstream.Capabilities, "appium:adbPort"); port != "" {
		env = append(env, "ANDROID_ADB_SERVER_PORT="+port)
	}
	return append(env, r.cloudEnv...)
}

// npmVariables are those of the worker that npm needs to reach its registry. Packages run code when they are
// installed, so that nothing else is passed on.
var npmVariables = regexp.MustCompile(`(?i)^(PATH|HOME|LANG|LC_ALL|(HTTPS?|NO)_PROXY|NODE_EXTRA_CA_CERTS|SSL_CERT_(FILE|DIR)|npm_config_.*|NPM_TOKEN|NODE_AUTH_TOKEN)$`)

func npmEnvironment(worker []string) []string {
	// What AppWright brings along would download browsers and drivers that no test on a phone uses.
	env := []string{"PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1", "APPIUM_SKIP_CHROMEDRIVER_INSTALL=1"}
	for _, variable := range worker {
		if name, _, _ := strings.Cut(variable, "="); npmVariables.MatchString(name) {
			env = append(env, variable)
		}
	}
	return env
}

// npmRefused matches the codes with which a registry refuses credentials, or wants some.
var npmRefused = regexp.MustCompile(`\b(E401|E403|ENEEDAUTH)\b`)

// npmProjectFault matches the codes with which npm refuses what package.json or the lockfile asks for.
var npmProjectFault = regexp.MustCompile(`EUSAGE|EJSONPARSE|ERESOLVE|ETARGET|E404|EBADENGINE|EINTEGRITY|EINVALIDPACKAGENAME|ENOLOCK|EBADPLATFORM|EOVERRIDE`)
