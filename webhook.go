package qgjob

import "time"

// WebhookFormat is what a webhook's body looks like.
type WebhookFormat string

// The formats.
const (
	WebhookJSON  WebhookFormat = "json"
	WebhookSlack WebhookFormat = "slack"
)

// Webhook is an address that hears of an organization's runs when they have their verdict.
type Webhook struct {
	ID        string        `json:"id"`
	OrgID     string        `json:"org_id"`
	URL       string        `json:"url"`
	Format    WebhookFormat `json:"format" enum:"json,slack"`
	CreatedAt time.Time     `json:"created_at"`
}

// Delivery is what a webhook is told of one run. It is made once and tried until the receiver takes it.
type Delivery struct {
	ID          string     `json:"id" doc:"the same at every try: Qgjob-Delivery"`
	WebhookID   string     `json:"webhook_id"`
	RunID       string     `json:"run_id"`
	Tries       int        `json:"tries"`
	Status      int        `json:"status,omitempty" doc:"HTTP status of the last answer"`
	Error       string     `json:"error,omitempty" doc:"why the last try failed"`
	CreatedAt   time.Time  `json:"created_at"`
	DeliveredAt *time.Time `json:"delivered_at,omitempty"`
	NextAt      *time.Time `json:"next_at,omitempty" doc:"when it is tried again; absent when it was delivered or given up"`
}
