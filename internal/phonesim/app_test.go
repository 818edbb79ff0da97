package phonesim

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLogin(t *testing.T) {
	p := startPhone(t, Options{})
	r := openApp(t, p, parseApp(t, shopJSON))

	r.typeInto("username", "ada")
	r.tap("login")
	equal(t, "error without a password", r.text("error"), "Wrong password for ada")

	r.typeInto("password", "sec")
	r.typeInto("password", "ret")
	equal(t, "password shown", r.text("password"), "••••••")
	r.tap("login")
	equal(t, "greeting", r.text("hello"), "Hello, ada")
	equal(t, "version", r.text("version"), "Version 1.2")
}

func TestTypingAndClearing(t *testing.T) {
	p := startPhone(t, Options{})
	r := openApp(t, p, parseApp(t, shopJSON))

	equal(t, "hint of an empty field", r.text("username"), "User name")
	r.tap("username")
	r.ok("POST", "/keys", map[string]any{"text": "gra"})
	r.ok("POST", "/actions", map[string]any{"actions": []any{map[string]any{"type": "key", "id": "keyboard", "actions": []any{
		map[string]any{"type": "keyDown", "value": "c"},
		map[string]any{"type": "keyUp", "value": "c"},
		map[string]any{"type": "keyDown", "value": "e"},
		map[string]any{"type": "keyUp", "value": "e"},
	}}}})
	equal(t, "typed with keys", r.text("username"), "grace")
	equal(t, "focused", r.ok("GET", "/element/"+r.find("id", "username")+"/attribute/focused", nil), any("true"))
	p.shell(t, "input text %shopper")
	equal(t, "typed with the shell", r.text("username"), "grace hopper")
	p.shell(t, "input keyevent KEYCODE_DEL")
	equal(t, "after deleting", r.text("username"), "grace hoppe")
	r.ok("POST", "/element/"+r.find("id", "username")+"/value", map[string]any{"text": "new", "replace": true})
	equal(t, "replaced", r.text("username"), "new")
	r.ok("POST", "/element/"+r.find("id", "username")+"/clear", nil)
	equal(t, "cleared", r.text("username"), "User name")
	r.typeInto("password", "x\n")
	equal(t, "after Enter", r.text("error"), "Submitted")
	equal(t, "typing into a button", r.fails("POST", "/element/"+r.find("id", "login")+"/value", map[string]any{"text": "x"}), "invalid element state")
	equal(t, "box before", r.ok("GET", "/element/"+r.find("id", "terms")+"/attribute/checked", nil), any("false"))
	r.tap("terms")
	equal(t, "box after", r.ok("GET", "/element/"+r.find("id", "terms")+"/attribute/checked", nil), any("true"))
}

func TestRelaunchResetAndReinstall(t *testing.T) {
	p := startPhone(t, Options{})
	a := parseApp(t, shopJSON)
	r := openApp(t, p, a)
	login := func() {
		t.Helper()
		r.typeInto("username", "ada")
		r.typeInto("password", "st")
		r.tap("login")
	}
	relaunch := func() { p.shell(t, "am start -S -n com.example.shop/.MainActivity") }

	login()
	r.tap("add")
	equal(t, "cart", r.text("add"), "Add (1)")
	p.shell(t, "input keyevent 3")
	equal(t, "in front after Home", p.State().Foreground, launcherPackage)
	p.shell(t, "monkey -p com.example.shop -c android.intent.category.LAUNCHER 1")
	equal(t, "cart after coming back", r.text("add"), "Add (1)")
	relaunch()
	equal(t, "cart after a relaunch", r.text("add"), "Add (0)") // logged in still: the token is in the app's data
	if _, err := p.install(buildAPK(t, a), installFlags{}); err != nil {
		t.Fatal(err)
	}
	equal(t, "in front after an update", p.State().Foreground, launcherPackage)
	relaunch()
	equal(t, "logged in after an update", r.has("hello"), true)
	equal(t, "pm clear", p.shell(t, "pm clear com.example.shop"), "Success\n")
	relaunch()
	equal(t, "logged in after the data were cleared", r.has("hello"), false)
	login()
	p.shell(t, "pm uninstall com.example.shop")
	r = openApp(t, p, a)
	equal(t, "logged in after removal", r.has("hello"), false)

	counts := p.Ledger().Packages[shop]
	equal(t, "counts", counts, Counts{Installs: 3, Uninstalls: 1, DataResets: 1, Launches: 5, ForceStops: 1})
}

