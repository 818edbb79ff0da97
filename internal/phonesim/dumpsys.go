package phonesim

// dumps are the services that dumpsys knows. They are called with the phone's lock held.
var dumps = map[string]func(*call){
	"package":      dumpPackage,
	"window":       dumpWindow,
	"activity":     dumpActivity,
	"power":        func(c *call) { c.printf("  mHoldingDisplaySuspendBlocker=true\n  mWakefulness=Awake\n") },
	"battery":      dumpBattery,
	"input":        func(*call) {},
	"input_method": func(c *call) { c.printf("  mInputShown=false\n  mIsInputViewShown=false\n") },
	"deviceidle":   func(*call) {},
	"display":      func(c *call) { c.printf("  mScreenState=ON\n  SurfaceOrientation: 0\n") },
	"cpuinfo":      func(*call) {},
	"meminfo":      func(*call) {},
	"telephony.registry": func(c *call) {
		c.printf("  mCallState=0\n")
	},
}

func shellDumpsys(c *call) int {
	p := c.phone
	operands := c.operands("-t")
	if len(operands) == 0 {
		for _, name := range sortedKeys(dumps) {
			c.printf("  %s\n", name)
		}
		return 0
	}
	dump := dumps[operands[0]]
	if dump == nil {
		p.log.Debug("unknown service", "command", "dumpsys "+operands[0])
		return c.fail("Can't find service: %s", operands[0])
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	d := c.sub(operands)
	dump(d)
	return 0
}

func dumpPackage(c *call) {
	p := c.phone
	name := c.arg(0)
	if name == "" {
		c.printf("Packages:\n")
		for _, name := range sortedKeys(p.packages) {
			c.dumpOnePackage(p.packages[name])
		}
		return
	}
	pkg := p.packages[name]
	if pkg == nil {
		c.printf("Unable to find package: %s\n", name)
		return
	}
	if pkg.activity != "" {
		c.printf("Activity Resolver Table:\n  Non-Data Actions:\n      android.intent.action.MAIN:\n        1a2b3c4 %s filter 5d6e7f8\n"+
			"          Action: \"android.intent.action.MAIN\"\n          Category: \"android.intent.category.LAUNCHER\"\n\n", component{pkg.name, pkg.activity})
	}
	c.printf("Packages:\n")
	c.dumpOnePackage(pkg)
}

func (c *call) dumpOnePackage(pkg *installedPackage) {
	const layout = "2006-01-02 15:04:05"
	flags := "[ HAS_CODE ALLOW_CLEAR_USER_DATA ]"
	if pkg.debuggable {
		flags = "[ DEBUGGABLE HAS_CODE ALLOW_CLEAR_USER_DATA ]"
	}
	c.printf("  Package [%s] (1a2b3c4):\n    userId=%d\n    pkg=Package{5d6e7f8 %s}\n    codePath=%s\n", pkg.name, pkg.uid, pkg.name, pkg.codePath())
	c.printf("    versionCode=%d minSdk=%d targetSdk=%d\n    versionName=%s\n    flags=%s\n", pkg.versionCode, pkg.minSDK, pkg.targetSDK, orNull(pkg.versionName), flags)
	c.printf("    timeStamp=%s\n    firstInstallTime=%s\n    lastUpdateTime=%s\n", pkg.lastUpdate.UTC().Format(layout),
		pkg.firstInstall.UTC().Format(layout), pkg.lastUpdate.UTC().Format(layout))
	for _, header := range []string{"requested permissions:", "install permissions:"} {
		c.printf("    %s\n", header)
		for _, permission := range pkg.permissions {
			if header == "install permissions:" {
				permission += ": granted=true"
			}
			c.printf("      %s\n", permission)
		}
	}
	c.printf("    User 0: ceDataInode=1 installed=true hidden=false suspended=false stopped=%t notLaunched=false enabled=0\n      runtime permissions:\n",
		c.phone.pids[pkg.name] == 0)
}

func (pkg *installedPackage) codePath() string {
	at := pkg.apkPath()
	return at[:len(at)-len("/base.apk")]
}

func orNull(s string) string {
	if s == "" {
		return "null"
	}
	return s
}

func dumpWindow(c *call) {
	f := c.phone.foreground
	c.printf("  mCurrentFocus=Window{1a2b3c4 u0 %s/%s}\n  mFocusedApp=ActivityRecord{5d6e7f8 u0 %s t12}\n", f.pkg, f.activity, f)
	c.printf("  mShowingLockscreen=false mShowingDream=false mDreamingLockscreen=false mInputRestricted=false\n" +
		"  isStatusBarKeyguard=false\n  mScreenOnFully=true\n  mAwake=true\n")
}

func dumpActivity(c *call) {
	p := c.phone
	c.printf("ACTIVITY MANAGER SERVICES (dumpsys activity services)\n")
	for _, name := range sortedKeys(p.pids) {
		if isHelper(name) {
			c.printf("  * ServiceRecord{1a2b3c4 u0 %s/.ForegroundService}\n    app=ProcessRecord{5d6e7f8 %d:%s/u0a100}\n    isForeground=true foregroundId=1\n", name, p.pids[name], name)
		}
	}
	c.printf("  mResumedActivity: ActivityRecord{5d6e7f8 u0 %s t12}\n", p.foreground)
}

func dumpBattery(c *call) {
	c.printf("Current Battery Service state:\n  AC powered: false\n  USB powered: true\n  Wireless powered: false\n  status: 5\n  health: 2\n  present: true\n" +
		"  level: 100\n  scale: 100\n  voltage: 4300\n  temperature: 250\n  technology: Li-ion\n")
}
