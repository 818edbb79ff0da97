package server

import (
	"context"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/blob"
	"qgjob/internal/store"
)

type buildInput struct {
	bundleInput
	AppVersionID string `query:"app_version_id" required:"true" doc:"app version that the build is one of"`
}

func (in *buildInput) key(ctx context.Context) (blob.Key, error) {
	key, err := in.bundleInput.key(ctx)
	if err != nil {
		return blob.Key{}, err
	}
	key.Kind = blob.Build
	return key, qgjob.CheckID("app_version_id", in.AppVersionID)
}

// known refuses a file of the organization that is not a build of the app version.
func (s *Server) known(ctx context.Context, in *buildInput) (blob.Key, error) {
	key, err := in.key(ctx)
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
	return blob.Key{}, qgjob.Errorf(qgjob.CodeNotFound, "app version %s of organization %s has no build %s: upload it first", in.AppVersionID, in.OrgID, in.SHA256)
}

func (s *Server) hasBuild(ctx context.Context, in *buildInput) (*fileOutput, error) {
	key, err := s.known(ctx, in)
	if err != nil {
		return nil, err
	}
	return s.statFile(ctx, key)
}

func (s *Server) build(ctx context.Context, in *buildInput) (*streamOutput, error) {
	key, err := s.known(ctx, in)
	if err != nil {
		return nil, err
	}
	return s.sendFile(ctx, key)
}

type uploadBuildInput struct {
	buildInput
	upstream
}

func (s *Server) uploadBuild(ctx context.Context, in *uploadBuildInput) (*storedOutput, error) {
	key, err := in.key(ctx)
	if err != nil {
		return nil, err
	}
	if err := in.fits("build", api.MaxBuildSize); err != nil {
		return nil, err
	}
	info, err := s.blobs.Put(ctx, key, in.body, api.MaxBuildSize, nil)
	if err != nil {
		return nil, err
	}
	err = s.store.AddBuild(ctx, store.Build{
		OrgID: in.OrgID, AppVersionID: in.AppVersionID, SHA256: key.SHA256, Platform: "android", Size: info.Size,
	})
	if err != nil {
		return nil, err
	}
	return &storedOutput{Body: api.BlobStored{SHA256: key.SHA256, Size: info.Size}}, nil
}
