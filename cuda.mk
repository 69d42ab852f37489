# The build with CUDA: docs/design/0006-cuda-door.md.

# A folder with a CUDA 12 cuda.h. The default is filled by cuda-headers; a toolkit's own does as well.
CUDA_INCLUDE ?= $(CURDIR)/build/cuda/include
# The stand-in for -lcuda. Its folder is named by its sources, because the go command rebuilds for other flags, not for another archive behind them.
LIBCUDA_SOURCE := internal/kernels/cuda/libcuda
LIBCUDA := $(CURDIR)/build/libcuda/$(shell cat $(LIBCUDA_SOURCE)/* | cksum | cut -d' ' -f1)
# -L comes before the folders that gorgonia.org/cu names, so a machine's own libcuda.so is not linked. -g -O2 are cgo's defaults, which CGO_CFLAGS replaces.
CUDA_GO := CGO_ENABLED=1 CGO_CFLAGS='-g -O2 "-I$(CUDA_INCLUDE)"' CGO_LDFLAGS='"-L$(LIBCUDA)" -ldl -lpthread' $(GO)
# One set of flags for all, so that the C code of the CPU kernels is compiled once.
CUDA_FLAGS := -tags cuda -trimpath

.PHONY: cuda-headers cuda-libcuda cuda-build cuda-test cuda-test-if-headers

cuda-headers: ## fetch cuda.h (with pip, into build/)
	@./scripts/cuda-headers.sh '$(CUDA_INCLUDE)'

cuda-libcuda: setup $(LIBCUDA)/libcuda.a ## build the stand-in for -lcuda

$(LIBCUDA)/libcuda.a:
	$(LIBCUDA_SOURCE)/build.sh '$(LIBCUDA)'

cuda-build: cuda-headers cuda-libcuda ## build bin/lycoris-cuda: runs with and without a driver
	$(CUDA_GO) build $(CUDA_FLAGS) -ldflags '$(LDFLAGS)' -o bin/lycoris-cuda ./cmd/lycoris

cuda-test: cuda-build ## vet and test the build with CUDA, without a GPU
	$(CUDA_GO) vet $(CUDA_FLAGS) ./internal/kernels/cuda ./cmd/lycoris
	$(CUDA_GO) test $(CUDA_FLAGS) ./internal/kernels/cuda
	$(CUDA_GO) test $(CUDA_FLAGS) -run 'CUDA|Version|TestScripts/version' ./cmd/lycoris

# For make test: where there can be no cuda.h, one line says so.
cuda-test-if-headers:
	@if why=$$(./scripts/cuda-headers.sh '$(CUDA_INCLUDE)' 2>&1); then $(MAKE) --no-print-directory cuda-test; else echo "CUDA build not tested, skipped: $$why"; fi
