package store

import (
	"bytes"
	"strings"
	"testing"

	"qgjob"
)

func readLog(t *testing.T, q *queue, jobID string, attempt, limit int) (string, bool) {
	t.Helper()
	var all []byte
	for {
		page, err := q.Log(t.Context(), "", jobID, attempt, int64(len(all)), limit)
		must(t, page, err)
		if len(page.Data) > limit {
			t.Fatalf("%d bytes, asked for %d", len(page.Data), limit)
		}
		all = append(all, page.Data...)
		if page.End || len(page.Data) == 0 {
			return string(all), page.End
		}
	}
}

func TestLog(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		j := q.submit("v1", "tests/a.spec.js")[0]
		if page := first(q.Log(ctx, "acme", j.ID, 0, 0, 10)); page.End || page.Attempt != 0 {
			t.Fatalf("the log of a queued job: %+v", page)
		}
		q.worker("w1", "p1")
		a := q.one("w1", "p1")
		grown := q.Subscribe(TopicLog(j.ID))
		defer grown.Close()
		for _, c := range []struct {
			offset int64
			chunk  string
			size   int64
			code   qgjob.Code
		}{
			{0, "hello ", 6, ""},
			{0, "hello ", 6, ""},
			{3, "lo world", 11, ""},
			{20, "gap", 11, qgjob.CodeConflict},
			{-1, "x", 11, qgjob.CodeConflict},
			{11, "", 11, ""},
			{11, "!\x00\xff", 14, ""},
		} {
			size, err := q.AppendLog(ctx, a.AttemptID, a.Token, c.offset, []byte(c.chunk))
			if size != c.size || qgjob.ErrorCode(err) != c.code {
				t.Fatalf("append %q at %d: size %d, %v; want %d, %q", c.chunk, c.offset, size, err, c.size, c.code)
			}
		}
		<-grown.C
		for _, limit := range []int{1, 4, 100} {
			if got, end := readLog(t, q, j.ID, 0, limit); got != "hello world!\x00\xff" || end {
				t.Fatalf("by %d: %q, end %v", limit, got, end)
			}
		}
		_, err := q.AppendLog(ctx, a.AttemptID, "1.made-up", 14, []byte("x"))
		wantCode(t, err, qgjob.CodeLeaseLost)
		q.report("w1", a.Lease, failed)
		if size, err := q.AppendLog(ctx, a.AttemptID, a.Token, 14, []byte("tail")); err != nil || size != 18 {
			t.Fatalf("the rest of an ended attempt's log: %d, %v", size, err)
		}
		b := q.one("w1", "p1")
		must(t, int64(0), second(q.AppendLog(ctx, b.AttemptID, b.Token, 0, []byte("second"))))
		if got, end := readLog(t, q, j.ID, 1, 5); got != "hello world!\x00\xfftail" || !end {
			t.Fatalf("%q, end %v", got, end)
		}
		if got, end := readLog(t, q, j.ID, 0, 100); got != "second" || end {
			t.Fatalf("%q, end %v", got, end)
		}
		_, err = q.Log(ctx, "acme", j.ID, 7, 0, 10)
		wantCode(t, err, qgjob.CodeNotFound)
		q.advance(DefaultLease)
		first(q.Reap(ctx))
		_, err = q.AppendLog(ctx, b.AttemptID, b.Token, 6, []byte("late"))
		wantCode(t, err, qgjob.CodeLeaseLost)
	})
}

func TestLogIsLimited(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.maxLog = 10
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1")
		a := q.one("w1", "p1")
		var offset int64
		for range 5 {
			size, err := q.AppendLog(t.Context(), a.AttemptID, a.Token, offset, bytes.Repeat([]byte("x"), 4))
			if err != nil || size != offset+4 {
				t.Fatalf("at %d: %d, %v", offset, size, err)
			}
			offset = size
		}
		got, _ := readLog(t, q, j.ID, 0, 7)
		if !strings.HasPrefix(got, "xxxxxxxxxx\n[") || strings.Count(got, "dropped") != 1 || strings.Count(got, "x") != 10 {
			t.Fatalf("log %q: want 10 bytes and one note", got)
		}
	})
}

func TestALogKeepsItsLeaseAlive(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.submit("v1", "tests/a.spec.js")
		q.worker("w1", "p1")
		a := q.one("w1", "p1")
		q.advance(DefaultLease / 2)
		must(t, int64(0), second(q.AppendLog(t.Context(), a.AttemptID, a.Token, 0, []byte("x"))))
		q.advance(DefaultLease * 3 / 4)
		if n := first(q.Reap(t.Context())); n != 0 {
			t.Fatal("an attempt whose log grows was lost")
		}
		q.advance(DefaultLease)
		first(q.Reap(t.Context()))
		if got := q.job(a.Job.ID).Attempts[0].Cause; got != qgjob.CauseLeaseExpired {
			t.Fatalf("cause %s: the log showed that the worker had it", got)
		}
	})
}
