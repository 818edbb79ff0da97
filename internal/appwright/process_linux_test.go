package appwright

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A daemon with an environment of its own carries no mark: it is known because its parent was seen with it.
func TestADaemonIsRememberedByItsParent(t *testing.T) {
	gate := filepath.Join(t.TempDir(), "gate")
	p := startShell(t, "mkfifo "+gate+" && { env -i setsid sleep 1000 & echo ready; cat "+gate+"; exit 3; }")
	ended := make(chan exit)
	go func() { ended <- p.wait(t.Context()) }()
	for range time.Tick(familyPoll / 10) {
		p.family.mu.Lock()
		seen := len(p.family.seen)
		p.family.mu.Unlock()
		if seen == 3 { // the shell, cat and the daemon
			break
		}
	}
	if err := os.WriteFile(gate, nil, 0); err != nil {
		t.Fatal(err)
	}
	if exit := <-ended; exit.code != 3 {
		t.Errorf("it ended with %s", exit)
	}
	if left := p.family.living(); len(left) != 0 {
		t.Errorf("processes %v are left", left)
	}
}
