package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"qgjob/internal/api"
	"qgjob/internal/build"
	"qgjob/internal/bundle"
)

// submitFiles are the files that travel with a submit.
type submitFiles struct {
	bundle, build api.File
	packed        []string // paths of the bundle
	file          *os.File // the packed bundle; it has no name, so that nothing is left of it however we end
}

func (f *submitFiles) addBuild(path string) error {
	info, err := build.Parse(path)
	if err != nil {
		return exitf(exitUsage, "--app: %v", err)
	}
	f.build = buildFile(path, info)
	return nil
}

func buildFile(path string, info build.Info) api.File {
	return api.File{SHA256: info.SHA256, Size: info.Size, Open: func() (io.ReadCloser, error) { return os.Open(path) }}
}

func (f *submitFiles) pack(ctx context.Context, dir string) (err error) {
	if f.file, err = os.CreateTemp("", "qgjob-bundle-*.tar.zst"); err != nil {
		return exitf(exitInfrastructure, "the test project cannot be packed: %v", err)
	}
	if err := os.Remove(f.file.Name()); err != nil {
		return exitf(exitInfrastructure, "the test project cannot be packed: %v", err)
	}
	sum, paths, err := bundle.Pack(ctx, dir, f.file)
	if err != nil {
		return interruptedOr(ctx, fmt.Errorf("the test project %s cannot be packed: %w", dir, err))
	}
	size, err := f.file.Seek(0, io.SeekEnd)
	switch {
	case err != nil:
		return exitf(exitInfrastructure, "the test project cannot be packed: %v", err)
	case size > api.MaxBundleSize:
		return exitf(exitUsage, "the test project %s packs to %d MB, at most %d are allowed: let .gitignore name what the tests do not need", dir, size>>20, api.MaxBundleSize>>20)
	}
	f.packed = paths
	f.bundle = api.File{SHA256: sum, Size: size, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(f.file, 0, size)), nil
	}}
	return nil
}

// upload sends what the server lacks.
func (f *submitFiles) upload(ctx context.Context, client *api.Client, r api.SubmitRequest) error {
	if f.bundle.SHA256 != "" {
		if _, err := client.EnsureBundle(ctx, r.OrgID, f.bundle); err != nil {
			return interruptedOr(ctx, fmt.Errorf("the test project cannot be uploaded: %w", err))
		}
	}
	if f.build.SHA256 != "" {
		if _, err := client.EnsureBuild(ctx, r.OrgID, r.AppVersionID, f.build); err != nil {
			return interruptedOr(ctx, fmt.Errorf("the build cannot be uploaded: %w", err))
		}
	}
	return nil
}

// interruptedOr is why the context ended, or err while it lives.
func interruptedOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// close gives the disk space of the bundle back.
func (f *submitFiles) close() {
	if f.file != nil {
		_ = f.file.Close() // it was only read
	}
}
