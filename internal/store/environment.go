package store

import (
	"context"
	"encoding/json"
	"time"

	"qgjob"
)

// Environment is the variables that a run has for its tests.
type Environment struct {
	OrgID       string
	Variables   map[string]string
	SecretNames []string
	Sealed      string // the secrets as the server sealed them; empty for none, and when they were forgotten
}

func (e Environment) empty() bool { return len(e.Variables)+len(e.SecretNames) == 0 }

var insertEnvironments = newBulk("itttt", `
	insert into environments (run_seq, org_id, variables, secret_names, secrets) {values}`)

// addEnvironment collects the row of a new run's variables, where it has any.
func (t *tx) addEnvironment(sub *submitCall, seq int64) {
	if sub.Environment.empty() {
		return
	}
	e := sub.Environment
	t.environments = append(t.environments, []any{seq, sub.OrgID, jsonText(e.Variables), jsonText(e.SecretNames), e.Sealed})
	sub.run.Env, sub.run.SecretNames = e.Variables, e.SecretNames
}

func (e *Environment) scan(row scanner) error {
	var variables, names string
	if err := row.Scan(&e.OrgID, &variables, &names, &e.Sealed); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(variables), &e.Variables); err != nil {
		return err
	}
	return json.Unmarshal([]byte(names), &e.SecretNames)
}

// RunEnvironment returns the variables of a run; they are empty when it has none. An empty org is any organization.
func (s *Store) RunEnvironment(ctx context.Context, org, runID string) (Environment, error) {
	var e Environment
	err := s.query(ctx, e.scan, `
		select e.org_id, e.variables, e.secret_names, e.secrets from runs r, environments e
		where r.id = $1 and ($2 = '' or r.org_id = $2) and e.run_seq = r.seq`, runID, org)
	return e, err
}

// AttemptEnvironment returns the variables of the run of an open attempt to whoever holds its lease.
func (s *Store) AttemptEnvironment(ctx context.Context, l Lease) (Environment, error) {
	var e Environment
	held := false
	err := s.snapshot(ctx, func(query queryFunc) error {
		var runSeq int64
		err := query(func(row scanner) error {
			held = true
			return row.Scan(&runSeq)
		}, `select j.run_seq from attempts a, jobs j where a.id = $1 and a.token = $2 and a.outcome = '' and j.seq = a.job_seq`, l.AttemptID, l.Token)
		if err != nil || !held {
			return err
		}
		return query(e.scan, `select org_id, variables, secret_names, secrets from environments where run_seq = $1`, runSeq)
	})
	if err == nil && !held {
		err = leaseLost(l.AttemptID)
	}
	return e, err
}

// readEnvironment adds to a run what it has for its tests, but not the values of its secrets.
func readEnvironment(query queryFunc, seq int64, run *qgjob.Run) error {
	return query(func(row scanner) error {
		var e Environment
		err := e.scan(row)
		run.Env, run.SecretNames = e.Variables, e.SecretNames
		return err
	}, `select org_id, variables, secret_names, secrets from environments where run_seq = $1`, seq)
}

// SealedOtherwise says whether a run that is not over has secrets which were not sealed with what begins so.
func (s *Store) SealedOtherwise(ctx context.Context, prefix string) (bool, error) {
	found := false
	err := s.query(ctx, func(row scanner) error {
		found = true
		return row.Scan(new(int64))
	}, `
		select e.run_seq from environments e, runs r
		where e.secrets <> '' and substr(e.secrets, 1, $2) <> $1 and r.seq = e.run_seq
			and exists (select 1 from jobs j where j.seq >= r.seq and j.seq < r.seq + r.jobs and j.state in ('queued', 'running', 'canceling'))
		limit 1`, prefix, len(prefix))
	return found, err
}

// TakeSecretKey makes a key the one that secrets of new runs are sealed with. Servers with another one may seal no more.
func (s *Store) TakeSecretKey(ctx context.Context, name string) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		if err := t.exec(ctx, `delete from secret_key`); err != nil {
			return err
		}
		return t.exec(ctx, `insert into secret_key (name) values ($1)`, name)
	})
}

// SecretKey returns the name of the key that secrets of new runs are sealed with; empty before the first one was taken.
func (s *Store) SecretKey(ctx context.Context) (string, error) {
	name := ""
	err := s.query(ctx, func(row scanner) error { return row.Scan(&name) }, `select name from secret_key`)
	return name, err
}

// ForgetSecrets forgets the secrets of runs that were submitted so long ago and have their verdict.
func (s *Store) ForgetSecrets(ctx context.Context, age time.Duration) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		return t.exec(ctx, `
			update environments set secrets = '' where secrets <> '' and run_seq in (
				select r.seq from environments e, runs r where e.secrets <> '' and r.seq = e.run_seq and r.submitted_at_ms < $1
					and not exists (select 1 from jobs j where j.seq >= r.seq and j.seq < r.seq + r.jobs and j.state in ('queued', 'running', 'canceling')))`,
			t.now-age.Milliseconds())
	})
}
