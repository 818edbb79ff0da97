package store

import (
	"context"
	"time"

	"qgjob"
)

const (
	// mostHooks is how many webhooks an organization may have.
	mostHooks = 20
	// announcedAtOnce is how many runs one look finds for a webhook.
	announcedAtOnce = 200
	// deliveryLease is how long the server that took a delivery has for it.
	deliveryLease = time.Minute
	// shownDeliveries is how much of a webhook's history is returned.
	shownDeliveries = 100
)

// AddWebhook registers a webhook. It hears of the runs that are submitted from now on.
func (s *Store) AddWebhook(ctx context.Context, h qgjob.Webhook, secret string) (qgjob.Webhook, error) {
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		var hooks, last int64
		if err := t.row(ctx, func(row scanner) error { return row.Scan(&hooks) }, `select count(*) from webhooks where org_id = $1`, h.OrgID); err != nil {
			return err
		}
		if hooks >= mostHooks {
			return qgjob.Errorf(qgjob.CodeConflict, "organization %s has %d webhooks: remove one first", h.OrgID, hooks)
		}
		last = t.b.nextJob - 1
		h.ID, h.CreatedAt = t.newID(), at(t.now)
		return t.exec(ctx, `insert into webhooks (id, org_id, url, format, secret, after_seq, created_at_ms) values ($1, $2, $3, $4, $5, $6, $7)`,
			h.ID, h.OrgID, h.URL, string(h.Format), secret, last, t.now)
	})
	return h, err
}

// RemoveWebhook forgets a webhook and its deliveries. An empty org is any organization.
func (s *Store) RemoveWebhook(ctx context.Context, org, id string) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		known := false
		err := t.query(ctx, func(row scanner) error {
			known = true
			return row.Scan(new(string))
		}, `select id from webhooks where id = $1 and ($2 = '' or org_id = $2)`, id, org)
		if err != nil {
			return err
		}
		if !known {
			return noWebhook(id)
		}
		if err := t.exec(ctx, `delete from webhook_deliveries where webhook_id = $1`, id); err != nil {
			return err
		}
		return t.exec(ctx, `delete from webhooks where id = $1`, id)
	})
}

func noWebhook(id string) error {
	return qgjob.Errorf(qgjob.CodeNotFound, "there is no webhook %s", id)
}

// Webhooks returns the webhooks of an organization, without their secrets. An empty org is any organization.
func (s *Store) Webhooks(ctx context.Context, org string) ([]qgjob.Webhook, error) {
	list := []qgjob.Webhook{}
	err := s.query(ctx, func(row scanner) error {
		var h qgjob.Webhook
		var format string
		var created int64
		err := row.Scan(&h.ID, &h.OrgID, &h.URL, &format, &created)
		h.Format, h.CreatedAt = qgjob.WebhookFormat(format), at(created)
		list = append(list, h)
		return err
	}, `select id, org_id, url, format, created_at_ms from webhooks where ($1 = '' or org_id = $1) order by id`, org)
	return list, err
}

// Deliveries returns a webhook's newest deliveries, newest first. An empty org is any organization.
func (s *Store) Deliveries(ctx context.Context, org, webhookID string) ([]qgjob.Delivery, error) {
	list := []qgjob.Delivery{}
	err := s.snapshot(ctx, func(query queryFunc) error {
		known := false
		err := query(func(row scanner) error {
			known = true
			return row.Scan(new(string))
		}, `select id from webhooks where id = $1 and ($2 = '' or org_id = $2)`, webhookID, org)
		if err != nil {
			return err
		}
		if !known {
			return noWebhook(webhookID)
		}
		return query(func(row scanner) error {
			d := qgjob.Delivery{WebhookID: webhookID}
			var created, delivered, next int64
			err := row.Scan(&d.ID, &d.RunID, &d.Tries, &d.Status, &d.Error, &created, &delivered, &next)
			d.CreatedAt, d.DeliveredAt, d.NextAt = at(created), atOrNil(delivered), atOrNil(next)
			list = append(list, d)
			return err
		}, `
			select d.id, r.id, d.tries, d.status, d.error, d.created_at_ms, d.delivered_at_ms, d.next_at_ms
			from webhook_deliveries d, runs r where d.webhook_id = $1 and r.seq = d.run_seq order by d.id desc limit $2`, webhookID, shownDeliveries)
	})
	return list, err
}

