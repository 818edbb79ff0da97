package cli

import (
	"math"
	"time"

	"github.com/spf13/pflag"

	"qgjob/internal/device"
	"qgjob/internal/device/browserstack"
)

// browserstackOptions say whether and how a worker uses the account of BrowserStack in its environment.
type browserstackOptions struct {
	parallels int // at most; allParallels for as many as the plan has, 0 for none
	queueWait time.Duration
	price     float64
	url       string
}

const allParallels = -1

// longestQueueWait leaves time of an attempt's setup for the rest of it, so that the wait names itself when it ends.
const longestQueueWait = 9 * time.Minute

func (o *browserstackOptions) flags(f *pflag.FlagSet) {
	f.IntVar(&o.parallels, "browserstack-parallels", allParallels, "use at most so many parallels of the BrowserStack account; 0 for none (default: all of the plan)")
	f.Lookup("browserstack-parallels").DefValue = "0" // which is not shown: the text says it
	f.DurationVar(&o.queueWait, "browserstack-queue-wait", 8*time.Minute, "how long a job waits for a parallel that others on the account use")
	f.Float64Var(&o.price, "browserstack-minute-price", 0, "what a minute on BrowserStack costs, to count the cost of each attempt")
	f.StringVar(&o.url, "browserstack-url", "", "`URL` of a stand-in, as of qgjob phone browserstack, in place of BrowserStack")
}

func (o *browserstackOptions) check() error {
	switch {
	case o.parallels < allParallels:
		return exitf(exitUsage, "--browserstack-parallels must be 0 (none) or more; leave it out for all of the plan")
	case o.queueWait <= 0 || o.queueWait > longestQueueWait:
		return exitf(exitUsage, "--browserstack-queue-wait must be between 1s and %v: a job's setup may not take longer", longestQueueWait)
	case o.price < 0 || math.IsNaN(o.price) || math.IsInf(o.price, 0):
		return exitf(exitUsage, "--browserstack-minute-price must be 0 or more")
	}
	return nil
}

// driver is nil where there are no credentials, or BrowserStack is not to be used.
func (o *browserstackOptions) driver(p *program, dataDir string) (device.Driver, error) {
	username, key := p.env("BROWSERSTACK_USERNAME"), p.env("BROWSERSTACK_ACCESS_KEY")
	if o.parallels == 0 || username == "" && key == "" {
		return nil, nil
	}
	d, err := browserstack.New(browserstack.Options{
		Username: username, AccessKey: key, URL: o.url, Slots: max(0, o.parallels),
		QueueWait: o.queueWait, MinutePrice: o.price, DataDir: dataDir, Log: p.logger(),
	})
	if err != nil {
		return nil, exitf(exitUsage, "%v; --browserstack-parallels=0 does without", err)
	}
	return d, nil
}
