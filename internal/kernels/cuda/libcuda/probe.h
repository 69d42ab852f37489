// A trial of a driver in a process of its own.
#ifndef LYC_CUDA_PROBE_H
#define LYC_CUDA_PROBE_H

enum { lyc_cuda_why_size = 512 };

// Loads the library path in a child process, starts it as a CUDA driver and asks for its devices, all that the Go package asks. Writes "" into why where that worked and there
// is a device, else one sentence. A driver that crashes ends the child only; one that says nothing for so many seconds is given up.
void lyc_cuda_probe(const char *path, int seconds, char why[lyc_cuda_why_size]);

#endif
