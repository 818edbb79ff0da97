package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"qgjob"
)

// AppendLog adds to an attempt's log. offset is where chunk starts in the whole log; what is known already
// is skipped, a gap is CodeConflict. size is where the next chunk starts, also on CodeConflict. An attempt
// that its worker's result ended still takes the rest of its log; one that the server ended does not.
func (s *Store) AppendLog(ctx context.Context, attemptID, token string, offset int64, chunk []byte) (size int64, err error) {
	err = s.writer.do(ctx, single, func(ctx context.Context, t *tx) error {
		a, jobID, err := t.attemptToAddTo(ctx, attemptID, token)
		if err != nil {
			return err
		}
		size = a.logReceived
		if offset < 0 || offset > size {
			return qgjob.Errorf(qgjob.CodeConflict, "the log of attempt %s has %d bytes, the chunk starts at %d: send what lies between", attemptID, size, offset)
		}
		known := min(size-offset, int64(len(chunk)))
		fresh := chunk[known:]
		size += int64(len(fresh))
		if kept := t.keep(a.logReceived, fresh, s.maxLog); len(kept) > 0 {
			err := t.exec(ctx, `insert into log_chunks (attempt_id, start_byte, org_id, data) values ($1, $2, $3, $4)`, a.id, a.logReceived, a.org, kept)
			if err != nil {
				return err
			}
			t.publish(TopicLog(jobID))
		}
		if a.outcome != "" {
			return t.exec(ctx, `update attempts set log_received = $2 where id = $1`, a.id, size)
		}
		t.renew(a.lease(), a.worker)
		a.logReceived = size
		t.attempts[a] = struct{}{}
		return nil
	}, 1+len(chunk)/bytesPerRow)
	return size, err
}

// attemptToAddTo finds the attempt, open or ended, to whose log and artifacts a token is the right to add, and the id of its job. One
// that its worker's result ended still takes them; one that the server ended does not.
func (t *tx) attemptToAddTo(ctx context.Context, id, token string) (a *attempt, jobID string, err error) {
	a, jobID, err = t.attemptAndJob(ctx, id)
	if err == nil && (a == nil || a.token != token || a.outcome != "" && a.resultHash == "") {
		err = leaseLost(id)
	}
	return a, jobID, err
}

// attemptAndJob finds an attempt, open or ended, and the id of its job; nil when there is none.
func (t *tx) attemptAndJob(ctx context.Context, id string) (*attempt, string, error) {
	if a := t.b.open[id]; a != nil {
		return a, a.job.ID, nil
	}
	if err := t.flush(ctx); err != nil {
		return nil, "", err
	}
	a := &attempt{}
	var jobID string
	err := t.row(ctx, func(row scanner) error { return row.Scan(append(a.columns(), &jobID)...) },
		`select `+attemptColumns+`, j.id from attempts a, jobs j where a.id = $1 and j.seq = a.job_seq`, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, "", nil
	}
	return a, jobID, err
}

// bytesPerRow is how many bytes of a log weigh as much in a transaction as a row.
const bytesPerRow = 1 << 10

// keep returns what of a chunk is kept of a log that has the given size. The chunk that goes over the limit
// ends in a note.
func (t *tx) keep(size int64, chunk []byte, limit int64) []byte {
	if size+int64(len(chunk)) <= limit {
		return chunk
	}
	if size > limit {
		return nil
	}
	note := fmt.Sprintf("\n[qgjob keeps %d bytes of a log; the rest was dropped]\n", limit)
	return append(append([]byte(nil), chunk[:limit-size]...), note...)
}

var selectLogged = newByJob(`select id, number, outcome from attempts where {job} and ($2 = 0 or number = $2)`)

// Log reads an attempt's log (attempt 0 is the newest) from a byte offset.
func (s *Store) Log(ctx context.Context, org, jobID string, attempt int, offset int64, limit int) (LogPage, error) {
	var page LogPage
	err := s.snapshot(ctx, func(query queryFunc) error {
		j, err := readJob(query, org, jobID)
		if err != nil {
			return err
		}
		page.End = j.State.IsVerdict()
		var id string
		err = selectLogged.read(query, j, func(row scanner) error {
			var outcome qgjob.Outcome
			err := row.Scan(&id, &page.Attempt, &outcome)
			page.End = outcome != ""
			return err
		}, attempt)
		if err != nil {
			return err
		}
		if id == "" && attempt != 0 {
			return qgjob.Errorf(qgjob.CodeNotFound, "job %s has no attempt %d", jobID, attempt)
		}
		more, err := page.read(query, id, offset, limit)
		page.End = page.End && !more
		return err
	})
	return page, err
}

// read fills the page from the chunks that overlap it, and says whether there is more after it.
func (p *LogPage) read(query queryFunc, attemptID string, offset int64, limit int) (more bool, err error) {
	err = query(func(row scanner) error {
		var start int64
		var data []byte
		if err := row.Scan(&start, &data); err != nil {
			return err
		}
		if more {
			return nil
		}
		from := offset + int64(len(p.Data)) - start
		if from >= int64(len(data)) {
			return nil
		}
		data = data[from:]
		if room := limit - len(p.Data); len(data) > room {
			data, more = data[:room], true
		}
		p.Data = append(p.Data, data...)
		return nil
	}, `
		select start_byte, data from log_chunks
		where attempt_id = $1 and start_byte < $3
			and start_byte >= coalesce((select max(start_byte) from log_chunks where attempt_id = $1 and start_byte <= $2), 0)
		order by start_byte`, attemptID, offset, offset+int64(limit)+1)
	return more, err
}
