package phonesim

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// installedPackage is a package on the phone.
type installedPackage struct {
	apkInfo
	name                     string
	content                  []byte // the APK
	system                   bool   // came with the phone
	uid                      int
	firstInstall, lastUpdate time.Time
	data                     *appData
	disabled                 bool
}

func (p *Phone) addSystemPackages(now time.Time) {
	code, _ := strconv.ParseInt(p.props["ro.build.version.sdk"], 10, 64)
	for _, name := range []string{"android", "com.android.settings", "com.android.systemui", launcherPackage} {
		info := apkInfo{pkg: name, label: "Android", versionCode: code, versionName: p.options.OSVersion, activity: name + ".Main"}
		if name == launcherPackage {
			info.activity = name + ".Launcher"
		}
		info.model = defaultModel(name)
		p.packages[name] = &installedPackage{
			apkInfo: info, name: name, system: true, uid: 1000, firstInstall: now, lastUpdate: now, data: newAppData(),
		}
	}
}

// apkPath is where the package's APK lies on the phone.
func (pkg *installedPackage) apkPath() string {
	if pkg.system {
		return "/system/app/" + pkg.name + "/base.apk"
	}
	token := func(of string) string {
		sum := sha256.Sum256([]byte(of))
		return base64.URLEncoding.EncodeToString(sum[:16])
	}
	return fmt.Sprintf("/data/app/~~%s/%s-%s/base.apk", token(pkg.sha256), pkg.name, token(pkg.name))
}

// installFlags are the options of `pm install` that change what happens.
type installFlags struct {
	noReplace, downgrade, test bool
}

