package phonesim

import (
	"strconv"
	"strings"
	"time"
)

// component is an activity of a package.
type component struct{ pkg, activity string }

func (c component) String() string {
	if c.pkg == "" {
		return "null"
	}
	if short, ok := strings.CutPrefix(c.activity, c.pkg+"."); ok {
		return c.pkg + "/." + short
	}
	return c.pkg + "/" + c.activity
}

var launcher = component{launcherPackage, launcherPackage + ".Launcher"}

// The functions below are called with the phone's lock held.

// spawn gives a package a process, if it has none, and says whether that is a new one.
func (p *Phone) spawn(name string) (pid int, fresh bool) {
	if pid, ok := p.pids[name]; ok {
		return pid, false
	}
	p.nextPID++
	p.pids[name] = p.nextPID
	return p.nextPID, true
}

// bringUp starts an activity: a new process when the app does not run, else the app as it was left.
func (p *Phone) bringUp(pkg *installedPackage, activity string, now time.Time) {
	pid, fresh := p.spawn(pkg.name)
	if fresh {
		p.ledger.record(now, Entry{Kind: EntryLaunch, Package: pkg.name, VersionCode: pkg.versionCode, SHA256: pkg.sha256})
		if p.ios {
			p.logcat.write(now, springBoard, 'I', "SpringBoard", processOf(pkg.name, pid)+" Bootstrap success!")
		} else {
			p.logcat.write(now, p.pids["system_server"], 'I', "ActivityManager", "Start proc "+strconv.Itoa(pid)+":"+pkg.name+"/u0a"+strconv.Itoa(pkg.uid-10000)+
				" for top-activity {"+component{pkg.name, activity}.String()+"}")
		}
		p.log.Info("launched", "package", pkg.name)
	}
	if isHelper(pkg.name) {
		return // Appium's helpers do their work without taking the screen
	}
	p.foreground = component{pkg.name, activity}
	if p.ios {
		p.logcat.write(now, pid, 'I', pkg.label, "Scene of "+pkg.name+" did become active")
	} else {
		p.logcat.write(now, pid, 'I', "ActivityTaskManager", "Displayed "+p.foreground.String())
	}
	if a := p.apps[pkg.name]; a != nil {
		return
	}
	if p.backends[pkg.name] == nil {
		p.backends[pkg.name] = map[string]int{}
	}
	a := newApp(pkg, pid, p.backends[pkg.name])
	p.apps[pkg.name] = a
	a.start(now)
	p.settle(a, now)
}

// stopPackage ends a package's processes and says whether it had any.
func (p *Phone) stopPackage(name string) bool {
	_, running := p.pids[name]
	delete(p.pids, name)
	delete(p.apps, name)
	if p.foreground.pkg == name {
		p.foreground = launcher
	}
	if i := p.instrumentation; i != nil && (i.pkg == name || i.target == name) {
		p.endInstrumentation("the UiAutomator2 server was stopped")
	}
	return running
}

// front is the app in front, brought up to the present; nil when that is the launcher.
func (p *Phone) front(now time.Time) *app {
	a := p.apps[p.foreground.pkg]
	if a == nil {
		return nil
	}
	a.advance(now)
	p.settle(a, now)
	return p.apps[p.foreground.pkg]
}

// settle draws the consequences of what an app did to itself.
func (p *Phone) settle(a *app, now time.Time) {
	switch {
	case a.crashed:
		p.crash(a, now)
	case a.finished:
		// Its process stays, as Android keeps it; the next launch begins at the first screen.
		delete(p.apps, a.pkg.name)
		if p.foreground.pkg == a.pkg.name {
			p.foreground = launcher
		}
	}
}

// springBoard is the process of an iPhone's home screen.
const springBoard = 60

// processOf is how an iPhone's log names an app's process.
func processOf(bundle string, pid int) string {
	return "[app<" + bundle + ">:" + strconv.Itoa(pid) + "]"
}

func (p *Phone) crash(a *app, now time.Time) {
	name := a.pkg.name
	if p.ios {
		p.logcat.write(now, a.pid, 'E', a.pkg.label, "*** Terminating app due to uncaught exception 'NSGenericException', reason: 'the app crashed'")
		p.logcat.write(now, springBoard, 'I', "SpringBoard", processOf(name, a.pid)+" Process exited: domain:signal(2) code:SIGABRT(6)")
	} else {
		for _, line := range []string{"FATAL EXCEPTION: main", "Process: " + name + ", PID: " + strconv.Itoa(a.pid), "java.lang.RuntimeException: the app crashed"} {
			p.logcat.write(now, a.pid, 'E', "AndroidRuntime", line)
		}
		p.logcat.write(now, p.pids["system_server"], 'I', "ActivityManager", "Process "+name+" (pid "+strconv.Itoa(a.pid)+") has died: fg  TOP")
	}
	p.ledger.record(now, Entry{Kind: EntryCrash, Package: name, VersionCode: a.pkg.versionCode, SHA256: a.pkg.sha256})
	p.log.Info("app crashed", "package", name)
	p.stopPackage(name)
}