func TestOutcomesAreRemembered(t *testing.T) {
	for _, tt := range []struct {
		button                               string
		again, afterRelaunch, afterReset     string
		afterReinstall, onTheThirdInOneTouch string
	}{
		{"launch", "second", "first", "first", "first", "second"},
		{"data", "second", "second", "first", "first", "second"},
		{"phone", "second", "second", "second", "second", "second"},
	} {
		t.Run(tt.button, func(t *testing.T) {
			p := startPhone(t, Options{})
			a := parseApp(t, shopJSON)
			r := openApp(t, p, a)
			tap := func(when, want string) {
				t.Helper()
				r.tap(tt.button)
				equal(t, when, r.text("error"), want)
			}
			tap("first", "first")
			tap("again", tt.again)
			tap("third", tt.onTheThirdInOneTouch)
			p.shell(t, "am start -S -n com.example.shop/.MainActivity")
			tap("after a relaunch", tt.afterRelaunch)
			p.shell(t, "pm clear com.example.shop; am start -n com.example.shop/.MainActivity")
			tap("after a reset", tt.afterReset)
			p.shell(t, "pm uninstall com.example.shop")
			r = openApp(t, p, a)
			tap("after a reinstall", tt.afterReinstall)
		})
	}
}

func TestBackAndList(t *testing.T) {
	p := startPhone(t, Options{})
	r := openApp(t, p, parseApp(t, shopJSON))
	r.typeInto("username", "ada")
	r.typeInto("password", "st")
	r.tap("login")
	button := r.find("id", "add")
	r.ok("POST", "/element/"+r.find("-android uiautomator", `text("Bananas")`)+"/click", nil)
	equal(t, "item", r.text("name"), "Item: Bananas")
	equal(t, "an element of the screen before", r.fails("GET", "/element/"+button+"/text", nil), "stale element reference")
	r.ok("POST", "/element/"+r.find("-android uiautomator", `text("Done")`)+"/click", nil)
	equal(t, "home again", r.has("hello"), true)
	p.shell(t, "input keyevent 4")
	equal(t, "login again", r.has("hello"), true) // which sends on to home: the token is set
}

func TestBackOnTheFirstScreenLeavesTheApp(t *testing.T) {
	p := startPhone(t, Options{})
	r := openApp(t, p, parseApp(t, shopJSON))
	r.typeInto("username", "ada")
	r.ok("POST", "/back", nil)
	equal(t, "in front", p.State().Foreground, launcherPackage)
	p.shell(t, "am start -n com.example.shop/.MainActivity")
	equal(t, "typed text after the return", r.text("username"), "User name")
	equal(t, "launches", p.Ledger().Packages[shop].Launches, 1)
}

func TestProcessesAreFoundAsOnAndroid(t *testing.T) {
	p := startPhone(t, Options{})
	openApp(t, p, parseApp(t, shopJSON))
	pid := p.shell(t, "pidof com.example.shop")
	equal(t, "pgrep of the kernel's name, as Appium asks", p.shell(t, `pgrep ^om\\.example\\.shop$ || pgrep ^com\\.example\\.sho$`), pid)
	equal(t, "pgrep of the whole name", p.shell(t, "pgrep com.example.shop"), "")
	equal(t, "pgrep -f of the whole name", p.shell(t, "pgrep -f com.example.shop"), pid)
	if !strings.Contains(p.shell(t, "ps -A"), strings.TrimSpace(pid)+"   300") {
		t.Errorf("ps lacks process %s", pid)
	}
	p.shell(t, "am force-stop com.example.shop")
	equal(t, "pidof a stopped app", p.shell(t, "pidof com.example.shop"), "")
}

func TestCrash(t *testing.T) {
	p := startPhone(t, Options{})
	r := openApp(t, p, parseApp(t, shopJSON))
	r.tap("off")
	equal(t, "in front after a tap on what is disabled", p.State().Foreground, shop)
	r.tap("crash")
	equal(t, "in front", p.State().Foreground, launcherPackage)
	equal(t, "crashes", p.Ledger().Packages[shop].Crashes, 1)
	equal(t, "running", p.shell(t, "pidof com.example.shop"), "")
	equal(t, "log", p.shell(t, "logcat -d | grep -c 'FATAL EXCEPTION'"), "1\n")
}

