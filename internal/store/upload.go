package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"qgjob"
)

// The kinds of files that are uploaded to be named by submits, as the blob store knows them.
const (
	BundleUpload = "bundle"
	BuildUpload  = "build"
)

// Upload is a file that submits may name. One of the same bytes that comes after it was forgotten is another copy, with a name of
// its own in the blob store: what is removed there is never what somebody has just uploaded.
type Upload struct {
	OrgID, Kind, SHA256 string
	Copy                string
}

// usedGrain is how exactly it is known when an upload was last used: submits of the same files write that down no more often. Tests have less time.
var usedGrain = time.Hour

// uploadKey is an upload as submits name it.
type uploadKey struct{ org, kind, sha256 string }

var (
	selectUploads = newBulk("ttt", `
		select u.org_id, u.kind, u.sha256, u.used_at_ms {from,} uploads u where u.org_id = {1} and u.kind = {2} and u.sha256 = {3} and u.stored`)
	useUploads = newBulk("ttti", `update uploads set used_at_ms = {4} {from} where org_id = {1} and kind = {2} and sha256 = {3}`)
)

// BeginUpload makes an upload known before its file comes, so that the file is never left without anybody who knows of it.
func (s *Store) BeginUpload(ctx context.Context, org, kind, sha256 string) (Upload, error) {
	u := Upload{OrgID: org, Kind: kind, SHA256: sha256}
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		err := t.exec(ctx, `
			insert into uploads (org_id, kind, sha256, copy, stored, used_at_ms) values ($1, $2, $3, $4, false, $5)
			on conflict (org_id, kind, sha256) do update set used_at_ms = excluded.used_at_ms`, org, kind, sha256, t.newID(), t.now)
		if err != nil {
			return err
		}
		return t.row(ctx, func(row scanner) error { return row.Scan(&u.Copy) },
			`select copy from uploads where org_id = $1 and kind = $2 and sha256 = $3`, org, kind, sha256)
	})
	return u, err
}

// AddBundle records that a bundle's file is in the blob store.
func (s *Store) AddBundle(ctx context.Context, u Upload) error {
	return s.endUpload(ctx, u, func(context.Context, *tx) error { return nil })
}

// endUpload makes an upload one that submits may name, and records what it is.
func (s *Store) endUpload(ctx context.Context, u Upload, record func(context.Context, *tx) error) error {
	known := false
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		known = false
		err := t.query(ctx, func(scanner) error {
			known = true
			return nil
		}, `select 1 from uploads where org_id = $1 and kind = $2 and sha256 = $3 and copy = $4`, u.OrgID, u.Kind, u.SHA256, u.Copy)
		if err != nil {
			return err
		}
		if !known { // it took longer than unused uploads are kept
			return t.remove(ctx, u)
		}
		err = t.exec(ctx, `update uploads set stored = true, used_at_ms = $4 where org_id = $1 and kind = $2 and sha256 = $3`, u.OrgID, u.Kind, u.SHA256, t.now)
		if err != nil {
			return err
		}
		return record(ctx, t)
	})
	if err == nil && !known {
		err = qgjob.Errorf(qgjob.CodeUnavailable, "the upload of %s %s took so long that it was given up: upload it again", u.Kind, u.SHA256)
	}
	return err
}

// Upload returns an upload whose file is there. One that was never made, or was forgotten, is CodeNotFound.
func (s *Store) Upload(ctx context.Context, org, kind, sha256 string) (Upload, error) {
	u, _, err := s.upload(ctx, org, kind, sha256)
	return u, err
}

func (s *Store) upload(ctx context.Context, org, kind, sha256 string) (u Upload, used int64, err error) {
	u = Upload{OrgID: org, Kind: kind, SHA256: sha256}
	found := false
	err = s.query(ctx, func(row scanner) error {
		found = true
		return row.Scan(&u.Copy, &used)
	}, `select copy, used_at_ms from uploads where org_id = $1 and kind = $2 and sha256 = $3 and stored`, org, kind, sha256)
	if err == nil && !found {
		err = noUpload(u)
	}
	return u, used, err
}

// UseUpload is Upload for somebody who is about to name it: it is not forgotten from under him.
func (s *Store) UseUpload(ctx context.Context, org, kind, sha256 string) (Upload, error) {
	u, used, err := s.upload(ctx, org, kind, sha256)
	if err != nil {
		return u, err
	}
	var now int64
	if err = s.query(ctx, func(row scanner) error { return row.Scan(&now) }, s.d.clock); err != nil || used > now+s.shift.Load()-usedGrain.Milliseconds() {
		return u, err
	}
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		err := t.row(ctx, func(row scanner) error { return row.Scan(&u.Copy) },
			`select copy from uploads where org_id = $1 and kind = $2 and sha256 = $3 and stored`, org, kind, sha256)
		if errors.Is(err, sql.ErrNoRows) {
			return noUpload(u)
		}
		if err != nil {
			return err
		}
		delete(t.b.uploads, uploadKey{org, kind, sha256})
		return t.exec(ctx, `update uploads set used_at_ms = $4 where org_id = $1 and kind = $2 and sha256 = $3`, org, kind, sha256, t.now)
	})
	return u, err
}

