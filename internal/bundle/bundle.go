// Package bundle packs a test project into one file, and unpacks it again without trusting it.
//
// A bundle is a tar archive compressed with zstd. Packing the same files gives the same bytes: names are
// sorted, times, owners and all permissions but "executable" are left out, and the compressor runs with fixed
// settings. A bundle's address is the SHA-256 of those bytes as they are uploaded, not of the archive within:
// so a server or a cache can check it without decompressing what it does not trust yet. A later release of
// the compressor may give other bytes for the same project; that costs one more upload, and nothing else.
//
// What belongs to the project is what git would commit: files that are tracked, or neither tracked nor
// ignored. Installed packages never belong to it: the lockfile does.
package bundle

import (
	"path"
	"path/filepath"
	"strings"

	"qgjob"
)

// Limits of a bundle. They are for test code; builds of an app are uploaded by themselves.
const (
	MaxFiles = 20_000
	MaxBytes = 1 << 30 // of all files, unpacked
)

// checkName refuses a file name that is anything but a plain path inside the project.
func checkName(name string) error {
	if name == "" || name == "." || path.Clean(name) != name || !filepath.IsLocal(filepath.FromSlash(name)) || strings.ContainsAny(name, "\\\x00") {
		return qgjob.Errorf(qgjob.CodeInvalid, "the file name %q cannot stand in a bundle: use a plain path without backslashes", name)
	}
	return nil
}

// checkLink refuses a symbolic link that may lead out of the bundle: an absolute one, one that climbs above
// the top, and one that climbs after it went down, since what it went down through may be a link itself.
func checkLink(name, target string) error {
	down := false
	for _, part := range strings.Split(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if down {
				return qgjob.Errorf(qgjob.CodeInvalid, "the link %s leads to %q: a link of a test project may not go down and up again", name, target)
			}
		default:
			down = true
		}
	}
	to := path.Join(path.Dir(name), target)
	if target == "" || path.IsAbs(target) || to == ".." || strings.HasPrefix(to, "../") {
		return qgjob.Errorf(qgjob.CodeInvalid, "the link %s leads to %q, out of the test project: replace it by a copy, or let git ignore it", name, target)
	}
	return nil
}

func tooManyFiles() error {
	return qgjob.Errorf(qgjob.CodeTooLarge, "the test project holds more than %d files: let git ignore what the tests do not need", MaxFiles)
}

func tooManyBytes() error {
	return qgjob.Errorf(qgjob.CodeTooLarge, "the test project holds more than %d MiB: let git ignore what the tests do not need", MaxBytes>>20)
}
