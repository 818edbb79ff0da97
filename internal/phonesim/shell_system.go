package phonesim

import (
	"bufio"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// shellCommands are the commands that the phone's shell knows.
func shellCommands() map[string]func(*call) int {
	nothing := func(*call) int { return 0 }
	return map[string]func(*call) int{
		"am": shellAM, "pm": shellPM, "cmd": shellCmd, "monkey": shellMonkey, "dumpsys": shellDumpsys,
		"logcat": shellLogcat, "screencap": shellScreencap, "screenrecord": shellScreenrecord, "pkill": shellPkill, "input": shellInput, "reboot": shellReboot,
		"getprop": shellGetprop, "setprop": shellSetprop, "settings": shellSettings, "wm": shellWM,
		"ps": shellPS, "pidof": shellPidof, "pgrep": shellPgrep, "kill": shellKill,
		"ls": shellLS, "stat": shellStat, "rm": shellRM, "mkdir": shellMkdir, "touch": shellTouch, "cat": shellCat, "df": shellDF,
		"md5sum": func(c *call) int {
			return shellMD5(c, func(b []byte) string { s := md5.Sum(b); return hex.EncodeToString(s[:]) })
		},
		"sha256sum": func(c *call) int {
			return shellMD5(c, func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) })
		},
		"echo": shellEcho, "date": shellDate, "id": shellID, "whoami": shellWhoami, "which": shellWhich, "grep": shellGrep, "head": shellHead,
		"wc": shellWC, "uptime": shellUptime, "exit": func(c *call) int { n, _ := strconv.Atoi(c.arg(0)); return n },
		"true": nothing, "false": func(*call) int { return 1 }, "sleep": shellSleep,
		"svc": nothing, "ime": shellIME, "appops": nothing, "log": nothing, "locksettings": nothing, "chmod": nothing, "sync": nothing, "run-as": shellRunAs,
		"service": nothing, "content": nothing, "cd": nothing, "export": nothing, "sh": shellSh, "[": shellTest, "test": shellTest,
		"exec": func(c *call) int { return c.phone.runWords(c.sub(c.args[1:])) },
	}
}

// shellCmd is `cmd SERVICE ...`.
func shellCmd(c *call) int {
	switch c.arg(0) {
	case "package":
		return shellPM(c.sub(c.args[1:]))
	case "activity":
		return shellAM(c.sub(c.args[1:]))
	case "settings":
		return shellSettings(c.sub(c.args[1:]))
	case "wifi", "phone", "bluetooth_manager", "connectivity", "location", "uimode", "notification", "statusbar", "appops", "device_config", "lock_settings":
		return 0
	}
	c.phone.log.Debug("unknown service", "command", strings.Join(c.args, " "))
	return c.fail("cmd: Can't find service: %s", c.arg(0))
}

func shellSh(c *call) int {
	line, ok := c.option("-c")
	if !ok {
		return 0
	}
	return c.phone.runShell(c.ctx, line, c.stdin, c.stdout, c.stderr)
}

// shellTest knows the tests of files and texts that scripts make.
func shellTest(c *call) int {
	a := c.args[1:]
	if c.args[0] == "[" {
		if len(a) == 0 || a[len(a)-1] != "]" {
			return c.fail("/system/bin/sh: [: missing ]")
		}
		a = a[:len(a)-1]
	}
	holds := false
	switch {
	case len(a) == 1:
		holds = a[0] != ""
	case len(a) == 2 && a[0] == "-n":
		holds = a[1] != ""
	case len(a) == 2 && a[0] == "-z":
		holds = a[1] == ""
	case len(a) == 2:
		c.phone.mu.Lock()
		f, there := c.phone.stat(a[1])
		c.phone.mu.Unlock()
		folder := f.mode&modeKind == modeDirectory&modeKind
		holds = there && (a[0] != "-f" || !folder) && (a[0] != "-d" || folder)
	case len(a) == 3 && a[1] == "!=":
		holds = a[0] != a[2]
	case len(a) == 3:
		holds = a[0] == a[2]
	}
	if holds {
		return 0
	}
	return 1
}

func shellRunAs(c *call) int {
	p := c.phone
	p.mu.Lock()
	pkg := p.packages[c.arg(0)]
	p.mu.Unlock()
	switch {
	case pkg == nil:
		return c.fail("run-as: unknown package: %s", c.arg(0))
	case !pkg.debuggable:
		return c.fail("run-as: package not debuggable: %s", c.arg(0))
	}
	return p.runShell(c.ctx, strings.Join(c.args[2:], " "), c.stdin, c.stdout, c.stderr)
}

