package cli

import (
	"log/slog"
	"time"

	"github.com/lmittmann/tint"
)

// logger writes to stderr: for people on a terminal, as key=value elsewhere.
func (p *program) logger() *slog.Logger {
	if f, ok := p.terminalFile(p.stderr); ok {
		return slog.New(tint.NewTextHandler(f, &tint.Options{Level: p.logLevel, TimeFormat: time.TimeOnly, NoColor: p.env("NO_COLOR") != ""}))
	}
	return slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: p.logLevel}))
}
