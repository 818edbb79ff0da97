package store

import "time"

// databaseTime is the database's clock when it was last read, and how long ago that was by this process's own.
type databaseTime struct {
	ms int64
	at time.Time
}

func newDatabaseTime(ms int64) databaseTime { return databaseTime{ms, time.Now()} }

func (t databaseTime) elapsed() time.Duration { return time.Since(t.at) }