func TestScrolling(t *testing.T) {
	p := startPhone(t, Options{})
	r := openApp(t, p, parseApp(t, shopJSON))
	r.typeInto("username", "ada")
	r.typeInto("password", "st")
	r.tap("login")
	equal(t, "the last row before scrolling", r.texts("-android uiautomator", `text("Rice")`), []string{})
	row := r.find("-android uiautomator", `new UiScrollable(new UiSelector().scrollable(true)).scrollIntoView(new UiSelector().text("Rice"))`)
	equal(t, "the last row", r.ok("GET", "/element/"+row+"/text", nil), any("Rice"))
	equal(t, "the first row after scrolling", r.has("hello"), false)
	area := map[string]any{"left": 0, "top": 100, "width": 1000, "height": 2000}
	equal(t, "more above", r.ok("POST", "/appium/gestures/scroll", map[string]any{"area": area, "direction": "up", "percent": 0.1}), any(true))
	equal(t, "no more above", r.ok("POST", "/appium/gestures/scroll", map[string]any{"area": area, "direction": "up", "percent": 1}), any(false))
	equal(t, "the first row again", r.has("hello"), true)
	r.ok("POST", "/appium/gestures/swipe", map[string]any{"area": area, "direction": "up", "percent": 1})
	equal(t, "the first row after a swipe", r.has("hello"), false)
}

func TestTapByPlace(t *testing.T) {
	p := startPhone(t, Options{})
	r := openApp(t, p, parseApp(t, shopJSON))
	box := r.ok("GET", "/element/"+r.find("id", "launch")+"/rect", nil).(map[string]any)
	x, y := box["x"].(float64)+10, box["y"].(float64)+10
	r.ok("POST", "/appium/gestures/click", map[string]any{"offset": map[string]any{"x": x, "y": y}})
	equal(t, "tapped by gesture", r.text("error"), "first")
	r.ok("POST", "/actions", map[string]any{"actions": []any{map[string]any{"type": "pointer", "id": "finger", "actions": []any{
		map[string]any{"type": "pointerMove", "x": x, "y": y + 160}, map[string]any{"type": "pointerDown"}, map[string]any{"type": "pointerUp"},
	}}}})
	equal(t, "tapped by actions", r.text("error"), "second") // the error's own line has moved the button down
}

func TestTimes(t *testing.T) {
	a := parseApp(t, shopJSON)
	info, err := readAPK(buildAPK(t, a))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	app := newApp(&installedPackage{apkInfo: info, name: info.pkg, data: newAppData()}, 1, map[string]int{})
	app.data.vars["token"] = "ada"
	app.start(now)
	ids := func(after time.Duration) []string {
		var list []string
		app.tree(now.Add(after), false).root.each(func(n *node) bool {
			list = append(list, n.id)
			return true
		})
		return list
	}
	for after, there := range map[time.Duration]bool{0: false, 499 * time.Millisecond: false, 500 * time.Millisecond: true, 899 * time.Millisecond: true, 900 * time.Millisecond: false} {
		equal(t, "late after "+after.String(), slices.Contains(ids(after), "late"), there)
	}
	app.tree(now, true).root.each(func(n *node) bool {
		if n.id == "slowly" {
			app.tap(n, now)
			return false
		}
		return true
	})
	equal(t, "screen at once", slices.Contains(ids(299*time.Millisecond), "name"), false)
	equal(t, "screen later", slices.Contains(ids(300*time.Millisecond), "name"), true)
}

func TestAppWithoutModelShowsItsLabel(t *testing.T) {
	p := startPhone(t, Options{})
	openApp(t, p, App{Package: "com.example.plain", Label: "Plain ${x}"})
	equal(t, "texts", p.State().Texts, []string{"Plain ${x}"})
}

func TestScreensThatSendOnForEverCrash(t *testing.T) {
	p := startPhone(t, Options{})
	openApp(t, p, parseApp(t, `{"package": "com.example.loop", "model": {"start": "a", "screens": {
		"a": {"enter": [{"go": "b"}], "elements": []}, "b": {"enter": [{"go": "a"}], "elements": []}}}}`))
	equal(t, "crashes", p.Ledger().Packages["com.example.loop"].Crashes, 1)
}
