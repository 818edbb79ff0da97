package device

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"qgjob"
)

// HostLockDir is where the workers of all users of a host keep their device locks.
const HostLockDir = "/tmp/qgjob-locks"

// Held is a device lock that this process holds.
type Held struct {
	file *os.File
	once sync.Once
}

// Lock takes the lock of a serial in a directory, which is made, writable for everybody, when it is
// missing. It does not wait: when anybody has the lock, in this process or another, of this user or
// another, the error is a Failure that wraps ErrInUse. The kernel gives the lock back when its process dies,
// however it dies; child processes do not inherit it.
func Lock(dir, serial string) (*Held, error) {
	path := filepath.Join(dir, lockName(serial))
	for {
		file, err := openLock(dir, path)
		if err != nil {
			return nil, Failf(qgjob.CauseHostFailed, "the lock of device %s cannot be opened: %w", serial, err)
		}
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			file.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, Failf(qgjob.CauseDeviceOffline, "%w: device %s belongs to one worker of this host at a time (lock %s)", ErrInUse, serial, path)
			}
			return nil, Failf(qgjob.CauseHostFailed, "the lock of device %s (%s) cannot be taken: %w", serial, path, err)
		}
		// Its last holder may have removed the file between open and lock: a lock that nobody else can find is none.
		if same, err := isSameFile(file, path); err == nil && same {
			return &Held{file: file}, nil
		}
		file.Close()
	}
}

// OpenLocked opens a device with its lock of this host held, which is the session's from then on.
func OpenLocked(name string, open func(*Held) (Session, error)) (Session, error) {
	held, err := Lock(HostLockDir, name)
	if err != nil {
		return nil, err
	}
	s, err := open(held)
	if err != nil {
		held.Unlock()
		return nil, err
	}
	return s, nil
}

// Unlock gives the lock back. It is idempotent.
func (h *Held) Unlock() {
	h.once.Do(func() {
		os.Remove(h.file.Name()) // while it is held; another user's stays
		h.file.Close()
	})
}

func isSameFile(file *os.File, path string) (bool, error) {
	mine, err := file.Stat()
	if err != nil {
		return false, err
	}
	theirs, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return os.SameFile(mine, theirs), nil
}

// openLock opens an existing lock file for reading, which is all that flock needs, so that it works on
// another user's file in a sticky directory, too, where Linux refuses O_CREAT (fs.protected_regular).
func openLock(dir, path string) (*os.File, error) {
	for {
		file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if !errors.Is(err, fs.ErrNotExist) {
			return file, err
		}
		if err := makeLockDir(dir); err != nil {
			return nil, err
		}
		file, err = os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := file.Chmod(0o644); err != nil { // whatever the umask
			file.Close()
			return nil, err
		}
		return file, nil
	}
}

func makeLockDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return os.Chmod(dir, 0o777|os.ModeSticky)
}

// lockName is readable for every serial there is, and safe and unique for any other.
func lockName(serial string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-' || r == '.' || r == '_' {
			return r
		}
		return '_'
	}, serial)
	if clean == serial && len(serial) <= 100 {
		return "device-" + serial
	}
	sum := sha256.Sum256([]byte(serial))
	return fmt.Sprintf("device-%.60s-%s", clean, hex.EncodeToString(sum[:6]))
}

// ReservePort takes a TCP port of this host between first and last that nobody listens on and that no other
// driver of this host has reserved, in the same way as Lock. Whoever fixes a port in advance for a program
// that opens it later needs this: two programs that each look for a free one find the same.
func ReservePort(dir string, first, last int) (int, *Held, error) {
	for port := first; port <= last; port++ {
		held, err := Lock(dir, fmt.Sprintf("port-%d", port))
		if errors.Is(err, ErrInUse) {
			continue
		}
		if err != nil {
			return 0, nil, err
		}
		if PortFree(port) {
			return port, held, nil
		}
		held.Unlock()
	}
	return 0, nil, Failf(qgjob.CauseHostFailed, "every port from %d to %d is in use on this host: end what holds them", first, last)
}

// PortFree says whether nobody listens on a port of 127.0.0.1.
func PortFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	l.Close()
	return true
}
