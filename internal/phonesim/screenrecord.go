package phonesim

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// video is the smallest MP4 that players recognize: a file type box, and an empty box of media data (ISO 14496-12).
const video = "\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp42\x00\x00\x00\x08mdat"

// shellScreenrecord is `screenrecord [--time-limit S] ... FILE`. The file is whole only when the recording ended by its time or by
// an interrupt; when the connection ended before, there is none.
func shellScreenrecord(c *call) int {
	limit := 180.0
	for i, a := range c.args {
		if a == "--time-limit" && i+1 < len(c.args) {
			seconds, err := strconv.ParseFloat(c.args[i+1], 64)
			if err != nil || seconds <= 0 || seconds > 180 {
				return c.fail("Time limit %ss outside acceptable range [1,180]", c.args[i+1])
			}
			limit = seconds
		}
	}
	p, name := c.phone, c.last()
	if p.faults.use(FaultNoRecorder) != nil {
		return c.fail("Unable to get output buffers (err=-38)")
	}
	end := make(chan struct{})
	p.mu.Lock()
	if p.recordings == nil {
		p.recordings = map[string]chan struct{}{}
	}
	p.recordings[name] = end
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.recordings, name)
	}()
	timer := time.NewTimer(time.Duration(limit * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-end:
	case <-c.ctx.Done():
		return 1
	}
	p.writeFile(name, []byte(video))
	return 0
}

// shellPkill is `pkill -INT -f PATTERN`, for recordings of the screen.
func shellPkill(c *call) int {
	if !c.has("-INT") && !c.has("-2") || !c.has("-f") {
		return c.fail("pkill: only -INT -f PATTERN is known")
	}
	pattern, err := regexp.Compile(c.last())
	if err != nil {
		return c.fail("pkill: bad pattern %s", c.last())
	}
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	found := 1
	for name, end := range p.recordings {
		if pattern.MatchString("screenrecord " + strings.TrimSpace(name)) {
			close(end)
			delete(p.recordings, name)
			found = 0
		}
	}
	return found
}