// Announce puts the runs that have their verdict, and that webhooks have not been told of, into the outbox.
// What it reads begins with the oldest run of a webhook's organization that it was not told of. n is how many there were.
func (s *Store) Announce(ctx context.Context) (n int, err error) {
	hooks, err := s.Webhooks(ctx, "")
	if err != nil || len(hooks) == 0 {
		return 0, err
	}
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		n = 0
		for _, h := range hooks {
			found, err := t.announce(ctx, h.ID)
			if err != nil {
				return err
			}
			n += found
		}
		return nil
	})
	return n, err
}

func (t *tx) announce(ctx context.Context, webhookID string) (int, error) {
	if err := t.flush(ctx); err != nil { // verdicts of this transaction count
		return 0, err
	}
	var ended []int64
	err := t.query(ctx, func(row scanner) error {
		var seq int64
		err := row.Scan(&seq)
		ended = append(ended, seq)
		return err
	}, `
		select r.seq from webhooks h, runs r
		where h.id = $1 and r.org_id = h.org_id and r.seq > h.after_seq
			and not exists (select 1 from webhook_deliveries d where d.webhook_id = h.id and d.run_seq = r.seq)
			and not exists (select 1 from jobs j where j.seq >= r.seq and j.seq < r.seq + r.jobs and j.state in ('queued', 'running', 'canceling'))
		order by r.seq limit $2`, webhookID, announcedAtOnce)
	if err != nil || len(ended) == 0 {
		return 0, err
	}
	for _, seq := range ended {
		err := t.exec(ctx, `insert into webhook_deliveries (id, webhook_id, run_seq, created_at_ms, next_at_ms) values ($1, $2, $3, $4, $4)`,
			t.newID(), webhookID, seq, t.now)
		if err != nil {
			return 0, err
		}
	}
	return len(ended), t.exec(ctx, `
		update webhooks set after_seq = (
			select coalesce(min(r.seq) - 1, $2) from runs r
			where r.org_id = webhooks.org_id and r.seq > webhooks.after_seq and r.seq <= $2
				and not exists (select 1 from webhook_deliveries d where d.webhook_id = webhooks.id and d.run_seq = r.seq))
		where id = $1`, webhookID, ended[len(ended)-1])
}

// DueDelivery is one delivery to try.
type DueDelivery struct {
	ID, RunID, URL, Secret string
	Format                 qgjob.WebhookFormat
	Tries                  int // before this one
}

// TakeDeliveries returns deliveries that are due. For a minute no other server takes them.
func (s *Store) TakeDeliveries(ctx context.Context, most int) ([]DueDelivery, error) {
	var due []DueDelivery
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		due = nil
		err := t.query(ctx, func(row scanner) error {
			var d DueDelivery
			var format string
			err := row.Scan(&d.ID, &d.RunID, &d.URL, &d.Secret, &format, &d.Tries)
			d.Format = qgjob.WebhookFormat(format)
			due = append(due, d)
			return err
		}, `
			select d.id, r.id, h.url, h.secret, h.format, d.tries
			from webhook_deliveries d, webhooks h, runs r
			where d.next_at_ms > 0 and d.next_at_ms <= $1 and h.id = d.webhook_id and r.seq = d.run_seq order by d.next_at_ms limit $2`, t.now, most)
		if err != nil {
			return err
		}
		for _, d := range due {
			if err := t.exec(ctx, `update webhook_deliveries set next_at_ms = $2 where id = $1`, d.ID, t.now+deliveryLease.Milliseconds()); err != nil {
				return err
			}
		}
		return nil
	})
	return due, err
}

// RecordDelivery says how a try ended. retry is the wait before the next one; 0 when there is none.
func (s *Store) RecordDelivery(ctx context.Context, id string, status int, failure string, retry time.Duration) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		delivered, next := int64(0), int64(0)
		if failure == "" {
			delivered = t.now
		} else if retry > 0 {
			next = t.now + retry.Milliseconds()
		}
		return t.exec(ctx, `update webhook_deliveries set tries = tries + 1, status = $2, error = $3, delivered_at_ms = $4, next_at_ms = $5 where id = $1`,
			id, status, failure, delivered, next)
	})
}
