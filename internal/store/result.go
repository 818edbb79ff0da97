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

var selectAttempts = newBulk("t", `select `+attemptColumns+` {from,} attempts a where a.id = {1}`)

// record ends the attempts that results speak of, and answers each result.
func (t *tx) record(ctx context.Context, items []*resultItem) error {
	ended, err := t.endedAttempts(ctx, items)
	if err != nil {
		return err
	}
	for _, item := range items {
		a := t.b.open[item.result.AttemptID]
		if a == nil {
			a = ended[item.result.AttemptID]
		}
		answer, err := t.recordOne(ctx, a, item)
		if err != nil {
			code := qgjob.ErrorCode(err)
			if code == qgjob.CodeInternal {
				return err
			}
			answer = ResultAnswer{Code: code, Message: err.Error()}
		} else {
			ended[a.id] = a
		}
		answer.AttemptID = item.result.AttemptID
		*item.answer = answer
	}
	return nil
}

// endedAttempts reads the attempts of results that come late, or again.
func (t *tx) endedAttempts(ctx context.Context, items []*resultItem) (map[string]*attempt, error) {
	attempts := map[string]*attempt{}
	var rows [][]any
	for _, item := range items {
		id := item.result.AttemptID
		if _, seen := attempts[id]; !seen && t.b.open[id] == nil {
			attempts[id] = nil
			rows = append(rows, []any{id})
		}
	}
	if len(rows) == 0 {
		return attempts, nil
	}
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	return attempts, t.queryAll(ctx, selectAttempts, rows, func(row scanner) error {
		a := &attempt{}
		err := row.Scan(a.columns()...)
		attempts[a.id] = a
		return err
	})
}

// recordOne ends one attempt. An attempt that has ended accepts the result that ended it again, and no other.
func (t *tx) recordOne(ctx context.Context, a *attempt, item *resultItem) (ResultAnswer, error) {
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
	result, err := t.excuse(ctx, a.job, r.Result)
	if err != nil {
		return ResultAnswer{}, err
	}
	if err := t.end(ctx, a, result, hash); err != nil {
		return ResultAnswer{}, err
	}
	return a.answer()
}

// installed keeps a device's ledger: what was installed, what was found installed, and what is on it now.
func (t *tx) installed(a *attempt, r qgjob.Report) {
	if !r.Installed && !r.InstallSaved {
		return
	}
	d := t.b.devices[a.device]
	if r.Installed {
		d.installs++
		t.count(a.org, installsDone, 1)
	}
	if r.InstallSaved {
		d.saved++
		t.count(a.org, installsSaved, 1)
	}
	if d.worker == a.worker { // of a device that another worker has since taken over, that one knows better
		d.app = qgjob.App{OrgID: a.job.OrgID, AppVersionID: a.job.AppVersionID, BuildSHA256: r.BuildSHA256}
	}
}

func leaseLost(attemptID string) error {
	return qgjob.Errorf(qgjob.CodeLeaseLost, "the lease of attempt %s ended or was never given: stop working on it", attemptID)
}

func noWorker(id string) error {
	return qgjob.Errorf(qgjob.CodeNotFound, "worker %s is not known (any more): register again", id)
}
