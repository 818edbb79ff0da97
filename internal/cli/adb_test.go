package cli

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"

	"qgjob/internal/device/adb"
)

// The server that adb starts in place of one that died is nobody's child.
func TestNoADBServerIsLeft(t *testing.T) {
	path, err := exec.LookPath("adb")
	if err != nil {
		t.Fatal(err)
	}
	s, err := startADB(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(-s.process.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.process.Done()
	client := adb.Client{Port: s.port}
	if err := client.Start(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if _, err := client.Version(t.Context()); !errors.Is(err, adb.ErrNoServer) {
		t.Errorf("a server still answers on port %d: %v", s.port, err)
	}
}