// tree is what is on the screen now.
func (p *Phone) tree(now time.Time, all bool) *tree {
	if a := p.front(now); a != nil {
		return a.tree(now, all)
	}
	return systemTree(p.foreground.pkg, "Apps")
}

// crashForeground ends the app in front, and says whether there was one.
func (p *Phone) crashForeground() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	a := p.front(now)
	if a == nil {
		return false
	}
	p.crash(a, now)
	return true
}

var activityCommands = map[string]func(*call) int{
	"start":                    amStart,
	"start-activity":           amStart,
	"startservice":             amService,
	"start-service":            amService,
	"start-foreground-service": amService,
	"stopservice":              func(*call) int { return 0 },
	"broadcast":                amBroadcast,
	"force-stop":               amForceStop,
	"kill":                     amForceStop,
	"instrument":               amInstrument,
	"get-current-user":         func(c *call) int { c.printf("0\n"); return 0 },
	"send-trim-memory":         func(*call) int { return 0 },
	"wait-for-broadcast-idle":  func(*call) int { return 0 },
}

// shellAM is `am`, and `cmd activity`.
func shellAM(c *call) int {
	run := activityCommands[c.arg(0)]
	if run == nil {
		c.phone.log.Debug("unknown activity manager command", "command", strings.Join(c.args, " "))
		return c.fail("Unknown command: %s", c.arg(0))
	}
	return run(c.sub(c.args[1:]))
}

// flagsWithValue are those of an intent and of `am start`.
var flagsWithValue = []string{
	"-a", "-c", "-d", "-e", "-f", "-n", "-p", "-t", "--user", "--es", "--ei", "--ez", "--el", "--ef", "--display", "--windowingMode",
}

// target is the component that an intent's arguments name, in full. It may name the package alone.
func (c *call) target() component {
	name, ok := c.option("-n")
	if !ok {
		if name, ok = c.option("-p"); !ok {
			if operands := c.operands(flagsWithValue...); len(operands) > 0 {
				name = operands[len(operands)-1]
			}
		}
	}
	pkg, activity, _ := strings.Cut(name, "/")
	if strings.HasPrefix(activity, ".") {
		activity = pkg + activity
	}
	return component{pkg, activity}
}

func amStart(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	t := c.target()
	if action, _ := c.option("-a"); t.pkg == "" && action == "android.intent.action.MAIN" && c.has("android.intent.category.HOME") {
		p.foreground = launcher
		c.printf("Starting: Intent { act=%s cat=[android.intent.category.HOME] }\n", action)
		return 0
	}
	pkg := p.packages[t.pkg]
	if pkg != nil && t.activity == "" {
		t.activity = pkg.activity
	}
	c.printf("Starting: Intent { act=android.intent.action.MAIN cat=[android.intent.category.LAUNCHER] cmp=%s }\n", t)
	if pkg == nil || pkg.disabled || t.activity == "" {
		c.printf("Error type 3\nError: Activity class {%s/%s} does not exist.\n", t.pkg, t.activity)
		return 1
	}
	if c.has("-S") && p.stopPackage(t.pkg) {
		p.ledger.record(now, Entry{Kind: EntryForceStop, Package: t.pkg})
	}
	_, warm := p.pids[t.pkg]
	p.bringUp(pkg, t.activity, now)
	if c.has("-W") {
		state := map[bool]string{true: "HOT", false: "COLD"}[warm]
		c.printf("Status: ok\nLaunchState: %s\nActivity: %s\nTotalTime: 120\nWaitTime: 130\nComplete\n", state, t)
	}
	return 0
}

func amService(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	t := c.target()
	if p.packages[t.pkg] == nil {
		c.printf("Starting service: Intent { cmp=%s }\nError: Not found; no service started.\n", t)
		return 1
	}
	p.spawn(t.pkg)
	c.printf("Starting service: Intent { cmp=%s }\n", t)
	return 0
}

func amBroadcast(c *call) int {
	action, _ := c.option("-a")
	c.printf("Broadcasting: Intent { act=%s flg=0x400000 }\nBroadcast completed: result=-1, data=\"ok\"\n", action)
	return 0
}

func amForceStop(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	names := c.operands("--user")
	if len(names) == 0 {
		return c.fail("Error: no package specified")
	}
	if p.stopPackage(names[0]) {
		p.ledger.record(time.Now(), Entry{Kind: EntryForceStop, Package: names[0]})
	}
	return 0
}

// shellMonkey launches an app as `monkey -p PACKAGE -c android.intent.category.LAUNCHER 1` does.
func shellMonkey(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	name, _ := c.option("-p")
	pkg := p.packages[name]
	if pkg == nil || pkg.activity == "" {
		c.printf("** No activities found to run, monkey aborted.\n")
		return 252
	}
	p.bringUp(pkg, pkg.activity, time.Now())
	c.printf("Events injected: 1\n## Network stats: elapsed time=10ms (0ms mobile, 0ms wifi, 10ms not connected)\n")
	return 0
}
