package qgjob

import "time"

// Event records one move of a job through its state machine. Events of a job are numbered from 1 without
// gaps; together they are its whole life.
type Event struct {
	JobID    string    `json:"job_id"`
	Seq      int       `json:"seq" doc:"1 for the job's first event"`
	Trigger  Trigger   `json:"trigger" enum:"submit,assign,pass,retry,hand_back,fail,error,cancel,stop"`
	State    JobState  `json:"state" doc:"the state that it led to"`
	Attempt  int       `json:"attempt,omitempty" doc:"number of the attempt that it concerns"`
	DeviceID string    `json:"device_id,omitempty"`
	Outcome  Outcome   `json:"outcome,omitempty" doc:"of the attempt that ended"`
	Cause    Cause     `json:"cause,omitempty"`
	Message  string    `json:"message,omitempty"`
	At       time.Time `json:"at" doc:"by the database's clock"`
}
