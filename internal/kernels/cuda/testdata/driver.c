// A CUDA driver for tests: two devices, a few functions, and flaws by -D.
//
//   LOAD_EXITS        ends the process when it is loaded          INIT_ANSWERS=N   cuInit's result
//   INIT_CRASHES      cuInit writes to address 0                  DEVICES=N        how many there are
//   INIT_EXITS        cuInit calls exit(0)                        COUNT_ANSWERS=N  cuDeviceGetCount's result
//   INIT_HANGS        cuInit doesn't come back                    NAME_FAILS       device 1 has no name
//   NAME_CRASHES      cuDeviceGetName calls abort                 OLD              there is no cuDeviceTotalMem_v2
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef DEVICES
#define DEVICES 2
#endif
#ifndef INIT_ANSWERS
#define INIT_ANSWERS 0
#endif
#ifndef COUNT_ANSWERS
#define COUNT_ANSWERS 0
#endif

enum { invalid_value = 1, invalid_device = 101, unknown = 999 };

static int started;

#ifdef LOAD_EXITS
__attribute__((constructor)) static void load(void) { _exit(0); }
#endif

int cuInit(unsigned flags)
{
    if (INIT_ANSWERS) { // words of a driver that isn't used afterwards
        printf("fake driver is unwell\n");
        fflush(stdout);
    }
#ifdef INIT_CRASHES
    *(volatile int *)0 = 0;
#endif
#ifdef INIT_EXITS
    exit(0);
#endif
#ifdef INIT_HANGS
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    for (;;)
        pause();
#endif
    if (flags)
        return invalid_value;
    started = INIT_ANSWERS == 0;
    return INIT_ANSWERS;
}

int cuDeviceGetCount(int *n)
{
    *n = DEVICES;
    return started ? COUNT_ANSWERS : unknown;
}

int cuDeviceGet(int *device, int ordinal)
{
    *device = 40 + ordinal; // a handle isn't an index
    return ordinal < DEVICES ? 0 : invalid_device;
}

int cuDeviceGetName(char *name, int size, int device)
{
#ifdef NAME_CRASHES
    abort();
#endif
#ifdef NAME_FAILS
    if (device == 41)
        return unknown;
#endif
    snprintf(name, (size_t)size, "Fake GPU %c", 'A' + device - 40);
    return 0;
}

#ifndef OLD
int cuDeviceTotalMem_v2(size_t *bytes, int device)
{
    *bytes = (size_t)(device - 39) * 24 << 30;
    return 0;
}
#endif

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    if (attribute != 75 && attribute != 76)
        return invalid_value;
    *value = attribute == 75 ? 8 : device - 40;
    return 0;
}

int cuGetErrorName(int code, const char **name)
{
    if (code != unknown && code != 100)
        return invalid_value;
    *name = code == unknown ? "CUDA_ERROR_UNKNOWN" : "CUDA_ERROR_NO_DEVICE";
    return 0;
}

// Succeeds if all eleven arguments arrived, those on the stack too.
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **params, void **extra)
{
    return !f && gx == 1 && gy == 2 && gz == 3 && bx == 4 && by == 5 && bz == 6 && shared == 7 && !stream && params && *(unsigned long long *)params[0] == 8 && !extra ? 0 : invalid_value;
}