func noUpload(u Upload) error {
	return qgjob.Errorf(qgjob.CodeNotFound, "organization %s has no %s %s, or it was removed after nobody had used it for long: upload it first", u.OrgID, u.Kind, u.SHA256)
}

// knownUploads looks up the files that a batch of submits names.
func (t *tx) knownUploads(ctx context.Context, calls []*call, builds map[buildKey]builtFor) error {
	if len(t.b.uploads) > uploadsKept {
		clear(t.b.uploads)
	}
	var rows [][]any
	asked := map[uploadKey]bool{}
	for _, c := range calls {
		sub := c.arg.(*submitCall)
		for _, key := range sub.uploads(builds[sub.key].sha256) {
			if _, known := t.b.uploads[key]; !known && !asked[key] {
				asked[key] = true
				rows = append(rows, []any{key.org, key.kind, key.sha256})
			}
		}
	}
	return t.queryAll(ctx, selectUploads, rows, func(row scanner) error {
		var key uploadKey
		var used int64
		err := row.Scan(&key.org, &key.kind, &key.sha256, &used)
		t.b.uploads[key] = used
		return err
	})
}

// uploads are what a submission names, given its build.
func (c *submitCall) uploads(build string) (keys []uploadKey) {
	if c.BundleSHA256 != "" {
		keys = append(keys, uploadKey{c.OrgID, BundleUpload, c.BundleSHA256})
	}
	if build != "" {
		keys = append(keys, uploadKey{c.OrgID, BuildUpload, build})
	}
	return keys
}

// uploaded refuses a submission that names a file which is not there.
func (t *tx) uploaded(sub *submitCall, build string) error {
	for _, key := range sub.uploads(build) {
		if _, known := t.b.uploads[key]; known {
			continue
		}
		switch {
		case sub.PreviousID != "":
			what := "test project"
			if key.kind == BuildUpload {
				what = "build"
			}
			return qgjob.Errorf(qgjob.CodeConflict, "the %s of run %s (%.12s) was removed after nobody had used it for long: submit the tests again with 'qgjob submit', which uploads it", what, sub.PreviousID, key.sha256)
		case key.kind == BuildUpload && sub.BuildSHA256 == newestBuild:
			return qgjob.Errorf(qgjob.CodeInvalid, "the newest build of app version %s (%.12s) was removed after nobody had used it for long: submit with --app, which uploads it", sub.AppVersionID, key.sha256)
		case key.kind == BuildUpload:
			return qgjob.Errorf(qgjob.CodeInvalid, "build %s of app version %s was removed after nobody had used it for long: upload it again", key.sha256, sub.AppVersionID)
		}
		return qgjob.Errorf(qgjob.CodeInvalid, "bundle_sha256: organization %s has no bundle %s, or it was removed after nobody had used it for long: upload it first", key.org, key.sha256)
	}
	return nil
}

// use notes that a submission that makes a run names its files.
func (t *tx) use(sub *submitCall) {
	for _, key := range sub.uploads(sub.BuildSHA256) {
		if t.b.uploads[key] < t.now-usedGrain.Milliseconds() {
			t.b.uploads[key] = t.now
			t.used = append(t.used, []any{key.org, key.kind, key.sha256, t.now})
		}
	}
}

// UploadPage bounds what ForgetUploads forgets, and RemovedUploads lists, at once.
const UploadPage = 500

// ForgetUploads forgets uploads that nobody has used for so long: no submit has named them, nobody has asked whether they are there, and no job that
// is not over names them. The newest builds of an app version stay as long as any of its builds does. more says that there may be others to
// forget. Their files are among the RemovedUploads then.
func (s *Store) ForgetUploads(ctx context.Context, keep time.Duration) (forgotten []Upload, more bool, err error) {
	before, open, err := s.openUploads(ctx, keep)
	if err != nil || before == 0 {
		return nil, false, err
	}
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		forgotten = nil
		if err := t.flush(ctx); err != nil { // submits of this transaction use uploads
			return err
		}
		for _, key := range open {
			if err := t.exec(ctx, `update uploads set used_at_ms = $4 where org_id = $1 and kind = $2 and sha256 = $3 and used_at_ms < $5`, key.org, key.kind, key.sha256, t.now, before); err != nil {
				return err
			}
		}
		err := t.query(ctx, func(row scanner) error {
			var u Upload
			err := row.Scan(&u.OrgID, &u.Kind, &u.SHA256, &u.Copy)
			forgotten = append(forgotten, u)
			return err
		}, selectUnused, before, UploadPage)
		if err != nil {
			return err
		}
		for _, u := range forgotten {
			if err := t.exec(ctx, `delete from uploads where org_id = $1 and kind = $2 and sha256 = $3`, u.OrgID, u.Kind, u.SHA256); err != nil {
				return err
			}
			if err := t.remove(ctx, u); err != nil {
				return err
			}
		}
		clear(t.b.uploads)
		return nil
	})
	return forgotten, len(forgotten) >= UploadPage, err
}

