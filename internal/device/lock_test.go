package device_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"qgjob"
	"qgjob/internal/device"
)

// holderDir makes this test binary another worker that holds the lock of "phone" until it dies.
const holderDir = "QGJOB_TEST_LOCK_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holderDir); dir != "" {
		_, err := device.Lock(dir, "phone")
		fmt.Println("lock:", err)
		select {}
	}
	os.Exit(m.Run())
}

func wantInUse(t *testing.T, dir, serial string) {
	t.Helper()
	held, err := device.Lock(dir, serial)
	if err == nil {
		held.Unlock()
	}
	if !errors.Is(err, device.ErrInUse) {
		t.Errorf("lock of a device in use: %v", err)
	}
	if _, ok := errors.AsType[*device.Failure](err); !ok {
		t.Errorf("error %T is no Failure", err)
	}
}

func lock(t *testing.T, dir, serial string) *device.Held {
	t.Helper()
	held, err := device.Lock(dir, serial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(held.Unlock)
	return held
}

func TestLockInOneProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by-lock")
	held := lock(t, dir, "127.0.0.1:5555")
	wantInUse(t, dir, "127.0.0.1:5555")
	lock(t, dir, "127.0.0.1:5556")
	lock(t, dir, "127.0.0.1_5555") // the same characters in a file name
	held.Unlock()
	held.Unlock()
	again := lock(t, dir, "127.0.0.1:5555")
	held.Unlock()
	wantInUse(t, dir, "127.0.0.1:5555")
	again.Unlock()
}

func TestLockDiesWithItsProcess(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	holder := exec.Command(self)
	holder.Env = append(os.Environ(), holderDir+"="+dir)
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "lock: <nil>\n" {
		t.Fatalf("the other process says %q %v", line, err)
	}
	wantInUse(t, dir, "phone")
	holder.Process.Kill()
	holder.Wait()
	lock(t, dir, "phone")
}

// A lock file of another user in a directory that is everybody's can be locked though it cannot be written.
func TestLockOfAnotherUsersFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "device-phone"), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	lock(t, dir, "phone")
	wantInUse(t, dir, "phone")
}

func TestLockDirIsForEverybody(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	lock(t, dir, "phone")
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := os.ModeDir | os.ModeSticky | 0o777; info.Mode() != want {
		t.Errorf("lock directory has mode %v, want %v", info.Mode(), want)
	}
}

// Whoever goes first, there is never more than one holder, though holders remove the file.
func TestLockUnderContention(t *testing.T) {
	dir := t.TempDir()
	var holders, taken atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				held, err := device.Lock(dir, "phone")
				if errors.Is(err, device.ErrInUse) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if holders.Add(1) != 1 {
					t.Error("two hold one lock")
				}
				taken.Add(1)
				holders.Add(-1)
				held.Unlock()
			}
		})
	}
	wg.Wait()
	if taken.Load() == 0 {
		t.Error("nobody got the lock")
	}
}

func TestReservePort(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	busy := l.Addr().(*net.TCPAddr).Port
	if _, _, err := device.ReservePort(dir, busy, busy); device.CauseOf(err) != qgjob.CauseHostFailed {
		t.Errorf("a port that somebody listens on: %v", err)
	}
	first, held, err := device.ReservePort(dir, 28200, 28299)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Unlock()
	second, other, err := device.ReservePort(dir, 28200, 28299)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Unlock()
	if first == second {
		t.Errorf("port %d was reserved twice", first)
	}
}

func TestFailf(t *testing.T) {
	under := errors.New("underneath")
	err := fmt.Errorf("attempt 3: %w", device.Failf(qgjob.CauseDeviceHung, "device X does not answer: %w", under))
	if device.CauseOf(err) != qgjob.CauseDeviceHung || !errors.Is(err, under) {
		t.Errorf("%v has cause %q", err, device.CauseOf(err))
	}
	if device.CauseOf(nil) != "" || device.CauseOf(under) != qgjob.CauseHostFailed {
		t.Error("causes of nil and of a foreign error")
	}
}
