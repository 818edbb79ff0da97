package store

import (
	"strings"
	"testing"
)

func TestALeaseNeedsTheFilesOfItsJob(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		bundle, build, other := strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64)
		q.bundle("acme", bundle)
		q.build(Build{OrgID: "acme", AppVersionID: "v1", SHA256: build, Platform: "android"})
		sub := submission("acme", "v1", "tests/a.spec.js")
		sub.BundleSHA256 = bundle
		if _, _, err := q.Submit(t.Context(), sub); err != nil {
			t.Fatal(err)
		}
		q.worker("w1", "p1")
		l := q.one("w1", "p1").Lease
		needs := func(org, sha256, token string) bool {
			needed, err := q.NeedsFile(t.Context(), token, org, sha256)
			return must(t, needed, err)
		}
		if !needs("acme", bundle, l.Token) || !needs("acme", build, l.Token) {
			t.Error("a lease needs no file of its job")
		}
		if needs("acme", other, l.Token) || needs("zeta", bundle, l.Token) || needs("acme", bundle, "") || needs("acme", "", l.Token) {
			t.Error("a lease needs what its job does not have")
		}
		q.report("w1", l, passed)
		if needs("acme", bundle, l.Token) {
			t.Error("a lease needs files after its end")
		}
	})
}
