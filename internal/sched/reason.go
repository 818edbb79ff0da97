package sched

import (
	"fmt"
	"strings"
	"time"
)

// Rule is the part of the policy by which a device got a job.
type Rule string

// The rules.
const (
	RuleOverdue    Rule = "overdue"     // waited beyond the bound: before all that was submitted later
	RuleSameDevice Rule = "same_device" // tried again where it ran before
	RuleInstalled  Rule = "installed"   // the app is on the device
	RuleUnserved   Rule = "unserved"    // no device served the group
	RuleJoin       Rule = "join"        // one more device for a served group
	RuleFair       Rule = "fair"        // its organization used less than that of the device's batch
	RuleOverflow   Rule = "overflow"    // its own devices would end it too late, and the budget allows a cloud's
)

// Why is the reason of an assignment.
type Why struct {
	Rule     Rule
	Priority int           // of the job
	Level    int           // effective priority of its group
	Install  time.Duration // what the install is expected to cost; 0 when the app is on the device
	Saved    time.Duration // the install that was saved
	Serving  int           // devices that served the group before
	Waiting  int           // jobs of the group that waited, this one included
	Gain     time.Duration // by how much its last job is expected to start sooner
	Over     []string      // other free devices that fit, a few of them
	Leaves   string        // what the device had on it and is still waited for: an app version of the organization, or that it is another one's
	Late     time.Duration // by how much its own devices were expected to miss the deadline; 0 when there was none
	Cost     float64       // what it is expected to cost on a cloud's device
}

// maxOver is how many devices a reason names.
const maxOver = 3

// complete fills in what a reason says of the moment before a lane's job is given.
func (w *Why) complete(p *Planner, d *device, l *lane) {
	g := l.group
	w.Priority, w.Level = l.priority, g.level
	w.Serving, w.Waiting = len(g.serving), g.waiting
	if d.has(l.app) {
		w.Saved = d.install()
	} else {
		w.Install = d.install()
		if d.wanted() && d.Installed.OrgID != g.OrgID {
			w.Leaves = "another organization's app" // its members are not to read whose
		} else if d.wanted() {
			w.Leaves = d.Installed.AppVersionID
		}
	}
	for _, other := range p.free {
		if len(w.Over) == maxOver {
			break
		}
		if other != d && g.pool.fits(other) {
			w.Over = append(w.Over, other.ID)
		}
	}
}

// Text is the reason as a sentence.
func (w Why) Text() string {
	var b strings.Builder
	switch w.Rule {
	case RuleOverdue:
		b.WriteString("waited beyond the bound: before all that was submitted later")
	case RuleSameDevice:
		b.WriteString("ran it before: tried again on the same device")
	case RuleInstalled:
		b.WriteString("own app installed: no install")
	case RuleUnserved:
		b.WriteString("no device serves this group")
	case RuleJoin:
		fmt.Fprintf(&b, "joins: %d waiting on %s", w.Waiting, plural(w.Serving, "device"))
	case RuleFair:
		b.WriteString("its organization used less device time lately")
	case RuleOverflow:
		b.WriteString("no device of its own")
		if w.Late > 0 {
			b.Reset()
			fmt.Fprintf(&b, "its own devices would miss the deadline by %s", seconds(w.Late))
		}
		fmt.Fprintf(&b, ": on BrowserStack for about %.2f", w.Cost)
	}
	if w.Gain > 0 {
		fmt.Fprintf(&b, ", the last one starts %s sooner", seconds(w.Gain))
	}
	if w.Level != w.Priority {
		fmt.Fprintf(&b, "; priority %d rose to %d with age", w.Priority, w.Level)
	}
	if w.Leaves != "" {
		fmt.Fprintf(&b, "; leaves %s", w.Leaves)
	}
	return b.String()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.0f s", d.Seconds()) }

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
