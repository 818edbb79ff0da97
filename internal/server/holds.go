package server

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"qgjob"
	"qgjob/internal/api"
)

func (s *Server) holdRoutes(a huma.API) {
	handle(s, a, workers, operation("holdDevice", http.MethodPost, "/v1/devices/{id}/hold", tagQueue, "Let a device take no more work",
		"What runs on it ends as usual. Its worker hears of it with its next heartbeat; a check makes the worker find out whether the device is well."), s.holdDevice)
	handle(s, a, workers, operation("releaseDevice", http.MethodPost, "/v1/devices/{id}/release", tagQueue, "Let a held device take work again", ""), s.releaseDevice)
}

type holdInput struct {
	ID   string `path:"id" maxLength:"255" doc:"of the device"`
	Body api.HoldRequest
}

func (s *Server) holdDevice(ctx context.Context, in *holdInput) (*struct{}, error) {
	return nil, s.store.HoldDevice(ctx, in.ID, in.Body.Kind, in.Body.Reason, time.Duration(in.Body.ForMS)*time.Millisecond)
}

type releaseDeviceInput struct {
	ID   string `path:"id" maxLength:"255" doc:"of the device"`
	Body api.ReleaseDeviceRequest
}

func (s *Server) releaseDevice(ctx context.Context, in *releaseDeviceInput) (*struct{}, error) {
	released, err := s.store.ReleaseDevice(ctx, in.ID, in.Body.Only...)
	if err == nil && !released && len(in.Body.Only) == 0 {
		err = qgjob.Errorf(qgjob.CodeNotFound, "device %s is not held: see qgjob devices", in.ID)
	}
	return nil, err
}

// holdsOf are the holds of the devices that a worker reports.
func (s *Server) holdsOf(ctx context.Context, devices []api.DeviceReport) ([]api.DeviceHold, error) {
	all, err := s.store.Holds(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	holds := []api.DeviceHold{}
	for _, d := range devices {
		if h, held := all[d.ID]; held {
			holds = append(holds, api.DeviceHold{DeviceID: d.ID, Hold: h})
		}
	}
	return holds, nil
}