// install installs an APK and returns its package. Its error is an *installError, or that of a phone being switched off.
func (p *Phone) install(content []byte, flags installFlags) (string, error) {
	info, err := readAPK(content)
	if err == nil && !isHelper(info.pkg) {
		if err = p.pass(p.options.InstallTime); err != nil {
			return "", err
		}
		if p.faults.use(FaultInstallHangs) != nil {
			<-p.ctx.Done()
			return "", p.ctx.Err()
		}
		if refusal := p.faults.installRefusal(); refusal != nil {
			err = refusal
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if err == nil {
		err = p.mayInstall(info, flags)
	}
	if err != nil {
		name := info.pkg
		if name == "" {
			name = "unknown"
		}
		p.log.Info("install refused", "package", name, "reason", err)
		p.ledger.record(now, Entry{Kind: EntryInstallFailed, Package: name, VersionCode: info.versionCode, SHA256: info.sha256, Detail: err.Error()})
		return "", err
	}
	p.stopPackage(info.pkg)
	pkg := &installedPackage{apkInfo: info, name: info.pkg, content: content, lastUpdate: now, firstInstall: now, data: newAppData()}
	pkg.uid = 10100 + len(p.packages)
	if before := p.packages[info.pkg]; before != nil {
		pkg.firstInstall, pkg.data, pkg.uid = before.firstInstall, before.data, before.uid
	}
	p.packages[info.pkg] = pkg
	p.ledger.record(now, Entry{Kind: EntryInstall, Package: info.pkg, VersionCode: info.versionCode, SHA256: info.sha256})
	p.logcat.write(now, p.pids["system_server"], 'I', "PackageManager", "Installed "+info.pkg+" version "+strconv.FormatInt(info.versionCode, 10))
	p.log.Info("installed", "package", info.pkg, "version_code", info.versionCode, "version_name", info.versionName)
	return info.pkg, nil
}

// mayInstall says which of Android's rules forbids the install. It is called with the phone's lock held.
func (p *Phone) mayInstall(info apkInfo, flags installFlags) error {
	if sdk, _ := strconv.Atoi(p.props["ro.build.version.sdk"]); int(info.minSDK) > sdk {
		return &installError{"INSTALL_FAILED_OLDER_SDK", fmt.Sprintf("Requires newer sdk version #%d (current version is #%d)", info.minSDK, sdk)}
	}
	runs := strings.Split(p.props["ro.product.cpu.abilist"], ",")
	if len(info.abis) > 0 && !slices.ContainsFunc(info.abis, func(abi string) bool { return slices.Contains(runs, abi) }) {
		return &installError{"INSTALL_FAILED_NO_MATCHING_ABIS", "Failed to extract native libraries, res=-113"}
	}
	if info.testOnly && !flags.test {
		return &installError{"INSTALL_FAILED_TEST_ONLY", "Failed to install test-only apk. Did you forget to add -t?"}
	}
	before := p.packages[info.pkg]
	switch {
	case before == nil:
		return nil
	case before.system:
		return &installError{"INSTALL_FAILED_UPDATE_INCOMPATIBLE", "Package " + info.pkg + " signatures do not match previously installed version; ignoring!"}
	case flags.noReplace:
		return &installError{"INSTALL_FAILED_ALREADY_EXISTS", "Attempt to re-install " + info.pkg + " without first uninstalling."}
	case info.versionCode < before.versionCode && !(flags.downgrade && (before.debuggable || p.options.Emulator)):
		return &installError{"INSTALL_FAILED_VERSION_DOWNGRADE", fmt.Sprintf("Downgrade detected: Update version code %d is older than current %d",
			info.versionCode, before.versionCode)}
	}
	return nil
}

// pass lets time go by, unless the phone is switched off meanwhile.
func (p *Phone) pass(d time.Duration) error {
	if d <= 0 {
		return p.ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

// uninstall removes a package with its data, unless told to keep them, and says whether it was there.
func (p *Phone) uninstall(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	pkg := p.packages[name]
	if pkg == nil || pkg.system {
		return false
	}
	p.stopPackage(name)
	delete(p.packages, name)
	p.ledger.record(time.Now(), Entry{Kind: EntryUninstall, Package: name, VersionCode: pkg.versionCode, SHA256: pkg.sha256})
	p.log.Info("uninstalled", "package", name)
	return true
}

// clearData does what `pm clear` does, and says whether the package is there.
func (p *Phone) clearData(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	pkg := p.packages[name]
	if pkg == nil {
		return false
	}
	p.stopPackage(name)
	pkg.data = newAppData()
	p.ledger.record(time.Now(), Entry{Kind: EntryDataReset, Package: name})
	p.log.Info("data cleared", "package", name)
	return true
}

var packageCommands = map[string]func(*call) int{
	"install":          pmInstall,
	"uninstall":        pmUninstall,
	"list":             pmList,
	"path":             pmPath,
	"clear":            pmClear,
	"resolve-activity": pmResolveActivity,
	"grant":            func(*call) int { return 0 },
	"revoke":           func(*call) int { return 0 },
	"trim-caches":      func(*call) int { return 0 },
	"enable":           func(c *call) int { return pmEnable(c, true) },
	"disable-user":     func(c *call) int { return pmEnable(c, false) },
	"disable":          func(c *call) int { return pmEnable(c, false) },
}

// shellPM is `pm`, and `cmd package`.
func shellPM(c *call) int {
	run := packageCommands[c.arg(0)]
	if run == nil {
		c.phone.log.Debug("unknown package manager command", "command", strings.Join(c.args, " "))
		return c.fail("Unknown command: %s", c.arg(0))
	}
	return run(c.sub(c.args[1:]))
}

// maxAPK bounds what is taken into memory for one install.
const maxAPK = 2 << 30

func pmInstall(c *call) int {
	flags := installFlags{noReplace: c.has("-R"), downgrade: c.has("-d"), test: c.has("-t")}
	var content []byte
	var err error
	if size, ok := c.option("-S"); ok {
		n, parseErr := strconv.ParseInt(size, 10, 64)
		if parseErr != nil || n < 0 || n > maxAPK {
			return c.installFailure(&installError{"INSTALL_FAILED_INSUFFICIENT_STORAGE", "cannot take " + size + " bytes"})
		}
		if content, err = readExactly(c.stdin, n); err != nil {
			return c.installFailure(&installError{"INSTALL_FAILED_INVALID_APK", "the stream ended before " + size + " bytes"})
		}
	} else if content, err = c.phone.readFile(c.last()); err != nil {
		return c.fail("Error: Unable to open file: %s", c.last())
	}
	if _, err := c.phone.install(content, flags); err != nil {
		return c.installFailure(err)
	}
	c.printf("Success\n")
	return 0
}

func (c *call) installFailure(err error) int {
	var refusal *installError
	if !errors.As(err, &refusal) {
		refusal = &installError{"INSTALL_FAILED_ABORTED", err.Error()}
	}
	c.printf("Failure [%v]\n", refusal)
	return 1
}

// option returns what follows a flag among the arguments.
func (c *call) option(flag string) (string, bool) {
	for i, a := range c.args {
		if a == flag && i+1 < len(c.args) {
			return c.args[i+1], true
		}
	}
	return "", false
}

// operands are the arguments after the command's name that are no flags. Withs lists the flags that take a value.
func (c *call) operands(with ...string) []string {
	var list []string
	for i := 1; i < len(c.args); i++ {
		a := c.args[i]
		if !strings.HasPrefix(a, "-") {
			list = append(list, a)
			continue
		}
		for _, w := range with {
			if a == w {
				i++
			}
		}
	}
	return list
}

func pmUninstall(c *call) int {
	names := c.operands("--user", "--versionCode")
	if len(names) == 0 {
		return c.fail("Error: package name not specified")
	}
	if !c.phone.uninstall(names[0]) {
		c.printf("Failure [DELETE_FAILED_INTERNAL_ERROR]\n")
		return 1
	}
	c.printf("Success\n")
	return 0
}

func pmClear(c *call) int {
	names := c.operands("--user")
	if len(names) == 0 {
		return c.fail("Error: no package specified")
	}
	if !c.phone.clearData(names[0]) {
		c.printf("Failed\n")
		return 1
	}
	c.printf("Success\n")
	return 0
}

func pmList(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	operands := c.operands("--user")
	filter := ""
	if len(operands) > 1 {
		filter = operands[1]
	}
	switch c.arg(0) {
	case "packages", "package":
	case "instrumentation":
		for _, name := range sortedKeys(p.packages) {
			if pkg := p.packages[name]; pkg.instrumentation != "" {
				c.printf("instrumentation:%s/%s (target=%s)\n", name, pkg.instrumentation, pkg.target)
			}
		}
		return 0
	default: // features, permissions and the like: none
		return 0
	}
	for _, name := range sortedKeys(p.packages) {
		pkg := p.packages[name]
		switch {
		case !strings.Contains(name, filter), c.has("-3") && pkg.system, c.has("-s") && !pkg.system, c.has("-d") && !pkg.disabled, c.has("-e") && pkg.disabled:
			continue
		}
		line := "package:"
		if c.has("-f") {
			line += pkg.apkPath() + "="
		}
		line += name
		if c.has("--show-versioncode") {
			line += " versionCode:" + strconv.FormatInt(pkg.versionCode, 10)
		}
		if c.has("-U") {
			line += " uid:" + strconv.Itoa(pkg.uid)
		}
		c.printf("%s\n", line)
	}
	return 0
}

func pmPath(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	names := c.operands("--user")
	if len(names) == 0 || p.packages[names[0]] == nil {
		return 1
	}
	c.printf("package:%s\n", p.packages[names[0]].apkPath())
	return 0
}

func pmResolveActivity(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	pkg := p.packages[path.Base(c.last())]
	if pkg == nil || pkg.activity == "" {
		c.printf("No activity found\n")
		return 0
	}
	c.printf("priority=0 preferredOrder=0 match=0x108000 specificIndex=-1 isDefault=false\n%s/%s\n", pkg.name, pkg.activity)
	return 0
}

func pmEnable(c *call, enabled bool) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	pkg := p.packages[c.last()]
	if pkg == nil {
		return c.fail("Error: java.lang.IllegalArgumentException: Unknown package: %s", c.last())
	}
	pkg.disabled = !enabled
	state := map[bool]string{true: "enabled", false: "disabled-user"}[enabled]
	c.printf("Package %s new state: %s\n", pkg.name, state)
	return 0
}
