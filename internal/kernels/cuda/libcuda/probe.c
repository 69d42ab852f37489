// Trying a driver where it can do no harm.
//
// The child is forked, not started anew: the question needs no second program and no hook in main. After fork it only calls C: glibc puts its own
// locks right there, and Go's runtime is never entered again.
#define _GNU_SOURCE
#include "probe.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { no_device = 100 };                               // CUDA_ERROR_NO_DEVICE
enum { capability_major = 75, capability_minor = 76 };  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…

// The functions below, which a library must have to be taken for a driver.
static const char *const needed[] = {"cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceTotalMem_v2", "cuDeviceGetAttribute"};

// Returns the name of an error, CUDA_ERROR_….
static const char *error_name(void *driver, int code)
{
    int (*name_of)(int, const char **) = (int (*)(int, const char **))dlsym(driver, "cuGetErrorName");
    const char *name = NULL;
    return name_of && name_of(code, &name) == 0 && name ? name : "an error without a name";
}

// Asks what Devices of the Go package asks of each device. Answers don't matter here, only that there are some.
static void describe_devices(void *driver, int n)
{
    int (*get)(int *, int) = (int (*)(int *, int))dlsym(driver, "cuDeviceGet");
    int (*name)(char *, int, int) = (int (*)(char *, int, int))dlsym(driver, "cuDeviceGetName");
    int (*memory)(size_t *, int) = (int (*)(size_t *, int))dlsym(driver, "cuDeviceTotalMem_v2");
    int (*attribute)(int *, int, int) = (int (*)(int *, int, int))dlsym(driver, "cuDeviceGetAttribute");
    for (int i = 0; i < n; i++) {
        int device = 0, value;
        char text[256];
        size_t bytes;
        if (get(&device, i))
            continue;
        name(text, sizeof text, device);
        memory(&bytes, device);
        attribute(&value, capability_major, device);
        attribute(&value, capability_minor, device);
    }
}

static void try_driver(const char *path, char why[lyc_cuda_why_size])
{
    void *driver = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!driver) {
        snprintf(why, lyc_cuda_why_size, "no CUDA driver library could be loaded: %s", dlerror());
        return;
    }
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!dlsym(driver, needed[i])) {
            snprintf(why, lyc_cuda_why_size, "the CUDA driver %s is too old, or is none: it has no %s", path, needed[i]);
            return;
        }
    int code = ((int (*)(unsigned))dlsym(driver, "cuInit"))(0);
    if (code) {
        const char *what = code == no_device ? "sees no device" : "does not start";
        snprintf(why, lyc_cuda_why_size, "the CUDA driver %s %s: cuInit answers %d (%s)", path, what, code, error_name(driver, code));
        return;
    }
    int n = 0;
    code = ((int (*)(int *))dlsym(driver, "cuDeviceGetCount"))(&n);
    if (code)
        snprintf(why, lyc_cuda_why_size, "the CUDA driver %s does not count its devices: cuDeviceGetCount answers %d (%s)", path, code, error_name(driver, code));
    else if (n < 1)
        snprintf(why, lyc_cuda_why_size, "the CUDA driver %s sees no device", path);
    else
        describe_devices(driver, n);
}

// Writes the sentence that try_driver found, with its final 0, to the pipe. Never returns.
static void child(int pipe_end, const char *path, int seconds)
{
    for (int s = 1; s < NSIG; s++) // Go's handlers don't belong to this process
        signal(s, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL); // it doesn't outlive the program,
    alarm((unsigned)seconds + 1);     // nor its question
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) // a driver's words are not results of the program; they come again, from it, if it is used
        dup2(null, fd);
    char why[lyc_cuda_why_size] = "";
    try_driver(path, why);
    ssize_t written = write(pipe_end, why, strlen(why) + 1);
    _exit(written < 0);
}

static int64_t milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// What came of the child's sentence.
enum outcome { answered, ended, silent };

// Reads a sentence up to its final 0. until is a time of milliseconds().
static enum outcome read_sentence(int fd, char why[lyc_cuda_why_size], int64_t until)
{
    size_t n = 0;
    for (;;) {
        int64_t left = until - milliseconds();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready = poll(&p, 1, left > 0 ? (int)left : 0);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return silent;
        ssize_t got = read(fd, why + n, lyc_cuda_why_size - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return ended;
        n += (size_t)got;
        if (!why[n - 1])
            return answered;
        if (n == lyc_cuda_why_size)
            return ended;
    }
}

// Takes the child's exit status off the system; -1 if the child doesn't end in time, as one that a kernel call holds doesn't, killed or not.
static int reap(pid_t pid, int64_t until)
{
    int status;
    for (;;) {
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid)
            return status;
        if (got < 0 && errno != EINTR)
            return -1;
        if (milliseconds() >= until)
            return -1;
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
}

void lyc_cuda_probe(const char *path, int seconds, char why[lyc_cuda_why_size])
{
    enum { grace = 200 }; // milliseconds for the end of a process that was killed, or said all
    int ends[2];
    pid_t pid = -1;
    *why = 0;
    if (pipe2(ends, O_CLOEXEC) == 0 && (pid = fork()) < 0) {
        close(ends[0]);
        close(ends[1]);
    }
    if (pid < 0) {
        snprintf(why, lyc_cuda_why_size, "the CUDA driver %s was not tried, for want of a process to try it in: %s", path, strerror(errno));
        return;
    }
    if (pid == 0)
        child(ends[1], path, seconds);
    close(ends[1]);
    int64_t until = milliseconds() + (int64_t)seconds * 1000;
    enum outcome how = read_sentence(ends[0], why, until);
    close(ends[0]);
    if (how == silent)
        kill(pid, SIGKILL);
    int status = reap(pid, milliseconds() + grace);
    if (how == answered)
        return;
    if (how == silent)
        snprintf(why, lyc_cuda_why_size, "the CUDA driver %s gives no answer within %d s (LYCORIS_CUDA_WAIT=60 gives it a minute)", path, seconds);
    else if (status != -1 && WIFSIGNALED(status))
        snprintf(why, lyc_cuda_why_size, "the CUDA driver %s crashes when it is asked for its devices: %s", path, strsignal(WTERMSIG(status)));
    else
        snprintf(why, lyc_cuda_why_size, "the CUDA driver %s ends the process that asks for its devices", path);
}
