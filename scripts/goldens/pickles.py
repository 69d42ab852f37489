"""Writes the tiny files of torch that internal/pickle is tested with.

    python scripts/goldens/pickles.py internal/pickle/testdata
"""

import collections
import pathlib
import sys
import types

import torch


def checkpoint():
    """Weights in every form a tensor has in a file, beside what a trainer leaves."""
    base = torch.arange(6, dtype=torch.float32)
    callback = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")  # a stand-in: only its name gets into the file
    callback.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": callback.__name__})
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", callback.__name__):
        sys.modules[name] = callback
    weights = collections.OrderedDict({
        "plain.weight": base.reshape(2, 3),
        "transposed.weight": base.reshape(2, 3).half().T,
        "tail.bias": base[4:],  # the same storage as plain.weight
        "half": torch.tensor([0.5, -2], dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "empty": torch.zeros(0, 4),
    })
    weights._metadata = {"": {"version": 1}}
    return {"epoch": 3, "global_step": 42, "state_dict": weights, "callbacks": {callback.ModelCheckpoint: {"best": torch.tensor(1.0)}}}


def main():
    out = pathlib.Path(sys.argv[1])
    torch.save(checkpoint(), out / "zip.ckpt")
    torch.save(checkpoint(), out / "legacy.pt", _use_new_zipfile_serialization=False)
    embedding = {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.arange(8, dtype=torch.float32).reshape(2, 4)}, "name": "cat", "step": 10}
    torch.save(embedding, out / "embedding.pt")


if __name__ == "__main__":
    main()
