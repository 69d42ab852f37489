// What the stand-in for -lcuda adds to the driver's functions, which cuda.h declares.
#ifndef LYC_CUDA_SHIM_H
#define LYC_CUDA_SHIM_H

// Opens the driver, if no call has done that yet. Returns "" where there is one with a device, else one sentence without a full stop that says why
// not. The text is never freed. Any thread may ask.
const char *lyc_cuda_why_absent(void);

#endif
