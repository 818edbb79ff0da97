// Package disk tells how much space there is.
package disk

import "syscall"

// Free is how many bytes of a directory's disk this user may use.
func Free(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
