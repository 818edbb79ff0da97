package server

import (
	"context"
	"strings"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/blob"
	"qgjob/internal/build"
	"qgjob/internal/store"
)

type buildInput struct {
	SHA256       string `path:"sha256" doc:"SHA-256 of the file in lower-case hexadecimal"`
	OrgID        string `query:"org_id" required:"true" doc:"organization"`
	AppVersionID string `query:"app_version_id" required:"true" doc:"app version that the build is one of"`
}

// buildKey is the key of a build that a request names, when whoever makes the request may use it.
func buildKey(ctx context.Context, org, appVersion, sha256 string) (blob.Key, error) {
	key, err := fileKey(ctx, org, blob.Build, sha256)
	if err != nil {
		return blob.Key{}, err
	}
	return key, qgjob.CheckID("app_version_id", appVersion)
}

// known refuses a file of the organization that is not a build of the app version.
func (s *Server) known(ctx context.Context, in *buildInput) (blob.Key, error) {
	key, err := buildKey(ctx, in.OrgID, in.AppVersionID, in.SHA256)
	if err != nil {
		return blob.Key{}, err
	}
	builds, err := s.store.Builds(ctx, in.OrgID, in.AppVersionID)
	if err != nil {
		return blob.Key{}, err
	}
	for _, b := range builds {
		if b.SHA256 == in.SHA256 {
			return key, nil
		}
	}
	return blob.Key{}, qgjob.Errorf(qgjob.CodeNotFound, "app version %s of organization %s has no build %s, or it was removed after nobody had used it for long: upload it first", in.AppVersionID, in.OrgID, in.SHA256)
}

type buildsInput struct {
	OrgID        string `query:"org_id" required:"true" doc:"organization"`
	AppVersionID string `query:"app_version_id" required:"true" doc:"app version"`
}

type buildsOutput struct {
	Body api.BuildList
}

func (s *Server) builds(ctx context.Context, in *buildsInput) (*buildsOutput, error) {
	if err := principalOf(ctx).mayUse(in.OrgID); err != nil {
		return nil, err
	}
	if err := qgjob.CheckID("app_version_id", in.AppVersionID); err != nil {
		return nil, err
	}
	builds, err := s.store.Builds(ctx, in.OrgID, in.AppVersionID)
	if err != nil {
		return nil, err
	}
	out := &buildsOutput{Body: api.BuildList{Builds: make([]api.Build, len(builds))}}
	for i, b := range builds {
		out.Body.Builds[i] = api.Build{
			SHA256: b.SHA256, Platform: b.Platform, Package: b.Package, VersionName: b.VersionName, VersionCode: b.VersionCode, Size: b.Size, AddedAt: b.AddedAt,
		}
	}
	return out, nil
}

func (s *Server) hasBuild(ctx context.Context, in *buildInput) (*fileOutput, error) {
	key, err := s.known(ctx, in)
	if err != nil {
		return nil, err
	}
	return s.hasUpload(ctx, key)
}

type readBuildInput struct {
	SHA256       string `path:"sha256" doc:"SHA-256 of the file in lower-case hexadecimal"`
	OrgID        string `query:"org_id" required:"true" doc:"organization"`
	AppVersionID string `query:"app_version_id" required:"true" doc:"app version that the build is one of"`
	Token        string `header:"Qgjob-Lease-Token" maxLength:"128" doc:"of a lease on a job with this build: a worker's token needs it"`
}

func (s *Server) buildFile(ctx context.Context, in *readBuildInput) (*streamOutput, error) {
	key, err := buildKey(ctx, in.OrgID, in.AppVersionID, in.SHA256)
	if err != nil {
		return nil, err
	}
	if err := s.mayRead(ctx, key, in.Token); err != nil {
		return nil, err
	}
	if _, err := s.known(ctx, &buildInput{SHA256: in.SHA256, OrgID: in.OrgID, AppVersionID: in.AppVersionID}); err != nil {
		return nil, err
	}
	return s.sendUpload(ctx, key)
}

type uploadBuildInput struct {
	SHA256       string `path:"sha256" doc:"SHA-256 of the file in lower-case hexadecimal"`
	OrgID        string `query:"org_id" required:"true" doc:"organization"`
	AppVersionID string `query:"app_version_id" required:"true" doc:"app version that the build is one of"`
	upstream
}

func (s *Server) uploadBuild(ctx context.Context, in *uploadBuildInput) (*storedOutput, error) {
	key, err := buildKey(ctx, in.OrgID, in.AppVersionID, in.SHA256)
	if err != nil {
		return nil, err
	}
	if err := in.fits("build", api.MaxBuildSize); err != nil {
		return nil, err
	}
	up, key, err := s.beginUpload(ctx, key)
	if err != nil {
		return nil, err
	}
	var app build.Info
	info, err := s.blobs.Put(ctx, key, in.body, api.MaxBuildSize, func(path string) (err error) {
		app, err = readBuild(path)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = s.store.AddBuild(ctx, store.Build{
		OrgID: in.OrgID, AppVersionID: in.AppVersionID, SHA256: key.SHA256, Copy: up.Copy, Size: info.Size,
		Platform: app.Platform, MinOS: app.MinOS, ABIs: app.ABIs, Kind: app.Kind(), Package: app.Package, VersionName: app.VersionName, VersionCode: app.VersionCode,
	})
	if err != nil {
		return nil, err
	}
	return &storedOutput{Body: api.BlobStored{SHA256: key.SHA256, Size: info.Size}}, nil
}

// readBuild reads what an uploaded build says about itself, or refuses it: better here, with the reason,
// than on every device.
func readBuild(path string) (build.Info, error) {
	app, err := build.Parse(path)
	if err != nil {
		// The path is one of the server's own, and tells the client nothing.
		reason := strings.TrimPrefix(err.Error(), "build "+path+" ")
		return build.Info{}, qgjob.Errorf(qgjob.CodeInvalid, "the build %s; nothing was stored", reason)
	}
	return app, nil
}
