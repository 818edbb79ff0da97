package phonesim

import (
	"encoding/base64"
	"net"
	"net/http"
	"strconv"
	"time"
)

// wdaBundle is the bundle id of the runner of WebDriverAgent.
const wdaBundle = "com.facebook.WebDriverAgentRunner.xctrunner"

// startWDA runs WebDriverAgent on a port of this host, as xcodebuild does with a test. It ends with the instrumentation that it returns.
func (d *iPhone) startWDA(port int) (*instrumentation, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.instrumentation != nil {
		d.endInstrumentation("another one was started")
	}
	i := &instrumentation{pkg: wdaBundle, target: wdaBundle, done: make(chan struct{})}
	i.server = &http.Server{Handler: d.wdaHandler(i), ReadHeaderTimeout: time.Minute}
	d.instrumentation = i
	go i.server.Serve(listener) // until it is closed
	return i, nil
}

// endWDA ends a run of WebDriverAgent, if it is still the one that runs.
func (d *iPhone) endWDA(i *instrumentation, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.instrumentation == i {
		d.endInstrumentation(why)
	}
}

// wdaHandler is the HTTP interface of one run of WebDriverAgent, as version 8.12 has it.
func (d *iPhone) wdaHandler(i *instrumentation) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, run uiaCommand, inSession bool) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { d.answer(w, r, i, run, inSession) })
	}
	status := func(*uiaRequest) (any, error) {
		return map[string]any{
			"ready": true, "message": "WebDriverAgent is ready to accept commands", "state": "success",
			"os": map[string]string{"name": "iOS", "version": d.o.OSVersion}, "ios": map[string]string{"ip": "127.0.0.1"},
			"build": map[string]string{"productBundleIdentifier": "com.facebook.WebDriverAgentRunner"},
		}, nil
	}
	handle("GET /status", status, false)
	handle("POST /session", d.wdaOpenSession, false)
	handle("GET /screenshot", uiaScreenshot, false)
	for pattern, run := range d.wdaCommands() {
		handle(pattern, run, true)
	}
	handle("/", func(r *uiaRequest) (any, error) {
		d.log.Debug("unknown WebDriverAgent command", "method", r.http.Method, "path", r.http.URL.Path)
		return nil, &driverError{http.StatusNotFound, "unknown command", "Unhandled endpoint: " + r.http.URL.Path}
	}, false)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.faults.waitWhileHung(r.Context()) {
			mux.ServeHTTP(w, r)
		}
	})
}

// wdaOpenSession opens a session, and starts the app that it is for; without one it is for what is in front.
func (d *iPhone) wdaOpenSession(r *uiaRequest) (any, error) {
	bundle := ""
	for _, c := range r.body.Capabilities.FirstMatch {
		bundle = c.BundleID
	}
	if bundle != "" {
		d.stopPackage(bundle)
		if !d.launch(bundle, r.now) {
			return nil, &driverError{http.StatusInternalServerError, "session not created", "Failed to launch " + bundle + ": the app is not installed"}
		}
	}
	answer, err := uiaOpenSession(r)
	if made, ok := answer.(map[string]any); ok {
		made["capabilities"] = map[string]any{"device": "iphone", "sdkVersion": d.o.OSVersion, "CFBundleIdentifier": d.foreground.pkg}
	}
	return answer, err
}

// wdaCommands are the commands of a session, by their HTTP pattern. The phone's lock is held while one runs.
func (d *iPhone) wdaCommands() map[string]uiaCommand {
	const session = "/session/{session}"
	const element, wda = session + "/element/{element}", session + "/wda"
	commands := sessionCommands()
	text := onElement(func(_ *uiaRequest, n *node) (any, error) {
		value, _ := n.attribute("value")
		return value, nil
	})
	nothing := func(*uiaRequest) (any, error) { return nil, nil }
	app := func(run func(bundle string, now time.Time) any) uiaCommand {
		return func(r *uiaRequest) (any, error) {
			if d.packages[r.body.BundleID] == nil && r.body.BundleID != wdaBundle {
				return nil, invalidArgument("there is no app " + r.body.BundleID)
			}
			return run(r.body.BundleID, r.now), nil
		}
	}
	for pattern, run := range map[string]uiaCommand{
		"GET " + element + "/text": text,
		"GET " + session + "/source": func(r *uiaRequest) (any, error) {
			return r.tree().xcuiSource(), nil
		},
		"GET " + wda + "/screen": func(*uiaRequest) (any, error) {
			return map[string]any{"statusBarSize": map[string]int{"width": screenWidth, "height": statusBar}, "scale": 1, "screenSize": map[string]int{"width": screenWidth, "height": screenHeight}}, nil
		},
		"GET " + session + "/window/size": uiaWindow,
		"POST " + wda + "/tap": func(r *uiaRequest) (any, error) {
			d.tapAt(int(r.body.X), int(r.body.Y), r.now)
			return nil, nil
		},
		"POST " + wda + "/dragfromtoforduration": func(r *uiaRequest) (any, error) {
			d.scrollBy(int(r.body.FromY-r.body.ToY), r.now)
			return nil, nil
		},
		"POST " + wda + "/keys":       uiaKeys,
		"POST " + wda + "/homescreen": func(r *uiaRequest) (any, error) { d.pressKeyCode(keyHome, r.now); return nil, nil },
		"GET " + wda + "/locked":      func(*uiaRequest) (any, error) { return false, nil },
		"POST " + wda + "/unlock":     nothing,
		"POST " + wda + "/lock":       nothing,
		"GET " + wda + "/activeAppInfo": func(*uiaRequest) (any, error) {
			return map[string]any{"bundleId": d.foreground.pkg, "name": "", "pid": d.pids[d.foreground.pkg]}, nil
		},
		"POST " + wda + "/getPasteboard": func(*uiaRequest) (any, error) {
			return base64.StdEncoding.EncodeToString([]byte(d.clipboard)), nil
		},
		"POST " + wda + "/setPasteboard": func(r *uiaRequest) (any, error) {
			content, err := base64.StdEncoding.DecodeString(r.body.Content)
			d.clipboard = string(content)
			return nil, err
		},
		"POST " + wda + "/apps/launch":   app(func(bundle string, now time.Time) any { d.launch(bundle, now); return nil }),
		"POST " + wda + "/apps/activate": app(func(bundle string, now time.Time) any { d.launch(bundle, now); return nil }),
		"POST " + wda + "/apps/terminate": app(func(bundle string, now time.Time) any {
			return d.stopPackage(bundle)
		}),
		"POST " + wda + "/apps/state": app(func(bundle string, _ time.Time) any {
			switch {
			case d.pids[bundle] == 0:
				return 1 // not running
			case d.foreground.pkg == bundle:
				return 4 // in front
			}
			return 3 // in the background
		}),
	} {
		commands[pattern] = run
	}
	return commands
}
