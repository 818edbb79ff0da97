package agent

import (
	"context"
	"maps"
	"slices"

	"qgjob"
	"qgjob/internal/device"
)

// variables gets what the tests of an attempt have in their environment, as NAME=value, and what of it is secret. It is
// kept in memory only, and given to the runner's process only.
func (a *Agent) variables(ctx context.Context, at *attempt) (env, secrets []string, err error) {
	if !at.Job.Environment {
		return nil, nil, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.o.Limits.Setup, errSetupTime)
	defer cancel()
	for tries := 0; ; tries++ {
		found, err := a.client.AttemptEnvironment(ctx, at.Lease)
		switch qgjob.ErrorCode(err) {
		case "":
			for _, variables := range []map[string]string{found.Env, found.Secrets} {
				for _, name := range slices.Sorted(maps.Keys(variables)) {
					env = append(env, name+"="+variables[name])
				}
			}
			return env, slices.Collect(maps.Values(found.Secrets)), nil
		case qgjob.CodeUnavailable:
			if ctx.Err() != nil {
				return nil, nil, a.overdue(ctx, err)
			}
			pause(ctx, backoff(tries))
		case qgjob.CodeLeaseLost:
			return nil, nil, errLeaseLost
		default:
			return nil, nil, device.Failf(qgjob.CauseSecretsUnavailable, "the variables of its run: %w", err)
		}
	}
}