// selectUnused lists what was not used since $1: but for the newest builds, for each platform, of app versions of which a build was.
const selectUnused = `
	select u.org_id, u.kind, u.sha256, u.copy from uploads u
	where u.used_at_ms < $1 and not (u.kind = '` + BuildUpload + `' and exists (
		select 1 from builds b where b.org_id = u.org_id and b.sha256 = u.sha256
			and b.number = (select max(n.number) from builds n where n.org_id = b.org_id and n.app_version_id = b.app_version_id and n.platform = b.platform)
			and exists (
				select 1 from builds o, uploads v where o.org_id = b.org_id and o.app_version_id = b.app_version_id
					and v.org_id = o.org_id and v.kind = '` + BuildUpload + `' and v.sha256 = o.sha256 and v.used_at_ms >= $1)))
	order by u.used_at_ms limit $2`

// openUploads returns the moment before which uploads must have been used to be forgotten, 0 when there are none of those, and what jobs name that are
// older and not over. A job that is over stays so, and a submit uses what it names: nothing can be added to these but what is used anew. The moment goes
// by a write's, so that every submit before it is there to be read.
func (s *Store) openUploads(ctx context.Context, keep time.Duration) (before int64, open []uploadKey, err error) {
	var now int64
	err = s.write(ctx, func(_ context.Context, t *tx) error {
		now = t.now - dateSlack.Milliseconds()
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	err = s.snapshot(ctx, func(query queryFunc) error {
		unused := now - (keep + usedGrain).Milliseconds()
		err := query(func(scanner) error {
			before = unused
			return nil
		}, `select 1 from uploads where used_at_ms < $1 limit 1`, unused)
		if err != nil || before == 0 {
			return err
		}
		return query(func(row scanner) error {
			var org, bundle, build string
			err := row.Scan(&org, &bundle, &build)
			if bundle != "" {
				open = append(open, uploadKey{org, BundleUpload, bundle})
			}
			if build != "" {
				open = append(open, uploadKey{org, BuildUpload, build})
			}
			return err
		}, `
			select r.org_id, r.bundle_sha256, r.build_sha256 from lanes l, queue q, jobs j, runs r
			where l.queued > 0 and l.oldest_at_ms < $1 and q.lane_id = l.id and j.seq = q.job_seq and r.seq = j.run_seq and r.submitted_at_ms < $1
			union
			select r.org_id, r.bundle_sha256, r.build_sha256 from devices d, attempts a, jobs j, runs r
			where d.attempt_id <> '' and a.id = d.attempt_id and j.seq = a.job_seq and r.seq = j.run_seq and r.submitted_at_ms < $1`,
			now-keep.Milliseconds())
	})
	return before, open, err
}

// remove notes that the file of an upload is to be removed from the blob store. Nobody is told of it any more.
func (t *tx) remove(ctx context.Context, u Upload) error {
	return t.exec(ctx, `
		insert into removed_uploads (org_id, kind, sha256, copy) values ($1, $2, $3, $4)
		on conflict (org_id, kind, sha256, copy) do nothing`, u.OrgID, u.Kind, u.SHA256, u.Copy)
}

// RemovedUploads lists files that are to be removed from the blob store, after one of them, UploadPage at most. They stay listed until UploadRemoved
// is told of them.
func (s *Store) RemovedUploads(ctx context.Context, after Upload) ([]Upload, error) {
	var list []Upload
	err := s.query(ctx, func(row scanner) error {
		var u Upload
		err := row.Scan(&u.OrgID, &u.Kind, &u.SHA256, &u.Copy)
		list = append(list, u)
		return err
	}, `
		select org_id, kind, sha256, copy from removed_uploads where (org_id, kind, sha256, copy) > ($1, $2, $3, $4)
		order by org_id, kind, sha256, copy limit $5`, after.OrgID, after.Kind, after.SHA256, after.Copy, UploadPage)
	return list, err
}

// UploadRemoved forgets a file that is not in the blob store any more.
func (s *Store) UploadRemoved(ctx context.Context, u Upload) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		return t.exec(ctx, `delete from removed_uploads where org_id = $1 and kind = $2 and sha256 = $3 and copy = $4`, u.OrgID, u.Kind, u.SHA256, u.Copy)
	})
}