func shellGetprop(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	value := func(name string) string {
		if !p.bootCompleted(time.Now()) {
			switch name {
			case "sys.boot_completed", "dev.bootcomplete":
				return ""
			case "init.svc.bootanim":
				return "running"
			}
		}
		return p.props[name]
	}
	if name := c.arg(0); name != "" {
		v := value(name)
		if v == "" {
			v = c.arg(1) // the default
		}
		c.printf("%s\n", v)
		return 0
	}
	for _, name := range sortedKeys(p.props) {
		c.printf("[%s]: [%s]\n", name, value(name))
	}
	return 0
}

func shellSetprop(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	if name := c.arg(0); name == "" || strings.HasPrefix(name, "ro.") {
		return c.fail("setprop: failed to set property '%s' to '%s'", name, c.arg(1))
	}
	p.props[c.arg(0)] = c.arg(1)
	return 0
}

func shellSettings(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	operands := c.operands("--user")
	if len(operands) < 2 {
		return c.fail("settings: which namespace?")
	}
	prefix := operands[1] + "/"
	if operands[0] == "list" {
		for _, key := range sortedKeys(p.settings) {
			if name, ok := strings.CutPrefix(key, prefix); ok {
				c.printf("%s=%s\n", name, p.settings[key])
			}
		}
		return 0
	}
	if len(operands) < 3 {
		return c.fail("settings: which setting?")
	}
	key := prefix + operands[2]
	switch operands[0] {
	case "put":
		p.settings[key] = strings.Join(operands[3:], " ")
	case "delete":
		before := len(p.settings)
		delete(p.settings, key)
		c.printf("Deleted %d rows\n", before-len(p.settings))
	case "get":
		value, ok := p.settings[key]
		if !ok {
			value = "null"
		}
		c.printf("%s\n", value)
	default:
		return c.fail("settings: unknown command %s", operands[0])
	}
	return 0
}

func shellWM(c *call) int {
	switch c.arg(0) {
	case "size":
		c.printf("Physical size: %dx%d\n", screenWidth, screenHeight)
	case "density":
		c.printf("Physical density: %d\n", screenDensity)
	}
	return 0
}

func shellPS(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	c.printf("USER           PID  PPID     VSZ    RSS WCHAN            ADDR S NAME\n")
	for _, name := range sortedKeys(p.pids) {
		c.printf("%-12s %5d   300 1500000  90000 0                   0 S %s\n", "u0_a100", p.pids[name], name)
	}
	return 0
}

func shellPidof(c *call) int {
	return c.findProcesses(func(process string) bool { return process == c.last() })
}

// shellPgrep matches the kernel's name of a process, of which Android keeps the last 15 letters, or with -f the whole.
func shellPgrep(c *call) int {
	re, err := regexp.Compile(c.last())
	if err != nil {
		return c.fail("pgrep: bad pattern %s", c.last())
	}
	return c.findProcesses(func(process string) bool {
		const kept = 15
		if !c.has("-f") && len(process) > kept {
			process = process[len(process)-kept:]
		}
		return re.MatchString(process)
	})
}

func (c *call) findProcesses(match func(string) bool) int {
	if c.has("--help") {
		c.printf("usage: %s [-s] [-o omitpid[,omitpid...]] [NAME]...\n", c.args[0])
		return 0
	}
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	code := 1
	for _, name := range sortedKeys(p.pids) {
		if match(name) {
			c.printf("%d\n", p.pids[name])
			code = 0
		}
	}
	return code
}

func shellKill(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	code := 0
	for _, operand := range c.operands() {
		pid, _ := strconv.Atoi(operand)
		found := false
		for name, other := range p.pids {
			if other == pid {
				found = true
				p.stopPackage(name)
			}
		}
		if !found {
			code = c.fail("/system/bin/sh: kill: %s: No such process", operand)
		}
	}
	return code
}

func shellEcho(c *call) int {
	args, end := c.args[1:], "\n"
	if len(args) > 0 && args[0] == "-n" {
		args, end = args[1:], ""
	}
	c.printf("%s%s", strings.Join(args, " "), end)
	return 0
}

