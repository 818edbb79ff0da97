package server

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/store"
	"qgjob/internal/webhook"
)

const (
	// hooksEvery is how often runs that ended and deliveries that are due are looked for.
	hooksEvery = 2 * time.Second
	// hooksAtOnce is how many deliveries are tried beside each other.
	hooksAtOnce = 8
)

type addWebhookInput struct {
	Body api.WebhookRequest
}

type addWebhookOutput struct {
	Status int
	Body   api.WebhookAdded
}

func (s *Server) addWebhook(ctx context.Context, in *addWebhookInput) (*addWebhookOutput, error) {
	if err := principalOf(ctx).mayUse(in.Body.OrgID); err != nil {
		return nil, err
	}
	if err := webhook.CheckURL(in.Body.URL); err != nil {
		return nil, err
	}
	format := in.Body.Format
	if format == "" {
		format = qgjob.WebhookJSON
	}
	secret := "whsec_" + rand.Text()
	h, err := s.store.AddWebhook(ctx, qgjob.Webhook{OrgID: in.Body.OrgID, URL: in.Body.URL, Format: format}, secret)
	if err != nil {
		return nil, err
	}
	return &addWebhookOutput{Status: http.StatusCreated, Body: api.WebhookAdded{Webhook: h, Secret: secret}}, nil
}

type webhooksInput struct {
	OrgID string `query:"org_id" maxLength:"200"`
}

type webhooksOutput struct {
	Body api.WebhookList
}

func (s *Server) webhooks(ctx context.Context, in *webhooksInput) (*webhooksOutput, error) {
	org, err := principalOf(ctx).narrow(in.OrgID)
	if err != nil {
		return nil, err
	}
	hooks, err := s.store.Webhooks(ctx, org)
	if err != nil {
		return nil, err
	}
	return &webhooksOutput{Body: api.WebhookList{Webhooks: list(hooks)}}, nil
}

type webhookInput struct {
	ID string `path:"id" doc:"UUID of the webhook"`
}

func (s *Server) removeWebhook(ctx context.Context, in *webhookInput) (*struct{}, error) {
	id, err := parseUUID("webhook", in.ID)
	if err != nil {
		return nil, err
	}
	return nil, s.store.RemoveWebhook(ctx, principalOf(ctx).OrgID, id)
}

type deliveriesOutput struct {
	Body api.DeliveryList
}

func (s *Server) deliveries(ctx context.Context, in *webhookInput) (*deliveriesOutput, error) {
	id, err := parseUUID("webhook", in.ID)
	if err != nil {
		return nil, err
	}
	deliveries, err := s.store.Deliveries(ctx, principalOf(ctx).OrgID, id)
	if err != nil {
		return nil, err
	}
	return &deliveriesOutput{Body: api.DeliveryList{Deliveries: list(deliveries)}}, nil
}

// hooksLoop announces and delivers until the context ends.
func hooksLoop(ctx context.Context, log *slog.Logger, deliver func(context.Context) error) {
	every := time.NewTicker(hooksEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		if err := deliver(ctx); err != nil && ctx.Err() == nil && qgjob.ErrorCode(err) != qgjob.CodeUnavailable {
			log.Error("webhooks cannot be delivered", "error", err)
		}
	}
}

// deliver puts runs that ended into the outbox and tries what is due.
func (s *Server) deliver(ctx context.Context) error {
	if _, err := s.store.Announce(ctx); err != nil {
		return err
	}
	hooks, err := s.store.Webhooks(ctx, "")
	if err != nil || len(hooks) == 0 {
		return err
	}
	due, err := s.store.TakeDeliveries(ctx, hooksAtOnce)
	if err != nil {
		return err
	}
	var tries sync.WaitGroup
	for _, d := range due {
		tries.Go(func() {
			if err := s.try(ctx, d); err != nil && ctx.Err() == nil {
				s.log.Error("a delivery cannot be recorded; it is tried again", "delivery", d.ID, "error", err)
			}
		})
	}
	tries.Wait()
	return nil
}

// try sends a delivery once and records how that ended. The error is the store's.
func (s *Server) try(ctx context.Context, d store.DueDelivery) error {
	run, err := s.store.Run(ctx, "", d.RunID)
	if err != nil {
		return err
	}
	body, err := webhook.Body(d.Format, run)
	if err != nil {
		return err
	}
	status, failure := s.hooks.Send(ctx, d.URL, d.Secret, d.ID, body, time.Now())
	if ctx.Err() != nil {
		return ctx.Err() // its lease ends, and it is tried again
	}
	if failure == nil {
		return s.store.RecordDelivery(ctx, d.ID, status, "", 0)
	}
	wait, ok := webhook.Next(d.Tries + 1)
	s.log.Warn("a webhook's receiver did not take a delivery", "delivery", d.ID, "run", d.RunID, "status", status, "error", failure, "again", ok)
	return s.store.RecordDelivery(ctx, d.ID, status, failure.Error(), wait)
}
