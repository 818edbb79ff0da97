package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of the processor times in /proc/<pid>/stat: USER_HZ, 100 a second on every Linux.
const tick = 10 * time.Millisecond

// CPU is the processor time that a server and the PostgreSQL cluster have used, their children's included. On a
// machine that others use, too, it tells more than the clock does.
func (r *Rig) CPU(server *Process) (time.Duration, error) {
	total, err := cpu(server.PID())
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	c := r.cluster
	r.mu.Unlock()
	if c == nil {
		return total, nil
	}
	postmaster, err := cpu(c.process.PID())
	if err != nil {
		return 0, err
	}
	total += postmaster
	backends, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, path := range backends {
		fields, err := stat(path)
		if err != nil {
			continue // it has just ended, and counts among the postmaster's
		}
		if fields[1] == strconv.Itoa(c.process.PID()) {
			total += times(fields)
		}
	}
	return total, nil
}

func cpu(pid int) (time.Duration, error) {
	fields, err := stat(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return times(fields), nil
}

// stat returns the fields of a stat file that follow the command's name: state, parent, …
func stat(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 15 {
		return nil, fmt.Errorf("%s has %d fields", path, len(fields))
	}
	return fields, nil
}

// times adds up the user and system time of a process and of its children that have ended.
func times(fields []string) (total time.Duration) {
	const utime, cstime = 11, 14
	for _, f := range fields[utime : cstime+1] {
		ticks, _ := strconv.ParseInt(f, 10, 64) // the kernel writes numbers
		total += time.Duration(ticks) * tick
	}
	return total
}
