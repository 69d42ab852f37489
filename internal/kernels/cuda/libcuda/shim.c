// The stand-in for -lcuda: which driver, and what is answered without one.
//
// A program linked with it starts on any machine. cuInit succeeds and opens nothing: gorgonia.org/cu calls it before main and ends the process where it
// fails. The first other call opens the driver, once for the process, and fills the table that all trampolines jump through. Where there is no driver, or
// none that works, there are 0 devices, and every call that needs one answers CUDA_ERROR_NOT_INITIALIZED. A driver without some function
// answers CUDA_ERROR_NOT_SUPPORTED for that one.
//
// LYCORIS_CUDA_DRIVER names the driver's library: a path, "none", or unset for libcuda.so.1. LYCORIS_CUDA_WAIT is how many seconds it may take to start.
#include "shim.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "probe.h"

enum { success = 0, invalid_value = 1, not_initialized = 3, not_supported = 801 }; // CUresult
enum { default_wait = 4, longest_wait = 3600 };                                     // seconds

static const char *const names[] = {
#define SYMBOL(name) #name,
#include "symbols.h"
#undef SYMBOL
};
enum { count = sizeof names / sizeof *names };

// Where the trampoline of names[i] jumps to. trampolines.S defines it, with stubs that call lyc_cuda_resolve.
extern void *lyc_cuda_table[count];

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char why[lyc_cuda_why_size];

static int answer_success(void) { return success; }
static int answer_not_initialized(void) { return not_initialized; }
static int answer_not_supported(void) { return not_supported; }
static int answer_zero(int *n)
{
    if (!n)
        return invalid_value;
    *n = 0;
    return success;
}

static int wait_seconds(void)
{
    const char *text = getenv("LYCORIS_CUDA_WAIT");
    long n = text ? strtol(text, NULL, 10) : 0;
    return n >= 1 && n <= longest_wait ? (int)n : default_wait;
}

// Returns the driver, tried elsewhere and then started in this process; NULL with a sentence in why.
static void *start(const char *path)
{
    lyc_cuda_probe(path, wait_seconds(), why);
    if (*why)
        return NULL;
    void *driver = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    int (*init)(unsigned) = driver ? (int (*)(unsigned))dlsym(driver, "cuInit") : NULL;
    int code = init ? init(0) : not_supported;
    if (code == success)
        return driver;
    snprintf(why, sizeof why, "the CUDA driver %s starts at a trial only: cuInit then answers %d", path, code);
    return NULL;
}

// What the call names[i] reaches.
static void *target(void *driver, const char *name)
{
    if (!strcmp(name, "cuInit"))
        return (void *)answer_success;
    if (driver) {
        void *found = dlsym(driver, name);
        return found ? found : (void *)answer_not_supported;
    }
    if (!strcmp(name, "cuDeviceGetCount") || !strcmp(name, "cuDriverGetVersion"))
        return (void *)answer_zero;
    return (void *)answer_not_initialized;
}

static void open_driver(void)
{
    const char *path = getenv("LYCORIS_CUDA_DRIVER");
    if (!path || !*path)
        path = "libcuda.so.1";
    void *driver = NULL;
    if (strcmp(path, "none"))
        driver = start(path);
    else
        snprintf(why, sizeof why, "CUDA is switched off by LYCORIS_CUDA_DRIVER=none");
    for (int i = 0; i < count; i++)
        __atomic_store_n(&lyc_cuda_table[i], target(driver, names[i]), __ATOMIC_RELEASE);
}

// Called by the stub of names[i], which jumps to the result.
void *lyc_cuda_resolve(int i)
{
    if (!strcmp(names[i], "cuInit"))
        return (void *)answer_success;
    pthread_once(&once, open_driver);
    return __atomic_load_n(&lyc_cuda_table[i], __ATOMIC_ACQUIRE);
}

const char *lyc_cuda_why_absent(void)
{
    pthread_once(&once, open_driver);
    return why;
}
