package ios

import (
	"archive/zip"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"qgjob"
	"qgjob/internal/device"
)

// maxUnpacked is far beyond what apps have; more is damage.
const maxUnpacked = 16 << 30

// unpack makes a build what Xcode's programs take: an IPA by a name that says so, or the directory of an app for a simulator. What
// it makes is in dir, in the place of what is there.
func unpack(build, dir string, simulator bool) (app string, remove func(), err error) {
	remove = func() { os.RemoveAll(dir) }
	remove()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, device.Failf(qgjob.CauseHostFailed, "the build cannot be unpacked: %w", err)
	}
	if simulator {
		app, err = unzip(build, dir)
	} else {
		app = filepath.Join(dir, "app.ipa")
		err = os.Symlink(build, app)
	}
	if err != nil {
		remove()
		if _, ok := errors.AsType[*device.Failure](err); ok {
			return "", nil, err
		}
		return "", nil, device.Failf(qgjob.CauseHostFailed, "the build cannot be unpacked: %w", err)
	}
	return app, remove, nil
}

// unzip unpacks an archive and returns the app's directory in it.
func unzip(file, dir string) (string, error) {
	archive, err := zip.OpenReader(file)
	if err != nil {
		return "", device.Failf(qgjob.CauseBadBuild, "build %s is no zip archive: %w", file, err)
	}
	defer archive.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	links := map[string]bool{}
	left := int64(maxUnpacked)
	for _, f := range archive.File {
		if strings.HasSuffix(f.Name, "/") || strings.HasPrefix(f.Name, "__MACOSX/") {
			continue
		}
		if !filepath.IsLocal(f.Name) {
			return "", device.Failf(qgjob.CauseBadBuild, "build %s has a file outside of itself: %q", file, f.Name)
		}
		for parent := path.Dir(f.Name); parent != "."; parent = path.Dir(parent) {
			if links[parent] {
				return "", device.Failf(qgjob.CauseBadBuild, "build %s has a file behind a link: %q", file, f.Name)
			}
		}
		links[path.Clean(f.Name)] = f.Mode()&os.ModeSymlink != 0
		n, err := extract(root, f, filepath.FromSlash(f.Name), left)
		if err != nil {
			return "", err
		}
		if left -= n; left <= 0 {
			return "", device.Failf(qgjob.CauseBadBuild, "build %s has more than %d bytes", file, int64(maxUnpacked))
		}
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.app"))
	if err == nil && len(found) == 0 {
		found, err = filepath.Glob(filepath.Join(dir, "Payload", "*.app"))
	}
	if err != nil || len(found) != 1 {
		return "", device.Failf(qgjob.CauseBadBuild, "build %s holds %d apps", file, len(found))
	}
	return found[0], nil
}

// extract writes one file of an archive, or a link to another file of it.
func extract(root *os.Root, f *zip.File, to string, most int64) (int64, error) {
	if err := root.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return 0, err
	}
	from, err := f.Open()
	if err != nil {
		return 0, err
	}
	defer from.Close()
	if f.Mode()&os.ModeSymlink != 0 {
		target, err := io.ReadAll(io.LimitReader(from, 4096))
		if err == nil && (filepath.IsAbs(string(target)) || !filepath.IsLocal(filepath.Join(filepath.Dir(f.Name), string(target)))) {
			err = device.Failf(qgjob.CauseBadBuild, "the build has a link out of itself: %q", f.Name)
		}
		if err != nil {
			return 0, err
		}
		return 0, root.Symlink(string(target), to)
	}
	file, err := root.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, f.Mode().Perm()|0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(file, io.LimitReader(from, most))
	return n, errors.Join(err, file.Close())
}
