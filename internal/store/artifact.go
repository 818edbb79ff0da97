package store

import (
	"context"
	"time"

	"qgjob"
)

// MayAddArtifact says whether a token is the right to add artifacts to an attempt, and returns whose attempt it is. The file that
// is about to come is known from then on, whatever comes of its upload.
func (s *Store) MayAddArtifact(ctx context.Context, attemptID, token, sha256 string) (org string, err error) {
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		a, _, err := t.attemptToAddTo(ctx, attemptID, token)
		if err != nil {
			return err
		}
		org = a.org
		return t.unname(ctx, org, sha256)
	})
	return org, err
}

// AddArtifact records a file that is in the blob store already. The same name again replaces the file.
func (s *Store) AddArtifact(ctx context.Context, attemptID, token, name, sha256 string, size int64) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		a, jobID, err := t.attemptToAddTo(ctx, attemptID, token)
		if err != nil {
			return err
		}
		var replaced string
		var before int64
		err = t.query(ctx, func(row scanner) error { return row.Scan(&replaced, &before) },
			`select sha256, size_bytes from artifacts where attempt_id = $1 and name = $2`, a.id, name)
		if err != nil {
			return err
		}
		err = t.exec(ctx, `
			insert into artifacts (attempt_id, name, org_id, job_id, number, sha256, size_bytes, added_at_ms)
			values ($1, $2, $3, $4, $5, $6, $7, $8)
			on conflict (attempt_id, name) do update set sha256 = excluded.sha256, size_bytes = excluded.size_bytes`,
			a.id, name, a.org, jobID, a.number, sha256, size, t.now)
		if err != nil {
			return err
		}
		t.count(a.org, artifactBytes, size-before)
		if replaced != "" && replaced != sha256 {
			if err := t.unname(ctx, a.org, replaced); err != nil {
				return err
			}
		}
		return t.exec(ctx, `delete from unnamed_files where org_id = $1 and sha256 = $2`, a.org, sha256)
	})
}

// unname notes that a file may have no name, from now on.
func (t *tx) unname(ctx context.Context, org, sha256 string) error {
	return t.exec(ctx, `
		insert into unnamed_files (org_id, sha256, since_ms) values ($1, $2, $3)
		on conflict (org_id, sha256) do update set since_ms = excluded.since_ms`, org, sha256, t.now)
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

// ArtifactPage bounds what ForgetArtifacts forgets, and UnnamedFiles lists, at once.
const ArtifactPage = 500

// artifactRow is what is asked of an artifact that may be forgotten.
type artifactRow struct {
	org, attempt, name, sha256 string
	size                       int64
}

const selectForgettable = `select org_id, attempt_id, name, sha256, size_bytes from artifacts `

// ForgetArtifacts forgets artifacts that are older than keep, and the oldest of each organization that has more
// than limit bytes of them; zero keep or limit is no bound. more says that there may be others to forget. Their files are among
// the UnnamedFiles then.
func (s *Store) ForgetArtifacts(ctx context.Context, keep time.Duration, limit int64) (more bool, err error) {
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		var doomed []artifactRow
		collect := func(row scanner) error {
			var f artifactRow
			err := row.Scan(&f.org, &f.attempt, &f.name, &f.sha256, &f.size)
			doomed = append(doomed, f)
			return err
		}
		if keep > 0 {
			err := t.query(ctx, collect, selectForgettable+`where added_at_ms < $1 order by added_at_ms limit $2`, t.now-keep.Milliseconds(), ArtifactPage)
			if err != nil {
				return err
			}
		}
		byAge := len(doomed) > 0 // their size is looked at the next time
		if limit > 0 && !byAge {
			excess, err := t.excess(ctx, limit)
			if err != nil {
				return err
			}
			for org, bytes := range excess {
				err := t.query(ctx, func(row scanner) error {
					if bytes <= 0 || len(doomed) >= ArtifactPage {
						return nil
					}
					err := collect(row)
					bytes -= doomed[len(doomed)-1].size
					return err
				}, selectForgettable+`where org_id = $1 order by added_at_ms limit $2`, org, ArtifactPage)
				if err != nil {
					return err
				}
			}
		}
		more = len(doomed) >= ArtifactPage || byAge
		for _, f := range doomed {
			if err := t.exec(ctx, `delete from artifacts where attempt_id = $1 and name = $2`, f.attempt, f.name); err != nil {
				return err
			}
			if err := t.unname(ctx, f.org, f.sha256); err != nil {
				return err
			}
			t.count(f.org, artifactBytes, -f.size)
		}
		return nil
	})
	return more, err
}

// excess is how many bytes of artifacts organizations have beyond a limit.
func (t *tx) excess(ctx context.Context, limit int64) (map[string]int64, error) {
	excess := map[string]int64{}
	err := t.query(ctx, func(row scanner) error {
		var org string
		var bytes int64
		err := row.Scan(&org, &bytes)
		excess[org] = bytes - limit
		return err
	}, `select org_id, value from counters where name = $1 and value > $2`, artifactBytes, limit)
	return excess, err
}

// UnnamedFile is an artifact's file that no artifact names.
type UnnamedFile struct {
	OrgID, SHA256 string
	Since         time.Time
}

// UnnamedFiles lists files that have had no name for so long, those after one of them, ArtifactPage at most. They stay listed until FileRemoved is told of
// them. next is what those of the next page come after; zero when there is none.
func (s *Store) UnnamedFiles(ctx context.Context, rest time.Duration, after UnnamedFile) (files []UnnamedFile, next UnnamedFile, err error) {
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		files, next = nil, UnnamedFile{}
		var named []UnnamedFile
		err := t.query(ctx, func(row scanner) error {
			var f UnnamedFile
			var since int64
			var isNamed bool
			err := row.Scan(&f.OrgID, &f.SHA256, &since, &isNamed)
			f.Since = at(since)
			if isNamed {
				named = append(named, f)
			} else {
				files = append(files, f)
			}
			next = f
			return err
		}, `
			select u.org_id, u.sha256, u.since_ms, exists (select 1 from artifacts a where a.org_id = u.org_id and a.sha256 = u.sha256)
			from unnamed_files u where u.since_ms <= $1 and (u.since_ms, u.org_id, u.sha256) > ($2, $3, $4)
			order by u.since_ms, u.org_id, u.sha256 limit $5`, t.now-rest.Milliseconds(), after.Since.UnixMilli(), after.OrgID, after.SHA256, ArtifactPage)
		if err != nil {
			return err
		}
		for _, f := range named {
			if err := t.fileSettled(ctx, f); err != nil {
				return err
			}
		}
		if len(files)+len(named) < ArtifactPage {
			next = UnnamedFile{}
		}
		return nil
	})
	return files, next, err
}

// FileRemoved forgets a file that is not in the blob store any more. One that is being uploaded again meanwhile stays known.
func (s *Store) FileRemoved(ctx context.Context, f UnnamedFile) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error { return t.fileSettled(ctx, f) })
}

func (t *tx) fileSettled(ctx context.Context, f UnnamedFile) error {
	return t.exec(ctx, `delete from unnamed_files where org_id = $1 and sha256 = $2 and since_ms = $3`, f.OrgID, f.SHA256, f.Since.UnixMilli())
}
