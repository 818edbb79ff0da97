package result

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// Machine is what the numbers depend on.
type Machine struct {
	Cores     int     `json:"cores"`
	CPU       string  `json:"cpu"`
	MemoryGiB float64 `json:"memory_gib"`
	System    string  `json:"system"`
}

// ThisMachine describes the machine.
func ThisMachine() Machine {
	kib, _ := strconv.ParseFloat(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 64)
	return Machine{
		Cores: runtime.NumCPU(), CPU: field("/proc/cpuinfo", "model name"), MemoryGiB: kib / (1 << 20),
		System: runtime.GOOS + "/" + runtime.GOARCH,
	}
}

// Versions are those of what is measured and of what it is measured with.
func Versions(postgres string) []string {
	versions := []string{"Go " + strings.TrimPrefix(runtime.Version(), "go"), "PostgreSQL " + postgres}
	names := map[string]string{"github.com/riverqueue/river": "River", "github.com/jackc/pgx/v5": "pgx", "modernc.org/sqlite": "modernc.org/sqlite"}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if name, ok := names[module.Path]; ok {
				versions = append(versions, name+" "+strings.TrimPrefix(module.Version, "v"))
			}
		}
	}
	return versions
}

func (m Machine) String() string {
	return fmt.Sprintf("%d cores of %s, %.0f GiB memory, %s", m.Cores, m.CPU, m.MemoryGiB, m.System)
}

// field is the first value of a name in one of the kernel's "name : value" files; empty where there is none.
func field(path, name string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
