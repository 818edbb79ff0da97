package contest

// The contestants, as tables name them, in their order.
const (
	QgjobSQLite    = "qgjob on SQLite"
	QgjobPostgres  = "qgjob on PostgreSQL"
	InsideSQLite   = "qgjob in process, SQLite"
	InsidePostgres = "qgjob in process, PostgreSQL"
	RiverHTTPTuned = "River over HTTP, tuned"
	RiverHTTP      = "River over HTTP"
	RiverTuned     = "River in process, tuned"
	River          = "River in process"
	Bare           = "bare server on SQLite"
	SQLite         = "SQLite alone"
	Postgres       = "PostgreSQL alone"
)

// Names lists them all.
var Names = []string{QgjobSQLite, QgjobPostgres, InsideSQLite, InsidePostgres, RiverHTTPTuned, RiverHTTP, RiverTuned, River, Bare, SQLite, Postgres}
