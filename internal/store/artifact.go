package store

import (
	"context"
	"slices"
	"time"

	"qgjob"
)

// MayAddArtifact says whether a token is the right to add artifacts to an attempt, and returns whose attempt it is.
// As with the log, one that its worker's result ended still takes them; one that the server ended does not.
func (s *Store) MayAddArtifact(ctx context.Context, attemptID, token string) (org string, err error) {
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		a, _, err := t.attemptOfLog(ctx, attemptID)
		if err != nil {
			return err
		}
		if a == nil || a.token != token || (a.outcome != "" && a.resultHash == "") {
			return leaseLost(attemptID)
		}
		org = a.org
		return nil
	})
	return org, err
}

// AddArtifact records a file that is in the blob store already. The same name again replaces the file.
func (s *Store) AddArtifact(ctx context.Context, attemptID, token, name, sha256 string, size int64) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		a, jobID, err := t.attemptOfLog(ctx, attemptID)
		if err != nil {
			return err
		}
		if a == nil || a.token != token || (a.outcome != "" && a.resultHash == "") {
			return leaseLost(attemptID)
		}
		return t.exec(ctx, `
			insert into artifacts (attempt_id, name, org_id, job_id, number, sha256, size_bytes, added_at_ms)
			values ($1, $2, $3, $4, $5, $6, $7, $8)
			on conflict (attempt_id, name) do update set sha256 = excluded.sha256, size_bytes = excluded.size_bytes`,
			a.id, name, a.org, jobID, a.number, sha256, size, t.now)
	})
}

const artifactColumns = `f.job_id, f.number, f.name, f.sha256, f.size_bytes, f.added_at_ms`

func scanArtifact(row scanner) (a qgjob.Artifact, err error) {
	var added int64
	err = row.Scan(&a.JobID, &a.Attempt, &a.Name, &a.SHA256, &a.Size, &added)
	a.AddedAt = at(added)
	return a, err
}

// Artifacts lists what the attempts of a job left, by attempt and name, and whose job it is.
func (s *Store) Artifacts(ctx context.Context, org, jobID string) (owner string, list []qgjob.Artifact, err error) {
	err = s.snapshot(ctx, func(query queryFunc) error {
		j, err := readJob(query, org, jobID)
		if err != nil {
			return err
		}
		owner = j.OrgID
		return query(func(row scanner) error {
			a, err := scanArtifact(row)
			list = append(list, a)
			return err
		}, `select `+artifactColumns+` from artifacts f where f.job_id = $1 order by f.number, f.name`, jobID)
	})
	return owner, list, err
}

// ArtifactPage bounds what ForgetArtifacts forgets at once.
const ArtifactPage = 500

// ForgetArtifacts forgets artifacts that are older than keep, and the oldest of each organization that has more
// than limit bytes of them; zero keep or limit is no bound. It returns the files that no artifact names any more,
// by organization, for their removal; more says that there may be others to forget.
func (s *Store) ForgetArtifacts(ctx context.Context, keep time.Duration, limit int64) (unused map[string][]string, more bool, err error) {
	type file struct{ org, attempt, name, sha string }
	unused = map[string][]string{}
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		var doomed []file
		collect := func(text string, args ...any) error {
			return t.query(ctx, func(row scanner) error {
				var f file
				err := row.Scan(&f.org, &f.attempt, &f.name, &f.sha)
				doomed = append(doomed, f)
				return err
			}, text, args...)
		}
		if keep > 0 {
			if err := collect(`select org_id, attempt_id, name, sha256 from artifacts where added_at_ms < $1 limit $2`, t.now-keep.Milliseconds(), ArtifactPage); err != nil {
				return err
			}
		}
		if limit > 0 && len(doomed) == 0 {
			// Counted from the newest on: what comes after the limit is too much.
			err := collect(`
				select org_id, attempt_id, name, sha256 from (
					select org_id, attempt_id, name, sha256, added_at_ms,
						sum(size_bytes) over (partition by org_id order by added_at_ms desc, attempt_id desc, name desc) as total
					from artifacts) sized
				where total > $1 order by added_at_ms limit $2`, limit, ArtifactPage)
			if err != nil {
				return err
			}
		}
		more = len(doomed) == ArtifactPage
		for _, f := range doomed {
			if err := t.exec(ctx, `delete from artifacts where attempt_id = $1 and name = $2`, f.attempt, f.name); err != nil {
				return err
			}
		}
		for _, f := range doomed {
			named := 0
			err := t.row(ctx, func(row scanner) error { return row.Scan(&named) },
				`select count(*) from artifacts where org_id = $1 and sha256 = $2`, f.org, f.sha)
			if err != nil {
				return err
			}
			if named == 0 && !slices.Contains(unused[f.org], f.sha) {
				unused[f.org] = append(unused[f.org], f.sha)
			}
		}
		return nil
	})
	return unused, more, err
}
