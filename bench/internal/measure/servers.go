package measure

import (
	"context"
	"errors"
	"sync/atomic"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/result"
)

// serversClients is how many clients submit, to one server or to two.
const serversClients = 16

// Joined is an Inbox that can have another server over its database.
type Joined interface {
	Join(context.Context) (contest.Inbox, error)
}

// Servers measures durable submits a second to one server, to one beside which another has nothing to do, and to two by
// half of the clients each.
func Servers(ctx context.Context, s Session, c contest.Contestant[contest.Inbox]) error {
	return on(ctx, s, c, func(q contest.Inbox) (err error) {
		one, ok := q.(Joined)
		if !ok {
			return errors.New("it cannot have a second server")
		}
		take := func(aCase string, q contest.Inbox) error {
			rate, _, err := submitRate(ctx, s, q, "servers "+aCase, serversClients, 1)
			if err == nil {
				s.Record(result.Servers, c.Name, aCase, rate)
			}
			return err
		}
		if err := take("one server", q); err != nil {
			return err
		}
		other, err := one.Join(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, other.Close()) }()
		if err := take("one beside an idle one", q); err != nil {
			return err
		}
		return take("two", &both{Inbox: q, other: other})
	})
}

// both is two servers over one database. Clients are of one and of the other in turns.
type both struct {
	contest.Inbox
	other   contest.Inbox
	clients atomic.Int64
}

func (b *both) Client(ctx context.Context) (contest.Client, error) {
	if b.clients.Add(1)%2 == 0 {
		return b.other.Client(ctx)
	}
	return b.Inbox.Client(ctx)
}
