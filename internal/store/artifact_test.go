package store

import (
	"strings"
	"testing"
	"time"
)

// What is too old goes first, and does not keep what is too much.
func TestArtifactsKeepBothBounds(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w1", "p1")
		q.submit("v1", "tests/a.spec.js")
		l := q.one("w1", "p1").Lease
		for i, name := range []string{"old", "big", "new"} {
			if i == 1 {
				q.advance(2 * time.Hour)
				q.worker("w1", "p1")
			}
			must(t, 0, q.AddArtifact(t.Context(), l.AttemptID, l.Token, name, strings.Repeat(string('a'+rune(i)), 64), 100))
			q.advance(time.Second)
		}
		rounds := 0
		for more := true; more && rounds < 10; rounds++ {
			var err error
			if more, err = q.ForgetArtifacts(t.Context(), time.Hour, 150); err != nil {
				t.Fatal(err)
			}
		}
		var left []string
		must(t, 0, q.query(t.Context(), func(row scanner) error {
			var name string
			err := row.Scan(&name)
			left = append(left, name)
			return err
		}, `select name from artifacts order by name`))
		if strings.Join(left, " ") != "new" {
			t.Errorf("after %d rounds stay %v", rounds, left)
		}
	})
}
