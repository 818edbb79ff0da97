package server

import (
	"context"
	"time"
)

// Retain is what a server does every few minutes.
func (s *Server) Retain(ctx context.Context, within Retention, rest time.Duration) error {
	return s.retain(ctx, within, rest)
}
