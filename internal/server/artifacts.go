package server

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/blob"
)

func (s *Server) artifactRoutes(a huma.API) {
	add := upload("addArtifact", "/v1/attempts/{id}/artifacts/{name}", "Add a file to what an attempt leaves",
		"Stored when its SHA-256 is the one that is told. The same name again replaces the file.")
	add.Tags = []string{tagWorkers}
	handle(s, a, workers, add, s.addArtifact)
	handle(s, a, clients, operation("artifacts", http.MethodGet, "/v1/jobs/{id}/artifacts", tagRuns, "What the attempts of a job left", ""), s.artifacts)
	get := download("artifact", "/v1/jobs/{id}/artifacts/{attempt}/{name}", "Download a file that an attempt left")
	get.Tags = []string{tagRuns}
	handle(s, a, clients, get, s.artifact)
}

type addArtifactInput struct {
	ID     string `path:"id" doc:"UUID of the attempt"`
	Name   string `path:"name" maxLength:"100"`
	SHA256 string `query:"sha256" required:"true" doc:"SHA-256 of the file in lower-case hexadecimal"`
	Token  string `header:"Qgjob-Lease-Token" required:"true" maxLength:"128"`
	upstream
}

func (s *Server) addArtifact(ctx context.Context, in *addArtifactInput) (*storedOutput, error) {
	id, err := parseUUID("attempt", in.ID)
	if err != nil {
		return nil, err
	}
	if err := qgjob.CheckArtifactName(in.Name); err != nil {
		return nil, err
	}
	if err := qgjob.CheckSHA256("sha256", in.SHA256); err != nil {
		return nil, err
	}
	if err := in.fits("artifact", api.MaxArtifact); err != nil {
		return nil, err
	}
	org, err := s.store.MayAddArtifact(ctx, id, in.Token, in.SHA256)
	if err != nil {
		return nil, err
	}
	info, err := s.blobs.Put(ctx, blob.Key{OrgID: org, Kind: blob.Artifact, SHA256: in.SHA256}, in.body, api.MaxArtifact, nil)
	if err != nil {
		return nil, err
	}
	if err := s.store.AddArtifact(ctx, id, in.Token, in.Name, in.SHA256, info.Size); err != nil {
		return nil, err
	}
	return &storedOutput{Body: api.BlobStored{SHA256: in.SHA256, Size: info.Size}}, nil
}

type artifactsOutput struct {
	Body api.ArtifactList
}

func (s *Server) artifacts(ctx context.Context, in *jobInput) (*artifactsOutput, error) {
	id, err := parseUUID("job", in.ID)
	if err != nil {
		return nil, err
	}
	_, found, err := s.store.Artifacts(ctx, principalOf(ctx).OrgID, id)
	if err != nil {
		return nil, err
	}
	return &artifactsOutput{Body: api.ArtifactList{Artifacts: list(found)}}, nil
}

type artifactInput struct {
	ID      string `path:"id" doc:"UUID of the job"`
	Attempt int    `path:"attempt" minimum:"1" doc:"number of the attempt"`
	Name    string `path:"name" maxLength:"100"`
}

func (s *Server) artifact(ctx context.Context, in *artifactInput) (*streamOutput, error) {
	id, err := parseUUID("job", in.ID)
	if err != nil {
		return nil, err
	}
	org, found, err := s.store.Artifacts(ctx, principalOf(ctx).OrgID, id)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(found, func(a qgjob.Artifact) bool { return a.Attempt == in.Attempt && a.Name == in.Name })
	if i < 0 {
		return nil, qgjob.Errorf(qgjob.CodeNotFound, "attempt %d of job %s left no %q, or it is not kept any more", in.Attempt, id, in.Name)
	}
	return s.sendFile(ctx, blob.Key{OrgID: org, Kind: blob.Artifact, SHA256: found[i].SHA256})
}
