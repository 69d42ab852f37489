// Threads, scratch and memory of the engine.
//
// A pool has a fixed number of threads, the caller's among them (number 0). lyc_parallel cuts [0,count) into chunks of `grain` items that the
// threads draw from an atomic counter, so a thread that lost its core costs one chunk at most. A result may depend on how work was cut, which
// follows from the sizes, and never on which thread did a chunk or when: nothing may be summed across chunks but in a fixed order afterwards.
#ifndef LYC_POOL_H
#define LYC_POOL_H

#include <stddef.h>
#include <stdint.h>

typedef struct lyc_pool lyc_pool;

// A piece of work: items [begin,end) of a job, by thread number `thread` (0 .. threads-1).
typedef void (*lyc_task)(void *arg, int64_t begin, int64_t end, int thread);

// lyc_pool_open starts threads-1 workers; NULL if the system refuses.
lyc_pool *lyc_pool_open(int threads);
// lyc_pool_close ends the workers and frees the scratch.
void lyc_pool_close(lyc_pool *p);
int lyc_pool_threads(const lyc_pool *p);

// lyc_parallel runs fn over [0,count) in chunks of grain items (the last may be shorter) and returns when all are done. A chunk should take
// about 0.2 to 1 ms. One caller at a time; fn must not call lyc_parallel.
void lyc_parallel(lyc_pool *p, int64_t count, int64_t grain, lyc_task fn, void *arg);

// lyc_pool_reserve makes the scratch at least so large, in bytes; what was in it is lost. 0, or -1 without memory (the old one is kept).
int lyc_pool_reserve(lyc_pool *p, size_t shared, size_t per_thread);
// The shared scratch and that of one thread, both 4096-byte aligned. Valid until the next reserve.
void *lyc_shared(const lyc_pool *p);
void *lyc_scratch(const lyc_pool *p, int thread);

// lyc_map returns zeroed pages of at least `bytes` bytes, large pages asked for, or NULL. lyc_unmap gives them back; same size.
void *lyc_map(size_t bytes);
void lyc_unmap(void *ptr, size_t bytes);

#endif
