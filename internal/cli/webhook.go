package cli

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
)

type webhookOptions struct {
	connection
	orgID, to, format, id string
	json                  bool
}

func (p *program) webhookCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Tell an address of every run that has its verdict",
		Long: `Webhook manages the addresses that hear of an organization's runs when they have their verdict: as JSON, or as
a message for Slack's incoming webhooks. A delivery is signed (Qgjob-Signature: t=SECONDS,v1=HMAC-SHA256 of
"t.body" with the webhook's secret), carries an id that is the same at every try (Qgjob-Delivery), and is
tried for about a day. Addresses of private networks are refused unless the server runs with
--webhook-allow-private; redirects are not followed.`,
		Example: `  qgjob webhook add --org-id=qualgent --to=https://ci.example.com/qgjob
  qgjob webhook add --org-id=qualgent --to=https://hooks.slack.com/services/... --format=slack
  qgjob webhook deliveries --id=02c57c1a-2f47-4e3e-b264-b30a7e92e804`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	add := func(use, short, example string, flags func(o *webhookOptions, c *cobra.Command), run func(ctx context.Context, o *webhookOptions) error) {
		o := &webhookOptions{}
		c := &cobra.Command{Use: use, Short: short, Example: "  qgjob webhook " + example}
		flags(o, c)
		c.Flags().BoolVar(&o.json, "json", false, "print JSON")
		p.connectionFlags(c.Flags(), &o.connection)
		cmd.AddCommand(command(c, func(ctx context.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			ctx, interruption := p.interruptible(ctx)
			defer interruption.stop()
			return run(ctx, o)
		}))
	}
	org := func(o *webhookOptions, c *cobra.Command) {
		c.Flags().StringVar(&o.orgID, "org-id", p.env("QGJOB_ORG"), "organization (required); also QGJOB_ORG")
	}
	id := func(o *webhookOptions, c *cobra.Command) {
		c.Flags().StringVar(&o.id, "id", "", "the webhook's `id` (required)")
	}
	add("add", "Register an address; prints its secret, once", "add --org-id=qualgent --to=https://ci.example.com/qgjob", func(o *webhookOptions, c *cobra.Command) {
		org(o, c)
		c.Flags().StringVar(&o.to, "to", "", "`URL` of the receiver (required)")
		c.Flags().StringVar(&o.format, "format", "json", "what is sent: json or slack")
		completeWords(c, "format", qgjob.WebhookJSON, qgjob.WebhookSlack)
	}, func(ctx context.Context, o *webhookOptions) error { return o.add(ctx, p) })
	add("list", "List an organization's webhooks", "list --org-id=qualgent", org, func(ctx context.Context, o *webhookOptions) error { return o.list(ctx, p) })
	add("remove", "Forget a webhook and its deliveries", "remove --id=02c57c1a-2f47-4e3e-b264-b30a7e92e804", id, func(ctx context.Context, o *webhookOptions) error { return o.remove(ctx, p) })
	add("deliveries", "List what a webhook was told, newest first", "deliveries --id=02c57c1a-2f47-4e3e-b264-b30a7e92e804", id, func(ctx context.Context, o *webhookOptions) error { return o.deliveries(ctx, p) })
	return cmd
}

func (o *webhookOptions) checkID() error {
	if _, err := uuid.Parse(o.id); err != nil {
		return exitf(exitUsage, "--id %.80q is no webhook's id: 'qgjob webhook list' shows them", o.id)
	}
	return nil
}

func (o *webhookOptions) add(ctx context.Context, p *program) error {
	if err := qgjob.CheckID("--org-id", o.orgID); err != nil {
		return err
	}
	format := qgjob.WebhookFormat(o.format)
	if format != qgjob.WebhookJSON && format != qgjob.WebhookSlack {
		return exitf(exitUsage, "--format %q is unknown: use json or slack", o.format)
	}
	added, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.WebhookAdded, error) {
		return c.AddWebhook(ctx, api.WebhookRequest{OrgID: o.orgID, URL: o.to, Format: format})
	})
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(p.stdout, added)
	}
	fmt.Fprintf(p.stdout, "Webhook: %s\nSecret: %s\n", added.ID, added.Secret)
	fmt.Fprintln(p.stderr, "The secret is shown this once: receivers check signatures with it.")
	return nil
}

func (o *webhookOptions) list(ctx context.Context, p *program) error {
	if err := qgjob.CheckID("--org-id", o.orgID); err != nil {
		return err
	}
	answer, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.WebhookList, error) { return c.Webhooks(ctx, o.orgID) })
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(p.stdout, answer)
	}
	var rows [][]string
	for _, h := range answer.Webhooks {
		rows = append(rows, []string{h.ID, string(h.Format), h.URL, clockTime(h.CreatedAt)})
	}
	if len(rows) == 0 {
		fmt.Fprintln(p.stderr, "No webhooks.")
		return nil
	}
	p.printTable([]string{"WEBHOOK", "FORMAT", "URL", "CREATED"}, rows)
	return nil
}

func (o *webhookOptions) remove(ctx context.Context, p *program) error {
	if err := o.checkID(); err != nil {
		return err
	}
	_, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (struct{}, error) {
		return struct{}{}, c.RemoveWebhook(ctx, o.id)
	})
	if err == nil && !o.json {
		fmt.Fprintf(p.stdout, "Removed: %s\n", o.id)
	}
	return err
}

func (o *webhookOptions) deliveries(ctx context.Context, p *program) error {
	if err := o.checkID(); err != nil {
		return err
	}
	answer, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.DeliveryList, error) { return c.Deliveries(ctx, o.id) })
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(p.stdout, answer)
	}
	var rows [][]string
	for _, d := range answer.Deliveries {
		state := "given up"
		switch {
		case d.DeliveredAt != nil:
			state = "delivered"
		case d.NextAt != nil:
			state = "waiting"
		}
		rows = append(rows, []string{d.ID, state, d.RunID, fmt.Sprint(d.Tries), fmt.Sprint(d.Status), oneLine(d.Error)})
	}
	if len(rows) == 0 {
		fmt.Fprintln(p.stderr, "No deliveries.")
		return nil
	}
	p.printTable([]string{"DELIVERY", "STATE", "RUN", "TRIES", "STATUS", "ERROR"}, rows)
	return nil
}
