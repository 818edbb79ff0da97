package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// memory watches how much a process and its descendants have in memory together. Pages that they share count once.
type memory struct {
	quit, done chan struct{}
	most       int64
}

const memoryEvery = 500 * time.Millisecond

func watchMemory(pid int) *memory {
	m := &memory{quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(m.done)
		tick := time.NewTicker(memoryEvery)
		defer tick.Stop()
		for {
			m.most = max(m.most, treeMemory(pid))
			select {
			case <-tick.C:
			case <-m.quit:
				return
			}
		}
	}()
	return m
}

// stop ends the watch and returns the most there was, in bytes. It is idempotent.
func (m *memory) stop() int64 {
	select {
	case <-m.quit:
	default:
		close(m.quit)
	}
	<-m.done
	return m.most
}

func treeMemory(root int) (total int64) {
	children := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 1 {
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], pid)
		}
	}
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		total += proportional(queue[0])
		queue = append(queue, children[queue[0]]...)
	}
	return total
}

// proportional is a process's memory with its share of what it shares (proc(5), smaps_rollup).
func proportional(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0 // it has ended
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10
		}
	}
	return 0
}
