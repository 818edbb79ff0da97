package phonesim

import (
	"crypto/rand"
	"time"
)

// How long a reboot takes: off adb, then on it while Android comes up. An adb server that has lost a network device
// looks for it every ten seconds.
const (
	rebootDown = 500 * time.Millisecond
	rebootUp   = 15 * time.Second
)

// boot is where the phone is in a reboot.
type boot struct {
	reachableAt time.Time // adb refuses connections before
	completeAt  time.Time // sys.boot_completed is empty before
}

// reboot ends everything that runs, and the connections.
func (p *Phone) reboot() {
	p.killInstrumentation("the phone was rebooted")
	now := time.Now()
	p.mu.Lock()
	for name := range p.pids {
		p.stopPackage(name)
	}
	p.boot = boot{reachableAt: now.Add(rebootDown), completeAt: now.Add(rebootDown + rebootUp)}
	p.ledger.record(now, Entry{Kind: EntryReboot})
	p.logcat = newLogcatAfter(p.logcat)
	p.bootFinished(now)
	p.mu.Unlock()
	p.log.Info("rebooting")
	p.cutTransports()
}

// newLogcatAfter is an empty log that lets those who read the old one go.
func newLogcatAfter(old logcat) logcat {
	old.wake()
	l := newLogcat()
	l.first = old.first + len(old.lines)
	return l
}

// bootFinished starts what runs on a phone in which no app does.
func (p *Phone) bootFinished(now time.Time) {
	p.nextPID = 1000
	p.pids = map[string]int{}
	p.spawn("system_server")
	p.spawn(launcherPackage)
	p.foreground = launcher
	p.files["/proc/sys/kernel/random/boot_id"] = file{content: []byte(rand.Text() + "\n"), mode: modeRegular | 0o444, modified: now}
	p.logcat.write(now, p.pids["system_server"], 'I', "SystemServer", "Boot is finished")
}

// bootCompleted says whether Android is up.
func (p *Phone) bootCompleted(now time.Time) bool { return !now.Before(p.boot.completeAt) }

func shellReboot(c *call) int {
	c.phone.reboot()
	return 0
}
