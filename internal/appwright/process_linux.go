package appwright

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// survivors returns the living processes of a group, and those anywhere whose environment carries the mark.
// A zombie is not alive: in a container nobody may ever reap it.
func survivors(group int, mark string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	needle := []byte(markVariable + "=" + mark)
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		state, in := processState(pid)
		if state == "Z" || state == "X" || state == "" {
			continue
		}
		if in == group {
			pids = append(pids, pid)
			continue
		}
		environment, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if err == nil && bytes.Contains(environment, needle) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// processState reads /proc/PID/stat: pid (name) state parent group ... The name may hold anything.
func processState(pid int) (state string, group int) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 3 {
		return "", 0
	}
	group, _ = strconv.Atoi(string(fields[2]))
	return string(fields[0]), group
}
