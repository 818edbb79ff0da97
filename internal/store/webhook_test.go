package store

import (
	"testing"
	"time"

	"qgjob"
)

// TestOutbox: each run that ends is put into the outbox once, after its webhook was made; what was not
// delivered comes again when its time has come, and what one server took no other does.
func TestOutbox(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.submit("v1", "before.spec.ts")
		hook, err := q.AddWebhook(t.Context(), qgjob.Webhook{OrgID: "acme", URL: "https://x", Format: qgjob.WebhookJSON}, "s")
		if err != nil {
			t.Fatal(err)
		}
		q.worker("w", "p1")
		q.report("w", q.one("w", "p1").Lease, passed) // of before the webhook
		first := q.submitRun(submission("acme", "v1", "a.spec.ts", "b.spec.ts"))
		second := q.submitRun(submission("acme", "v1", "c.spec.ts"))
		q.submitRun(submission("rival", "v1", "d.spec.ts"))
		announced := func(want int) {
			t.Helper()
			if n, err := q.Announce(t.Context()); n != want || err != nil {
				t.Fatalf("announced %d runs, want %d: %v", n, want, err)
			}
		}
		announced(0)
		if err := q.CancelRun(t.Context(), "acme", second.ID); err != nil {
			t.Fatal(err)
		}
		announced(1) // though an older run goes on
		announced(0)
		q.report("w", q.one("w", "p1").Lease, passed)
		announced(0) // half of it
		if err := q.CancelRun(t.Context(), "acme", first.ID); err != nil {
			t.Fatal(err)
		}
		announced(1)
		announced(0)

		take := func(want ...string) []DueDelivery {
			t.Helper()
			due, err := q.TakeDeliveries(t.Context(), 10)
			if err != nil || len(due) != len(want) {
				t.Fatalf("due %+v, want %v: %v", due, want, err)
			}
			for i, d := range due {
				if d.RunID != want[i] || d.URL != "https://x" || d.Secret != "s" {
					t.Errorf("delivery %+v, want of run %s", d, want[i])
				}
			}
			return due
		}
		due := take(second.ID, first.ID)
		take()
		if err := q.RecordDelivery(t.Context(), due[0].ID, 200, "", 0); err != nil {
			t.Fatal(err)
		}
		if err := q.RecordDelivery(t.Context(), due[1].ID, 500, "the receiver answered 500", time.Hour); err != nil {
			t.Fatal(err)
		}
		q.advance(2 * time.Minute)
		take()
		q.advance(time.Hour)
		again := take(first.ID)
		if again[0].Tries != 1 || again[0].ID != due[1].ID {
			t.Errorf("the second try: %+v", again[0])
		}
		q.advance(2 * time.Minute) // its server died
		take(first.ID)
		if err := q.RecordDelivery(t.Context(), due[1].ID, 0, "gone", 0); err != nil {
			t.Fatal(err)
		}
		q.advance(48 * time.Hour)
		take()
		list, err := q.Deliveries(t.Context(), "acme", hook.ID)
		if err != nil || len(list) != 2 || list[0].RunID != first.ID || list[0].Tries != 2 || list[0].Error != "gone" || list[0].NextAt != nil || list[1].DeliveredAt == nil {
			t.Errorf("history %+v, %v", list, err)
		}
		_, err = q.Deliveries(t.Context(), "rival", hook.ID)
		wantCode(t, err, qgjob.CodeNotFound)
		wantCode(t, q.RemoveWebhook(t.Context(), "rival", hook.ID), qgjob.CodeNotFound)
		if err := q.RemoveWebhook(t.Context(), "acme", hook.ID); err != nil {
			t.Fatal(err)
		}
		if hooks, err := q.Webhooks(t.Context(), ""); err != nil || len(hooks) != 0 {
			t.Errorf("webhooks %v, %v", hooks, err)
		}
	})
}
