#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__x86_64__)
#define lyc_relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define lyc_relax() __asm__ volatile("yield")
#else
#define lyc_relax() ((void)0)
#endif

// How long a thread spins for news before it sleeps. Longer spinning is a trap where cores are shared: a spinning thread
// holds the core that the working one needs.
#define LYC_SPIN_NS 20000

// gate: bit 31 = a job may be joined, bits 0..30 = workers inside the job.
#define LYC_OPEN 0x80000000u

typedef struct {
    lyc_pool *pool;
    int thread;
} lyc_worker;

struct lyc_pool {
    // The job. Written by the caller while nobody is inside.
    lyc_task fn;
    void *arg;
    int64_t count, grain;
    _Alignas(64) _Atomic int64_t next;  // first item not drawn
    _Alignas(64) _Atomic uint32_t gate; // who may enter, who is inside
    _Alignas(64) _Atomic uint32_t bell; // number of the job; rung when one opens
    _Alignas(64) _Atomic int stop;
    _Atomic int sleepers;       // workers in a wait for the bell
    _Atomic int caller_asleep;  // the caller waits for the last one to leave
    pthread_mutex_t mutex;      // for sleeping only
    pthread_cond_t rung, left;
    int threads, started;
    pthread_t *ids;
    lyc_worker *workers;
    char *scratch; // shared part, then one part per thread
    size_t shared, per_thread;
};

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// draw does chunks of the present job until none is left.
static void draw(lyc_pool *p, int thread) {
    for (;;) {
        int64_t begin = atomic_fetch_add_explicit(&p->next, p->grain, memory_order_relaxed);
        if (begin >= p->count) return;
        int64_t end = p->count - begin < p->grain ? p->count : begin + p->grain;
        p->fn(p->arg, begin, end, thread);
    }
}

// wait_bell returns when the bell is no longer `seen`.
static void wait_bell(lyc_pool *p, uint32_t seen) {
    int64_t end = now_ns() + LYC_SPIN_NS;
    do {
        for (int i = 0; i < 64; i++) {
            if (atomic_load(&p->bell) != seen) return;
            lyc_relax();
        }
    } while (now_ns() < end);
    pthread_mutex_lock(&p->mutex);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->bell) == seen) pthread_cond_wait(&p->rung, &p->mutex);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->mutex);
}

static void *work(void *arg) {
    lyc_worker *w = arg;
    lyc_pool *p = w->pool;
    uint32_t seen = 0;
    for (;;) {
        wait_bell(p, seen);
        seen = atomic_load(&p->bell);
        if (atomic_load(&p->stop)) return NULL;
        uint32_t gate = atomic_load(&p->gate);
        while ((gate & LYC_OPEN) && !atomic_compare_exchange_weak(&p->gate, &gate, gate + 1)) {
        }
        if (!(gate & LYC_OPEN)) continue; // too late: the others have done it all
        draw(p, w->thread);
        if (atomic_fetch_sub(&p->gate, 1) == 1 && atomic_load(&p->caller_asleep)) {
            pthread_mutex_lock(&p->mutex);
            pthread_cond_signal(&p->left);
            pthread_mutex_unlock(&p->mutex);
        }
    }
}

static void ring(lyc_pool *p) {
    atomic_fetch_add(&p->bell, 1);
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_broadcast(&p->rung);
        pthread_mutex_unlock(&p->mutex);
    }
}

lyc_pool *lyc_pool_open(int threads) {
    lyc_pool *p = NULL;
    if (posix_memalign((void **)&p, 64, sizeof *p)) return NULL;
    *p = (lyc_pool){.threads = threads};
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->rung, NULL);
    pthread_cond_init(&p->left, NULL);
    p->ids = calloc((size_t)threads, sizeof *p->ids);
    p->workers = calloc((size_t)threads, sizeof *p->workers);
    if (!p->ids || !p->workers) {
        lyc_pool_close(p);
        return NULL;
    }
    // The Go runtime's signals are not for these threads.
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (int i = 1; i < threads; i++) {
        p->workers[i] = (lyc_worker){p, i};
        if (pthread_create(&p->ids[i], NULL, work, &p->workers[i])) break;
        p->started = i;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (p->started != threads - 1) {
        lyc_pool_close(p);
        return NULL;
    }
    return p;
}

void lyc_pool_close(lyc_pool *p) {
    atomic_store(&p->stop, 1);
    ring(p);
    for (int i = 1; i <= p->started; i++) pthread_join(p->ids[i], NULL);
    if (p->scratch) lyc_unmap(p->scratch, p->shared + (size_t)p->threads * p->per_thread + 4096);
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->rung);
    pthread_cond_destroy(&p->left);
    free(p->ids);
    free(p->workers);
    free(p);
}

int lyc_pool_threads(const lyc_pool *p) { return p->threads; }

void lyc_parallel(lyc_pool *p, int64_t count, int64_t grain, lyc_task fn, void *arg) {
    if (count <= 0) return;
    if (grain < 1) grain = 1;
    p->fn = fn;
    p->arg = arg;
    p->count = count;
    p->grain = grain;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    if (p->threads == 1 || count <= grain) {
        draw(p, 0);
        return;
    }
    atomic_store(&p->gate, LYC_OPEN);
    ring(p);
    draw(p, 0);
    // Whoever has not entered by now is not waited for.
    if (atomic_fetch_and(&p->gate, ~LYC_OPEN) == LYC_OPEN) return;
    int64_t end = now_ns() + LYC_SPIN_NS;
    do {
        for (int i = 0; i < 64; i++) {
            if (atomic_load(&p->gate) == 0) return;
            lyc_relax();
        }
    } while (now_ns() < end);
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->caller_asleep, 1);
    while (atomic_load(&p->gate) != 0) pthread_cond_wait(&p->left, &p->mutex);
    atomic_store(&p->caller_asleep, 0);
    pthread_mutex_unlock(&p->mutex);
}

static size_t round_page(size_t n) { return (n + 4095) & ~(size_t)4095; }

int lyc_pool_reserve(lyc_pool *p, size_t shared, size_t per_thread) {
    shared = round_page(shared);
    per_thread = round_page(per_thread);
    if (p->scratch && shared <= p->shared && per_thread <= p->per_thread) return 0;
    if (shared < p->shared) shared = p->shared;
    if (per_thread < p->per_thread) per_thread = p->per_thread;
    char *fresh = lyc_map(shared + (size_t)p->threads * per_thread + 4096);
    if (!fresh) return -1;
    if (p->scratch) lyc_unmap(p->scratch, p->shared + (size_t)p->threads * p->per_thread + 4096);
    p->scratch = fresh;
    p->shared = shared;
    p->per_thread = per_thread;
    return 0;
}

void *lyc_shared(const lyc_pool *p) { return p->scratch; }

void *lyc_scratch(const lyc_pool *p, int thread) { return p->scratch + p->shared + (size_t)thread * p->per_thread; }

void *lyc_map(size_t bytes) {
    void *ptr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ptr == MAP_FAILED) return NULL;
#ifdef MADV_HUGEPAGE
    if (bytes >= (size_t)4 << 20) madvise(ptr, bytes, MADV_HUGEPAGE);
#endif
    return ptr;
}

void lyc_unmap(void *ptr, size_t bytes) { munmap(ptr, bytes); }
