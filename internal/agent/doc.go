// Package agent is the worker: it finds devices, asks the server for work, runs one attempt at a time on
// each device, and reports how each ended.
//
// It promises that a device which is free has been offered to the server, that a test whose lease ended or
// whose job was canceled does not go on, that a result is reported once and survives a server that is away
// and a worker that is restarted, and that nothing of a worker that has ended goes on running.
//
// There is one file a loop: discover.go keeps the list of devices, serve.go runs the attempts of one
// device, heartbeat.go keeps leases alive and ends those that ran out, poll.go hands in results and takes
// work; logs.go sends the output of one attempt. They share the state in agent.go under one lock, which is
// never held while anything is waited for. attempt.go is the way of one attempt from a bundle to a result;
// spool.go keeps what was not yet delivered, cache.go what was downloaded.
//
// The package drives devices through package device only, and knows the server by its API only.
package agent
