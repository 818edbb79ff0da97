package store

import (
	"context"
	"strings"
)

// AddBuild records a build whose file is in the blob store. Adding it again changes nothing.
func (s *Store) AddBuild(ctx context.Context, b Build) error {
	return s.endUpload(ctx, Upload{OrgID: b.OrgID, Kind: BuildUpload, SHA256: b.SHA256, Copy: b.Copy}, func(ctx context.Context, t *tx) error {
		for _, platform := range []string{"", b.Platform} {
			delete(t.b.builds, newestOf{appVersion{b.OrgID, b.AppVersionID}, platform})
		}
		return t.exec(ctx, `
			insert into builds (org_id, app_version_id, sha256, number, platform, package, version_name, version_code, size_bytes, added_at_ms, min_os, kind, abis)
			values ($1, $2, $3, coalesce((select max(n.number) from builds n where n.org_id = $1 and n.app_version_id = $2), 0) + 1, $4, $5, $6, $7, $8, $9, $10, $11, $12)
			on conflict (org_id, app_version_id, sha256) do nothing`,
			b.OrgID, b.AppVersionID, b.SHA256, b.Platform, b.Package, b.VersionName, b.VersionCode, b.Size, t.now, b.MinOS, b.Kind, strings.Join(b.ABIs, ","))
	})
}

// NeedsFile says whether a lease that lives is on a job of the organization with this bundle or build.
func (s *Store) NeedsFile(ctx context.Context, leaseToken, org, sha256 string) (bool, error) {
	needed := false
	err := s.query(ctx, func(row scanner) error {
		needed = true
		return row.Scan(new(string))
	}, `
		select a.id from devices d, attempts a, jobs j, runs r
		where d.attempt_id <> '' and a.id = d.attempt_id and a.token = $1 and j.seq = a.job_seq and r.seq = j.run_seq
			and r.org_id = $2 and $3 in (r.bundle_sha256, r.build_sha256)`, leaseToken, org, sha256)
	return needed, err
}

// Builds returns the builds of an app version whose files are there, newest first.
func (s *Store) Builds(ctx context.Context, org, appVersion string) ([]Build, error) {
	var builds []Build
	err := s.query(ctx, func(row scanner) error {
		var b Build
		var added int64
		var abis string
		err := row.Scan(&b.OrgID, &b.AppVersionID, &b.SHA256, &b.Platform, &b.Package, &b.VersionName, &b.VersionCode, &b.Size, &added, &b.MinOS, &b.Kind, &abis, &b.Copy)
		b.AddedAt, b.ABIs = at(added), words(abis)
		builds = append(builds, b)
		return err
	}, `
		select b.org_id, b.app_version_id, b.sha256, b.platform, b.package, b.version_name, b.version_code, b.size_bytes, b.added_at_ms, b.min_os, b.kind, b.abis, u.copy
		from builds b, uploads u
		where b.org_id = $1 and b.app_version_id = $2 and u.org_id = b.org_id and u.kind = '`+BuildUpload+`' and u.sha256 = b.sha256 and u.stored
		order by b.number desc`, org, appVersion)
	return builds, err
}
