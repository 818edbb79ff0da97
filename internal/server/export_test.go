package server

import "context"

// Retain is what a server does every few minutes, when files have rested long enough.
func (s *Server) Retain(ctx context.Context, within Retention) error { return s.retain(ctx, within, 0) }
