package store

import (
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"qgjob"
)

// What clients are told of a database error. What the database said names hosts and users: it is for logs.
const (
	databaseAway    = "the database does not answer: try again later"
	databaseBusy    = "the database cannot take it now: try again later"
	databaseRefused = "the database refused a statement"
)

// dialect is everything in which the two databases differ, apart from how they are opened.
type dialect struct {
	kind      string
	clock     string            // selects the milliseconds since 1970
	snapshot  *sql.TxOptions    // for several reads of one moment
	words     *strings.Replacer // of the migrations
	setwise   bool              // a bulk statement takes all its rows at once
	translate func(error) error // gives a database error its qgjob code
}

// A bulk is one statement over many rows, written once for both databases. SQLite runs it prepared, row by row.
// PostgreSQL gets all the rows as arrays in one round trip, and a row that is alone as SQLite does: it makes a table
// of every array first, which costs more than the row. In its text
//
//	{1}       is the row's first value (a parameter, or a column of unnest)
//	{values}  is what an insert inserts
//	{from}    is an update's from clause, empty for one row
//	{from,}   begins the from clause of a select or of an update that has one anyway
//	{lateral} is what lets a subquery of that clause use the row, empty for one row
//	{using}   is a delete's using clause, empty for one row
//
// kinds tells the values' types: t text, i integer, b boolean.
type bulk struct {
	text  string
	kinds string

	once      sync.Once
	row, rows string // the statement for one row, and for many
}

func newBulk(kinds, text string) *bulk { return &bulk{text: text, kinds: kinds} }

var pgTypes = map[byte]string{'t': "text", 'i': "bigint", 'b': "boolean"}

func (b *bulk) render() {
	b.once.Do(func() {
		var row, rows []string
		var params, arrays, names []string
		for i := range len(b.kinds) {
			n := strconv.Itoa(i + 1)
			params = append(params, "$"+n)
			arrays = append(arrays, "$"+n+"::"+pgTypes[b.kinds[i]]+"[]")
			names = append(names, "c"+n)
			row = append(row, "{"+n+"}", "$"+n)
			rows = append(rows, "{"+n+"}", "v.c"+n)
		}
		unnest := "unnest(" + strings.Join(arrays, ", ") + ")"
		row = append(row, "{lateral}", "", "{values}", "values ("+strings.Join(params, ", ")+")", "{from,}", "from", "{from}", "", "{using}", "")
		from := "from " + unnest + " as v(" + strings.Join(names, ", ") + ")"
		rows = append(rows, "{lateral}", "lateral", "{values}", "select * from "+unnest, "{from,}", from+",", "{from}", from, "{using}", "using "+from[len("from "):])
		b.row, b.rows = strings.NewReplacer(row...).Replace(b.text), strings.NewReplacer(rows...).Replace(b.text)
	})
}

// forRow is the statement for one row, whose parameters are the row's values.
func (b *bulk) forRow() string {
	b.render()
	return b.row
}

// forRows is PostgreSQL's statement for rows, with its parameters.
func (b *bulk) forRows(rows [][]any) (text string, args []any) {
	b.render()
	if len(rows) == 1 {
		return b.row, values(rows[0])
	}
	return b.rows, b.arrays(rows)
}

// arrays turns rows into one array a column.
func (b *bulk) arrays(rows [][]any) []any {
	columns := make([]any, len(b.kinds))
	for i := range len(b.kinds) {
		switch b.kinds[i] {
		case 't':
			columns[i] = column(rows, i, text)
		case 'i':
			columns[i] = column(rows, i, integer)
		default:
			columns[i] = column(rows, i, func(v any) bool { return v.(bool) })
		}
	}
	return columns
}

func column[T any](rows [][]any, i int, as func(any) T) []T {
	c := make([]T, len(rows))
	for n, row := range rows {
		c[n] = as(row[i])
	}
	return c
}

// values converts one row for a statement of its own.
func values(row []any) []any {
	out := make([]any, len(row))
	for i, v := range row {
		switch v := v.(type) {
		case bool, []byte, int64:
			out[i] = v
		case int:
			out[i] = int64(v)
		default:
			out[i] = text(v)
		}
	}
	return out
}

func integer(v any) int64 {
	switch v := v.(type) {
	case int:
		return int64(v)
	case int64:
		return v
	}
	panic(fmt.Sprintf("store: %T is no integer of a statement", v))
}

// text returns a value of any of the vocabulary's string types as the databases can hold it: valid UTF-8
// without NUL, which PostgreSQL has no room for.
func text(v any) string {
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case qgjob.JobState:
		s = string(v)
	case qgjob.Target:
		s = string(v)
	case qgjob.Trigger:
		s = string(v)
	case qgjob.Outcome:
		s = string(v)
	case qgjob.Cause:
		s = string(v)
	case qgjob.DeviceState:
		s = string(v)
	case qgjob.HoldKind:
		s = string(v)
	case qgjob.Video:
		s = string(v)
	default:
		panic(fmt.Sprintf("store: %T is no text of a statement", v))
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	return s
}

// words are those that commas join in a column.
func words(joined string) []string {
	if joined == "" {
		return nil
	}
	return strings.Split(joined, ",")
}

// textOf is where a text goes that is read into one of the vocabulary's string types.
func textOf(dest any) (*string, error) {
	switch d := dest.(type) {
	case *qgjob.JobState:
		return (*string)(d), nil
	case *qgjob.Target:
		return (*string)(d), nil
	case *qgjob.Trigger:
		return (*string)(d), nil
	case *qgjob.Outcome:
		return (*string)(d), nil
	case *qgjob.Cause:
		return (*string)(d), nil
	case *qgjob.DeviceState:
		return (*string)(d), nil
	case *qgjob.HoldKind:
		return (*string)(d), nil
	case *qgjob.Video:
		return (*string)(d), nil
	}
	return nil, fmt.Errorf("store: no text is read into %T", dest)
}
