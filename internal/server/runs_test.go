package server

import (
	"testing"

	"qgjob"
	"qgjob/internal/api"
)

// TestBodyHash: what is asked for counts, not how it is spelled. The value is fixed: a server that was
// upgraded within the life of a key must find the same one.
func TestBodyHash(t *testing.T) {
	hash := func(change func(r *api.SubmitRequest)) string {
		r := api.SubmitRequest{OrgID: "o", AppVersionID: "v", IdempotencyKey: "key", Jobs: []api.JobSpec{{TestPath: "tests/a.spec.ts"}}}
		if change != nil {
			change(&r)
		}
		sub, err := submission(r)
		if err != nil {
			t.Fatal(err)
		}
		return sub.BodyHash
	}
	const want = "5d1e43255ff06c71c164340ea3eb36102d31d7e1381bf6aa790647300fcaab0f"
	priority := qgjob.DefaultPriority
	for name, change := range map[string]func(r *api.SubmitRequest){
		"as it is":             nil,
		"another key":          func(r *api.SubmitRequest) { r.IdempotencyKey = "other" },
		"defaults spelled out": func(r *api.SubmitRequest) { r.Jobs[0].Priority, r.Jobs[0].Target = &priority, "any" },
		"another path form":    func(r *api.SubmitRequest) { r.Jobs[0].TestPath = "./tests//a.spec.ts" },
	} {
		if got := hash(change); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if hash(func(r *api.SubmitRequest) { r.Jobs[0].Target = "device" }) == want {
		t.Error("another target has the same hash")
	}
}
