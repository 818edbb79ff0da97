package main

import (
	"fmt"
	"time"

	"qgjob/bench/internal/result"
)

// The aims.
const (
	aimTimes = 5.0     // how many times faster a batch is
	aimScale = 7.0 / 8 // of the phones' number: throughput of several phones, by one phone's
)

func batchTables(o options, stock, ours measured) string {
	rows := [][]string{
		{fmt.Sprintf("%d specs, one phone, install %s", o.specs, o.install), "stock AppWright", "qgjob"},
		{"installs of the app, by the phone's account", fmt.Sprint(stock.installs), fmt.Sprint(ours.installs)},
		{"sessions made on the phone", fmt.Sprint(stock.sessions), fmt.Sprint(ours.sessions)},
		{"wall time", seconds(stock.wall), seconds(ours.wall)},
		{"wall time for each spec", seconds(stock.wall / time.Duration(stock.specs)), seconds(ours.wall / time.Duration(ours.specs))},
		{"from the first verdict on, for each spec", "", seconds(ours.steady / time.Duration(max(1, ours.specs-1)))},
		{"processor time for each spec", seconds(stock.cpu / time.Duration(stock.specs)), seconds(ours.cpu / time.Duration(ours.specs))},
		{"most memory, server, phone and all", mib(stock.memory), mib(ours.memory)},
	}
	times := float64(stock.wall) / float64(ours.wall)
	aims := [][]string{
		{"aim", "bound", "measured", "met"},
		{"installs", fmt.Sprintf("%d against 1", o.specs), fmt.Sprintf("%d against %d", stock.installs, ours.installs), yes(stock.installs >= o.specs && ours.installs == 1)},
		{"stock's wall time, times qgjob's", fmt.Sprintf("at least %.1f×", aimTimes), fmt.Sprintf("%.1f×", times), yes(times >= aimTimes)},
	}
	return "### A batch\n\n" + result.Markdown(rows) + "\n" + result.Markdown(aims) + "\n"
}

func fleetTables(name string, aimed bool, one, many measured) string {
	rate := func(m measured) float64 { return float64(m.specs-m.phones) / m.steady.Minutes() }
	line := func(m measured) []string {
		return []string{
			fmt.Sprint(m.phones), fmt.Sprint(m.specs), seconds(m.wall), fmt.Sprintf("%.1f", rate(m)),
			seconds(m.cpu / time.Duration(m.specs)), mib(m.memory / int64(m.phones)), fmt.Sprint(m.installs),
		}
	}
	rows := [][]string{{"phones on one worker", "specs", "wall time", "specs a minute", "processor time a spec", "memory a phone", "installs"}, line(one), line(many)}
	times := rate(many) / rate(one)
	text := fmt.Sprintf("### %d phones, %s\n\n%s\n", many.phones, name, result.Markdown(rows))
	row := []string{fmt.Sprintf("throughput of %d phones, times one phone's", many.phones), "what the processors allow", fmt.Sprintf("%.1f×", times), ""}
	if aimed {
		row[1], row[3] = fmt.Sprintf("at least %.1f×", aimScale*float64(many.phones)), yes(times >= aimScale*float64(many.phones))
	}
	return text + result.Markdown([][]string{{"aim", "bound", "measured", "met"}, row}) + "\n"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func mib(bytes int64) string { return fmt.Sprintf("%d MiB", bytes>>20) }

func yes(met bool) string {
	if met {
		return "yes"
	}
	return "**no**"
}
