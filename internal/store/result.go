package store

import (
	"context"

	"qgjob"
)

// resultItem is one result on its way through a batch.
type resultItem struct {
	result *AttemptResult
	answer *ResultAnswer
	worker string
}

var (
	selectAttempts = newBulk("t", `select `+attemptColumns+` {from,} attempts a where a.id = {1}`)
	countInstalls  = newBulk("tiittt", `
		update devices set installs = installs + {2}, installs_saved = installs_saved + {3},
			installed_org_id = {4}, installed_app_version_id = {5}, installed_build_sha256 = {6}
		{from} where id = {1}`)
)

// record ends the attempts that results speak of, and answers each result.
func (t *tx) record(ctx context.Context, items []*resultItem) error {
	attempts, jobs, err := t.resultsSubjects(ctx, items)
	if err != nil {
		return err
	}
	for _, item := range items {
		a := attempts[item.result.AttemptID]
		var j *job
		if a != nil {
			j = jobs[a.jobSeq]
		}
		answer, err := t.recordOne(a, j, item)
		if err != nil {
			code := qgjob.ErrorCode(err)
			if code == qgjob.CodeInternal {
				return err
			}
			answer = ResultAnswer{Code: code, Message: err.Error()}
		}
		answer.AttemptID = item.result.AttemptID
		*item.answer = answer
	}
	return nil
}

func (t *tx) resultsSubjects(ctx context.Context, items []*resultItem) (map[string]*attempt, map[int64]*job, error) {
	attempts := map[string]*attempt{}
	var rows [][]any
	for _, item := range items {
		id := item.result.AttemptID
		if _, seen := attempts[id]; !seen {
			attempts[id] = nil
			rows = append(rows, []any{id})
		}
	}
	var seqs []int64
	err := t.queryAll(ctx, selectAttempts, rows, func(row scanner) error {
		a, err := scanAttempt(row)
		attempts[a.id] = a
		seqs = append(seqs, a.jobSeq)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	jobs, err := t.load(ctx, seqs)
	return attempts, jobs, err
}

// recordOne ends one attempt. An attempt that has ended accepts the result that ended it again, and no other.
func (t *tx) recordOne(a *attempt, j *job, item *resultItem) (ResultAnswer, error) {
	r := item.result
	if a == nil || a.token != r.Token || a.worker != item.worker {
		return ResultAnswer{}, leaseLost(r.AttemptID)
	}
	if err := r.Check(); err != nil {
		return ResultAnswer{}, err
	}
	hash, err := hashResult(r.Result)
	if err != nil {
		return ResultAnswer{}, err
	}
	switch {
	case a.outcome == "":
	case a.resultHash == hash:
		return a.answer()
	case a.resultHash == "":
		return ResultAnswer{}, leaseLost(r.AttemptID)
	default:
		return ResultAnswer{}, qgjob.Errorf(qgjob.CodeConflict, "attempt %s ended as %s: another result cannot replace it", r.AttemptID, a.outcome)
	}
	if err := t.end(a, j, r.Result, hash); err != nil {
		return ResultAnswer{}, err
	}
	t.installed(a, j, r.Report)
	return a.answer()
}

// installed keeps a device's ledger: what was installed, what was found installed, and what is on it now.
func (t *tx) installed(a *attempt, j *job, r qgjob.Report) {
	if !r.Installed && !r.InstallSaved {
		return
	}
	installs, saved := 0, 0
	if r.Installed {
		installs = 1
	}
	if r.InstallSaved {
		saved = 1
	}
	t.count(a.org, installsDone, int64(installs))
	t.count(a.org, installsSaved, int64(saved))
	t.installs = append(t.installs, []any{a.device, installs, saved, j.OrgID, j.AppVersionID, r.BuildSHA256})
}

func leaseLost(attemptID string) error {
	return qgjob.Errorf(qgjob.CodeLeaseLost, "the lease of attempt %s ended or was never given: stop working on it", attemptID)
}

func noWorker(id string) error {
	return qgjob.Errorf(qgjob.CodeNotFound, "worker %s is not known (any more): register again", id)
}
