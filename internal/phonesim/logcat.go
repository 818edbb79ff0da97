package phonesim

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxLogLines bounds the log, as the ring buffer of a phone does.
const maxLogLines = 2000

// logcat is the phone's log. The phone's lock guards it.
type logcat struct {
	lines   []logLine
	first   int           // how many lines fell out of the buffer
	changed chan struct{} // closed and replaced at each line
}

type logLine struct {
	time  time.Time
	pid   int
	level byte
	tag   string
	text  string
}

func newLogcat() logcat { return logcat{changed: make(chan struct{})} }

func (l *logcat) write(now time.Time, pid int, level byte, tag, text string) {
	l.lines = append(l.lines, logLine{now, pid, level, tag, text})
	if over := len(l.lines) - maxLogLines; over > 0 {
		l.lines = append(l.lines[:0], l.lines[over:]...)
		l.first += over
	}
	l.wake()
}

func (l *logcat) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// since renders the lines from number n on, and returns the number after the last.
func (l *logcat) since(n int, brief bool) (string, int) {
	var b strings.Builder
	for _, line := range l.lines[max(0, min(n-l.first, len(l.lines))):] {
		if brief {
			fmt.Fprintf(&b, "%c/%s(%5d): %s\n", line.level, line.tag, line.pid, line.text)
			continue
		}
		fmt.Fprintf(&b, "%s %5d %5d %c %s: %s\n", line.time.UTC().Format(logTime), line.pid, line.pid, line.level, line.tag, line.text)
	}
	return b.String(), l.first + len(l.lines)
}

// logTime is how logcat writes a line's time, and takes one.
const logTime = "01-02 15:04:05.000"

// at is the number of the first line that is not older than a time, as logcat writes it.
func (l *logcat) at(from string) int {
	for i, line := range l.lines {
		if line.time.UTC().Format(logTime) >= from {
			return l.first + i
		}
	}
	return l.first + len(l.lines)
}

// shellLogcat prints the log, and unless told -d goes on until nobody reads any more.
func shellLogcat(c *call) int {
	p := c.phone
	if c.has("-c") {
		p.mu.Lock()
		p.logcat.first += len(p.logcat.lines)
		p.logcat.lines = nil
		p.mu.Unlock()
		return 0
	}
	format, _ := c.option("-v")
	if format == "" {
		format, _ = c.option("--format")
	}
	next := 0
	if tail, ok := c.option("-t"); ok {
		if n, err := strconv.Atoi(tail); err == nil {
			p.mu.Lock()
			next = p.logcat.first + len(p.logcat.lines) - n
			p.mu.Unlock()
		}
	}
	if from, ok := c.option("-T"); ok {
		p.mu.Lock()
		next = p.logcat.at(from)
		p.mu.Unlock()
	}
	_, dump := c.option("-t")
	dump = dump || c.has("-d")
	c.printf("--------- beginning of main\n")
	for {
		p.mu.Lock()
		text, after := p.logcat.since(next, format == "brief")
		changed := p.logcat.changed
		p.mu.Unlock()
		next = after
		if text != "" {
			if _, err := c.stdout.Write([]byte(text)); err != nil {
				return 1
			}
		}
		if dump {
			return 0
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			return 0
		}
	}
}
