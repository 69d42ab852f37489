"""What the golden makers share: random streams, randomised models, safetensors writing, comparing.

Random values come from numpy's PCG64 and not from torch, whose normal generator differs in the last bits between
instruction sets: the same script gives the same weights and inputs on every machine.
"""

import json
import os
import pathlib
import zlib

# A core type set for other tools would change numpy's BLAS and with it the last bits.
os.environ.pop("OPENBLAS_CORETYPE", None)
os.environ.pop("OPENBLAS_L2_SIZE", None)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("LYCORIS_KERNEL_BACKEND", "torch")

import numpy as np
import torch
from safetensors.torch import load_file, save_file

REPO = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = REPO / "testdata" / "golden"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def setup() -> None:
    """One thread and deterministic kernels: sums are made in one order."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def stream(name: str) -> np.random.Generator:
    """The random stream called name."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def normal(rng: np.random.Generator, *shape: int, std: float = 1.0) -> torch.Tensor:
    """A float32 tensor of normal values."""
    return torch.from_numpy((rng.standard_normal(shape) * std).astype(np.float32))


def randomise(model: torch.nn.Module, name: str, dtype: str) -> torch.nn.Module:
    """Fills every parameter with random values and rounds it to dtype, staying in float32 for the arithmetic.

    Matrices and kernels get a standard deviation of fan_in^-1/2, norm weights lie around 1, biases around 0, so that no
    parameter can be left out or swapped without the outputs changing.
    """
    rng = stream(name)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.ndim == 1 and key.endswith("weight"):  # norms
                value = 1 + normal(rng, *p.shape, std=0.2)
            elif p.ndim == 1:
                value = normal(rng, *p.shape, std=0.1)
            elif "embedding" in key and "linear" not in key:  # token and position tables
                value = normal(rng, *p.shape, std=0.5)
            else:
                value = normal(rng, *p.shape, std=p[0].numel() ** -0.5)
            p.copy_(value.to(DTYPES[dtype]).float())
    return model.float().eval().requires_grad_(False)


def write(path: pathlib.Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path, metadata)
    path.chmod(0o644)


def write_json(path: pathlib.Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n")


def read(path) -> dict[str, torch.Tensor]:
    return load_file(path)


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest difference over the largest value."""
    got, want = got.double(), want.double()
    return ((got - want).abs().max() / want.abs().max().clamp_min(1e-30)).item() if want.numel() else 0.0
