// worker: the engine's thread: takes jobs, lets the scheduler order them, and computes.
//
// Owns the sessions and the choices. Answers with events in the outbox of the event thread.
#pragma once
#include "job.h"
#include "metrics.h"
#include "scheduler.h"

typedef struct Worker Worker;

// The thread starts at once. The model, the metrics and the outbox outlive it. NULL with a line in err.
Worker *worker_open(const Served *model, const SessionOptions *session, const SchedulerOptions *scheduler, bool exact,
                    Metrics *metrics, Mailbox *outbox, char *err, size_t errlen);
void worker_close(Worker *w); // after the last job came back; accepts NULL

void worker_give(Worker *w, Job *job);
void worker_wake(Worker *w); // a flag of a job has changed