// shellDate knows the formats that tools ask for.
func shellDate(c *call) int {
	now := time.Now().UTC()
	switch format := c.last(); format {
	case "+%s":
		c.printf("%d\n", now.Unix())
	case "+%Y-%m-%dT%T%z":
		c.printf("%s\n", now.Format("2006-01-02T15:04:05-0700"))
	case "+%m-%d %H:%M:%S.000":
		c.printf("%s\n", now.Format("01-02 15:04:05.000"))
	default:
		c.printf("%s\n", now.Format("Mon Jan _2 15:04:05 MST 2006"))
	}
	return 0
}

func shellID(c *call) int {
	c.printf("uid=2000(shell) gid=2000(shell) groups=2000(shell) context=u:r:shell:s0\n")
	return 0
}

func shellWhoami(c *call) int {
	c.printf("shell\n")
	return 0
}

func shellWhich(c *call) int {
	if c.phone.commands[c.arg(0)] == nil {
		return 1
	}
	c.printf("/system/bin/%s\n", c.arg(0))
	return 0
}

func shellGrep(c *call) int {
	operands := c.operands("-A", "-B", "-C", "-m")
	if len(operands) == 0 {
		return c.fail("grep: no pattern")
	}
	pattern := operands[0]
	if c.has("-F") {
		pattern = regexp.QuoteMeta(pattern)
	}
	if c.has("-i") {
		pattern = "(?i)" + pattern
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return c.fail("grep: bad pattern %s", operands[0])
	}
	count := 0
	for lines := bufio.NewScanner(c.stdin); lines.Scan(); {
		if re.MatchString(lines.Text()) == c.has("-v") {
			continue
		}
		count++
		if !c.has("-q") && !c.has("-c") {
			c.printf("%s\n", lines.Text())
		}
	}
	if c.has("-c") {
		c.printf("%d\n", count)
	}
	if count == 0 {
		return 1
	}
	return 0
}

func shellHead(c *call) int {
	n := 10
	if text, ok := c.option("-n"); ok {
		n, _ = strconv.Atoi(text)
	} else if strings.HasPrefix(c.arg(0), "-") {
		n, _ = strconv.Atoi(c.arg(0)[1:])
	}
	lines := bufio.NewScanner(c.stdin)
	for i := 0; i < n && lines.Scan(); i++ {
		c.printf("%s\n", lines.Text())
	}
	return 0
}

func shellWC(c *call) int {
	content, _ := io.ReadAll(c.stdin) // ends when either side does
	if c.has("-c") {
		c.printf("%d\n", len(content))
	} else {
		c.printf("%d\n", strings.Count(string(content), "\n"))
	}
	return 0
}

func shellUptime(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	c.printf(" up %v,  0 users,  load average: 0.00, 0.00, 0.00\n", time.Since(p.ledger.StartedAt).Round(time.Second))
	return 0
}

func shellSleep(c *call) int {
	seconds, err := strconv.ParseFloat(c.arg(0), 64)
	if err != nil || seconds < 0 {
		return c.fail("sleep: bad time %s", c.arg(0))
	}
	timer := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ctx.Done():
	}
	return 0
}

// shellIME knows one keyboard.
func shellIME(c *call) int {
	const keyboard = "com.android.inputmethod.latin/.LatinIME"
	if c.arg(0) == "list" {
		c.printf("%s\n", keyboard)
	}
	return 0
}

// shellInput types, taps and presses keys: `input text|tap|keyevent|swipe ...`.
func shellInput(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	number := func(i int) int { n, _ := strconv.Atoi(c.arg(i)); return n }
	switch c.arg(0) {
	case "text":
		p.typeText(strings.ReplaceAll(strings.Join(c.args[2:], " "), "%s", " "), now)
	case "tap":
		p.tapAt(number(1), number(2), now)
	case "swipe":
		p.scrollBy(number(2)-number(4), now)
	case "keyevent":
		for _, key := range c.operands()[1:] {
			p.pressKey(key, now)
		}
	default:
		return c.fail("Error: Unknown command: %s", c.arg(0))
	}
	return 0
}

func shellScreencap(c *call) int {
	p := c.phone
	p.mu.Lock()
	t := p.tree(time.Now(), false)
	p.mu.Unlock()
	image := t.screenshot()
	if names := c.operands("-d"); len(names) > 0 {
		p.writeFile(names[0], image)
		return 0
	}
	_, _ = c.stdout.Write(image) // nobody is left to tell when this fails
	return 0
}
