package plain

import (
	"context"
	"os"
	"path/filepath"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/rig"
	"qgjob/bench/internal/thin"
)

// BareServer is the thin HTTP server over rows group-committed to SQLite, of the given kind.
func BareServer(name, kind string) contest.Contestant[contest.Inbox] {
	return contest.Contestant[contest.Inbox]{Name: name, Open: func(ctx context.Context, r *rig.Rig) (contest.Inbox, error) {
		dir, err := r.Dir()
		if err != nil {
			return nil, err
		}
		settle := func(context.Context) error { return nil }
		remove := func(context.Context) error { return os.RemoveAll(dir) }
		return thin.Host(ctx, r, kind, filepath.Join(dir, "bench.db"), settle, remove)
	}}
}
