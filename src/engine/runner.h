// runner: runs forward passes for the sessions of an engine: threads, scratch memory, activation buffers. Sessions with
// the same number of threads and the same precision share one, so that an idle session costs neither a thread nor a
// buffer.
//
// Owns the lock that lets one pass of a runner run at a time. If memory runs out, a pass fails before anything is
// computed.
#pragma once
#include "decoder.h"
#include "prefixes.h"

typedef struct Runner Runner;
typedef struct Runners Runners; // all runners of an engine, by their number of threads and precision

// NULL with a line in err.
Runners *runners_open(const Decoder *d, char *err, size_t errlen);
void runners_close(Runners *all);   // after every session; accepts NULL
KvPool *runners_pool(Runners *all); // of the KV cache blocks of all sessions
Prefixes *runners_prefixes(Runners *all);

// The runner with n_threads threads, `fast` as in Compute, started when the first session asks for it and stopped when
// the last gives it back. NULL with a line in err. Both calls may come from any thread.
Runner *runner_take(Runners *all, int n_threads, bool fast, char *err, size_t errlen);
void runner_release(Runners *all, Runner *r); // accepts NULL
int runner_threads(const Runner *r);

// Segments of up to so many tokens share a pass where `exact` is asked for.
enum { EXACT_ROWS = 8 };

// How a pass is computed.
typedef struct {
    bool exact;       // no segment's bits depend on the others: short ones are computed row by row, as if each token
                      // were decoded alone; each longer one is a pass of its own
    Profile *profile; // where to add the pass's times; NULL: nowhere
} PassOptions;

// Compute the new tokens of at most MAX_SEGMENTS segments as one pass and advance their memories, which have room for
// them. -1 with a line in err, and no memory advanced. Calls from several threads wait for one another.
int runner_step(Runner *r, const DecoderSegment *segments, int n, PassOptions options, char *err, size_t errlen);
