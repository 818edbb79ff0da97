package api

import (
	"context"
	"net/http"

	"qgjob"
)

// HoldDevice lets a device take no more work.
func (c *Client) HoldDevice(ctx context.Context, deviceID string, r HoldRequest) error {
	return c.call(ctx, request{method: http.MethodPost, path: "/v1/devices/" + escape(deviceID) + "/hold", in: r}, nil)
}

// ReleaseDevice ends a device's hold, or only one of the given kinds: then it is no error that there is none.
func (c *Client) ReleaseDevice(ctx context.Context, deviceID string, only ...qgjob.HoldKind) error {
	return c.call(ctx, request{method: http.MethodPost, path: "/v1/devices/" + escape(deviceID) + "/release", in: ReleaseDeviceRequest{Only: only}}, nil)
}
