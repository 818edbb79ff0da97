package bundle

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"qgjob"
)

// Pack writes the bundle of the project in dir to w. It returns the bundle's address and the names of its
// files, relative to dir, with forward slashes, sorted.
func Pack(ctx context.Context, dir string, w io.Writer) (sha string, files []string, err error) {
	if files, err = list(ctx, dir); err != nil {
		return "", nil, err
	}
	switch {
	case len(files) == 0:
		return "", nil, qgjob.Errorf(qgjob.CodeInvalid, "the directory %s holds no file that git does not ignore: submit from the test project's directory", dir)
	case len(files) > MaxFiles:
		return "", nil, tooManyFiles()
	}
	sum := sha256.New()
	// One goroutine and one level: the bytes depend on nothing but the input.
	compressor, err := zstd.NewWriter(io.MultiWriter(w, sum), zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return "", nil, err
	}
	archive := tar.NewWriter(compressor)
	var total int64
	for _, name := range files {
		if err := ctx.Err(); err != nil {
			return "", nil, context.Cause(ctx)
		}
		size, err := add(archive, dir, name)
		if err != nil {
			return "", nil, err
		}
		if total += size; total > MaxBytes {
			return "", nil, tooManyBytes()
		}
	}
	if err := errors.Join(archive.Close(), compressor.Close()); err != nil {
		return "", nil, fmt.Errorf("write the bundle: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), files, nil
}

func add(archive *tar.Writer, dir, name string) (size int64, err error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	path := filepath.Join(dir, filepath.FromSlash(name))
	info, err := os.Lstat(path)
	if err != nil {
		return 0, fmt.Errorf("pack %s: %w", name, err)
	}
	if info.Mode().Type() == fs.ModeSymlink {
		target, err := os.Readlink(path)
		if err != nil {
			return 0, fmt.Errorf("pack %s: %w", name, err)
		}
		target = filepath.ToSlash(target)
		if err := checkLink(name, target); err != nil {
			return 0, err
		}
		return 0, archive.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777})
	}
	file, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("pack %s: %w", name, err)
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return 0, fmt.Errorf("pack %s: %w", name, err)
	}
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: mode(info.Mode())}); err != nil {
		return 0, fmt.Errorf("pack %s: %w", name, err)
	}
	if n, err := io.Copy(archive, file); err != nil || n != info.Size() {
		return 0, fmt.Errorf("pack %s: it changed while it was read: %w", name, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return info.Size(), nil
}

// mode keeps of a file's permissions that it may be executed.
func mode(m fs.FileMode) int64 {
	if m&0o100 != 0 {
		return 0o755
	}
	return 0o644
}
