package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/measure"
	"qgjob/bench/internal/plain"
	"qgjob/bench/internal/product"
	"qgjob/bench/internal/result"
	"qgjob/bench/internal/rig"
	"qgjob/bench/internal/river"
)

// Contestants other than qgjob.
var (
	riverHTTPTuned = river.BehindHTTP(contest.RiverHTTPTuned, kindRiverTuned, river.Tuned)
	riverHTTP      = river.BehindHTTP(contest.RiverHTTP, kindRiver, river.AsItComes)
	riverTuned     = river.InProcess(contest.RiverTuned, river.Tuned)
	riverPlain     = river.InProcess(contest.River, river.AsItComes)
	bareServer     = plain.BareServer(contest.Bare, kindBare)
)

// turn is one measurement of one contestant.
type turn struct {
	contestant string
	take       func(context.Context, measure.Session) error
}

// measures are what is measured, in order, and who takes turns at it.
type measures []struct {
	name  string
	turns []turn
}

func (o options) plan() measures {
	onSQLite := product.OnSQLite(contest.QgjobSQLite, o.product)
	onPostgres := product.OnPostgres(contest.QgjobPostgres, o.product)
	queues := []contest.Contestant[contest.Queue]{onSQLite, onPostgres, riverHTTPTuned, riverHTTP, riverTuned, riverPlain}
	var submits, bulks, drains, latencies, claims []turn
	for _, q := range queues {
		inbox := contest.As[contest.Inbox](q)
		submits = append(submits, take(inbox, measure.Submits))
		bulks = append(bulks, take(inbox, measure.Bulks))
		drains = append(drains, take(q, measure.Drains))
		latencies = append(latencies, take(q, measure.Latencies))
	}
	for _, q := range []contest.Contestant[contest.Queue]{product.InsideSQLite(contest.InsideSQLite), product.InsidePostgres(contest.InsidePostgres)} {
		drains = append(drains, take(q, measure.Drains))
		latencies = append(latencies, take(q, measure.Latencies))
	}
	submits = append(submits, take(bareServer, measure.Submits))
	bulks = append(bulks, take(bareServer, measure.Bulks))
	latencies = append(latencies, take(bareServer, measure.Answers))
	for _, l := range plain.Limits {
		submits = append(submits, turn{l.Name, func(ctx context.Context, s measure.Session) error { return measure.SubmitLimits(ctx, s, l) }})
		latencies = append(latencies, turn{l.Name, func(ctx context.Context, s measure.Session) error { return measure.LatencyLimits(ctx, s, l) }})
	}
	for _, q := range []contest.Contestant[contest.Queue]{onSQLite, onPostgres, riverHTTPTuned, riverTuned} {
		claims = append(claims, take(q, measure.Claims))
	}
	servers := []turn{take(contest.As[contest.Inbox](onPostgres), measure.Servers)}
	connections := []turn{take(onSQLite, measure.Connections), take(onPostgres, measure.Connections)}
	return measures{{"submit", submits}, {"bulk", bulks}, {"drain", drains}, {"latency", latencies}, {"claim", claims}, {"servers", servers}, {"connections", connections}}
}

func take[T any](c contest.Contestant[T], m func(context.Context, measure.Session, contest.Contestant[T]) error) turn {
	return turn{c.Name, func(ctx context.Context, s measure.Session) error { return m(ctx, s, c) }}
}

func (m measures) names() []string {
	var names []string
	for _, m := range m {
		names = append(names, m.name)
	}
	return names
}

// only keeps what -only names.
func (m measures) only(names string) (measures, error) {
	if names == "" {
		return m, nil
	}
	var kept measures
	for name := range strings.SplitSeq(names, ",") {
		name, who, _ := strings.Cut(name, "=")
		i := slices.IndexFunc(m, func(one struct {
			name  string
			turns []turn
		},
		) bool {
			return one.name == name
		})
		if i < 0 {
			return nil, fmt.Errorf("-only: %q is no measure: use %s", name, strings.Join(m.names(), ", "))
		}
		one := m[i]
		one.turns = slices.DeleteFunc(slices.Clone(one.turns), func(t turn) bool { return !strings.Contains(t.contestant, who) })
		if len(one.turns) == 0 {
			return nil, fmt.Errorf("-only: no contestant of %s has %q in its name", name, who)
		}
		kept = append(kept, one)
	}
	return kept, nil
}

// measure takes all measurements, and saves them round by round. In each round every contestant has its turn at each, and who begins changes.
func (o options) measure(ctx context.Context, log io.Writer) (_ *result.Results, err error) {
	todo, err := o.plan().only(o.only)
	if err != nil {
		return nil, err
	}
	stage, err := rig.New()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	postgres, err := stage.PostgresVersion(ctx)
	if err != nil {
		return nil, err
	}
	results := &result.Results{Machine: result.ThisMachine(), Versions: result.Versions(postgres), Short: o.short}
	session := measure.Session{Stage: stage, Size: measure.Full}
	if o.profile != "" {
		session.Profiler.Dir = o.profile
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return nil, err
		}
	}
	if o.short {
		session.Size = measure.Short
	}
	for round := range o.rounds {
		session.Record = func(name, contestant, aCase string, value float64) {
			fmt.Fprintf(log, "round %d: %s: %s, %s: %s\n", round+1, name, contestant, aCase, result.Format(name, value))
			results.Samples = append(results.Samples, result.Sample{Measure: name, Contestant: contestant, Case: aCase, Round: round + 1, Value: value})
		}
		for _, m := range todo {
			first := round * (len(m.turns)/max(o.rounds, 1) + 1) % len(m.turns)
			for _, t := range slices.Concat(m.turns[first:], m.turns[:first]) {
				if err := t.take(ctx, session); err != nil {
					return nil, err
				}
			}
		}
		results.Rounds = round + 1
		if err := results.Save(o.results); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// product is the binary that is measured.
func (o options) product(ctx context.Context, r *rig.Rig) (string, error) {
	if o.binary != "" {
		return o.binary, nil
	}
	return r.Build(ctx, "qgjob", "qgjob/cmd/qgjob", "qgjob")
}
