package phonesim

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// readIPA reads an IPA as BrowserStack does when it is uploaded: it takes apps for iPhones only.
func readIPA(content []byte) (apkInfo, error) {
	dir, err := os.MkdirTemp("", "phonesim-ipa-")
	if err != nil {
		return apkInfo{}, err
	}
	defer os.RemoveAll(dir)
	app, err := unpackIPAContent(content, dir)
	if err != nil {
		return apkInfo{}, err
	}
	info, described, err := readApp(app)
	if err == nil && len(described.Platforms) > 0 && !slices.Contains(described.Platforms, platformPhone) {
		err = &installError{"IncorrectArchitecture", "the app was built for " + strings.Join(described.Platforms, ", ") + ", and BrowserStack has real devices only"}
	}
	return info, err
}

// unpackIPAContent unpacks an IPA into a directory and returns the app's own in it.
func unpackIPAContent(content []byte, dir string) (string, error) {
	file := filepath.Join(dir, "app.ipa")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return "", err
	}
	return unpackIPA(file, filepath.Join(dir, "unpacked"))
}

// bootIPhone gives a session its iPhone, with the app installed and in front.
func (c *Cloud) bootIPhone(s *cloudSession) (b booted, err error) {
	dir, err := os.MkdirTemp("", "phonesim-cloud-")
	if err != nil {
		return booted{}, err
	}
	d := newIPhone(IPhoneOptions{UDID: NewUDID(false), Model: s.Device, OSVersion: s.osVersion}, dir, c.log)
	b = booted{phone: d.Phone, dir: dir}
	app, err := unpackIPAContent(s.app.content, dir)
	if err != nil {
		b.switchOff()
		return booted{}, err
	}
	bundle, err := d.installApp(app)
	if err != nil {
		b.switchOff()
		return booted{}, err
	}
	b.handler, b.inner = d.automate(bundle)
	return b, nil
}

// automate launches an app and opens a session of WebDriverAgent without a port, and returns its interface and the session's id.
func (d *iPhone) automate(bundle string) (http.Handler, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	i := &instrumentation{pkg: wdaBundle, target: wdaBundle, done: make(chan struct{}), session: hashedID(), server: &http.Server{}}
	d.instrumentation = i
	d.ledger.openSession(i.session, now)
	d.launch(bundle, now)
	return d.wdaHandler(i), i.session
}

// xcuitestStrategies are Appium's names for how WebDriverAgent finds elements, where they differ.
var xcuitestStrategies = map[string]string{"-ios predicate string": "predicate string", "-ios class chain": "class chain"}

// serveIPhone does one command of a session on an iPhone, as Appium's XCUITest driver does it by WebDriverAgent.
func (s *cloudSession) serveIPhone(w http.ResponseWriter, r *http.Request, command string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		hubError(w, invalidArgument(err.Error()))
		return
	}
	switch last := command[strings.LastIndex(command, "/")+1:]; {
	case r.Method == http.MethodPost && (last == "element" || last == "elements"):
		var asked struct {
			Using string `json:"using"`
			Value string `json:"value"`
		}
		if err := json.Unmarshal(body, &asked); err != nil {
			hubError(w, invalidArgument(err.Error()))
			return
		}
		if strategy, ok := xcuitestStrategies[asked.Using]; ok {
			asked.Using = strategy
		} else if strings.HasPrefix(asked.Using, "-") {
			hubError(w, &selectorError{"Locator Strategy '" + asked.Using + "' is not supported for this session"})
			return
		}
		body, _ = json.Marshal(asked) // two texts
	case command == "appium/device/get_clipboard":
		command = "wda/getPasteboard"
	case command == "appium/device/set_clipboard":
		command = "wda/setPasteboard"
	}
	s.forward(w, r, r.Method, command, bytes.NewReader(body))
}

// iosScripts are the scripts of Appium's XCUITest driver that are known, by the commands of WebDriverAgent that do them.
var iosScripts = map[string]string{
	"mobile: tap": "wda/tap", "mobile: launchApp": "wda/apps/launch", "mobile: activateApp": "wda/apps/activate",
	"mobile: terminateApp": "wda/apps/terminate", "mobile: queryAppState": "wda/apps/state",
}

// executeOnIPhone runs one of the XCUITest driver's scripts.
func (s *cloudSession) executeOnIPhone(w http.ResponseWriter, r *http.Request, script string, args []json.RawMessage) {
	command, ok := iosScripts[script]
	if !ok || len(args) != 1 {
		unknownScript(w, script)
		return
	}
	s.forward(w, r, http.MethodPost, command, bytes.NewReader(args[0]))
}
