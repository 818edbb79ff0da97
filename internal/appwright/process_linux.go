package appwright

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
)

// family is what belongs to a process: its group, the processes anywhere whose environment carries its mark,
// and its descendants, by pid and start. A descendant that left the group with an environment of its own is
// known only if it was seen while its parent lived.
type family struct {
	group  int
	needle []byte

	mu   sync.Mutex
	seen map[int]string
}

func newFamily(group int, mark string) *family {
	return &family{group: group, needle: []byte(markVariable + "=" + mark), seen: map[int]string{}}
}

// look notes the descendants of what is known.
func (f *family) look() {
	f.members(func(pid int, stat procStat) bool { return stat.group == f.group })
}

// living returns the members that live. A zombie does not: in a container nobody may ever reap it.
func (f *family) living() []int {
	return f.members(func(pid int, stat procStat) bool { return stat.group == f.group || f.marked(pid) })
}

// members returns the living processes that were seen before or that belong, and their descendants.
func (f *family) members(belongs func(pid int, stat procStat) bool) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	alive, children := map[int]procStat{}, map[int][]int{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if stat, ok := readProcStat(pid); ok {
			alive[pid] = stat
			children[stat.parent] = append(children[stat.parent], pid)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	members := map[int]bool{}
	var add func(pid int)
	add = func(pid int) {
		if members[pid] {
			return
		}
		members[pid], f.seen[pid] = true, alive[pid].start
		for _, child := range children[pid] {
			add(child)
		}
	}
	for pid, stat := range alive {
		if f.seen[pid] == stat.start || belongs(pid, stat) {
			add(pid)
		}
	}
	return slices.Collect(maps.Keys(members))
}

func (f *family) marked(pid int) bool {
	environment, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	return err == nil && bytes.Contains(environment, f.needle)
}

// procStat is what /proc/PID/stat says of a living process (proc(5)).
type procStat struct {
	parent, group int
	start         string // in clock ticks since boot: with the pid it names one process
}

// readProcStat reads pid (name) state parent group ... The name may hold anything. The start is field 22.
func readProcStat(pid int) (procStat, bool) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return procStat{}, false
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return procStat{}, false
	}
	parent, _ := strconv.Atoi(string(fields[1]))
	group, _ := strconv.Atoi(string(fields[2]))
	return procStat{parent: parent, group: group, start: string(fields[19])}, true
}
