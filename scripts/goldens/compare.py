"""Compares a `lycoris train --replay … --network-weights …` run with the peer trainer's.

    python scripts/goldens/compare.py --initial init.safetensors --expected final.safetensors --losses losses.json \
        --adapter runs/x/x.safetensors --metrics runs/x/metrics.jsonl
    python scripts/goldens/compare.py --case testdata/golden/replay/te-accum-clip --adapter … --metrics …

The run must save in float32 (`--set save.dtype=fp32`): bfloat16 rounding alone is as large as a few steps' update. Asked: the loss of
every step within 1e-4 relative; the update (final minus initial) within 1 % in L2, over all tensors together and over each set
(unet/te x down/up/mid). Prints a table; exit status 1 where something is beyond its bound.
"""

import argparse
import collections
import json
import pathlib
import sys

from common import read
from replay import TE, TE_FILE

LOSS_BOUND, UPDATE_BOUND = 1e-4, 1e-2


def canonical(adapter: dict) -> dict:
    """Both spellings of the text encoder's names become the one with text_model."""
    return {TE_FILE + k.removeprefix(TE) if k.startswith(TE) and not k.startswith(TE_FILE) else k: v.double() for k, v in adapter.items()}


def step_losses(path: pathlib.Path) -> dict[int, dict]:
    """The last line of each step: a resumed run may hold a step twice. A torn last line is ignored."""
    out = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row.get("type") == "step":
            out[row["step"]] = row
    return out


def compare_losses(want: list[dict], got: dict[int, dict]) -> bool:
    print(f"{'step':>5} {'peer loss':>12} {'lycoris':>12} {'relative':>9} {'peer norm':>11} {'lycoris':>11}")
    good = True
    for w in want:
        g = got.get(w["step"])
        if g is None or g.get("loss") is None:
            print(f"{w['step']:5d} {w['loss']:12.7f} {'missing':>12}")
            good = False
            continue
        error = abs(g["loss"] - w["loss"]) / abs(w["loss"])
        norm = g.get("grad_norm")
        print(f"{w['step']:5d} {w['loss']:12.7f} {g['loss']:12.7f} {error:9.1e} {w['grad_norm']:11.6f} {norm if norm is None else f'{norm:11.6f}'}"
              + ("" if error <= LOSS_BOUND else "  <-- beyond 1e-4"))
        good &= error <= LOSS_BOUND
    return good


def compare_adapters(initial: dict, want: dict, got: dict) -> bool:
    if want.keys() != got.keys():
        print("keys differ: missing", sorted(want.keys() - got.keys())[:5], "extra", sorted(got.keys() - want.keys())[:5])
        return False
    sums, worst, good = collections.defaultdict(lambda: [0.0, 0.0, 0]), (0.0, ""), True
    for key, w in want.items():
        if got[key].shape != w.shape:
            print("shape of", key, tuple(got[key].shape), "want", tuple(w.shape))
            return False
        if key.endswith(".alpha"):
            if (got[key] - w).abs().max() > 1e-6 * w.abs().max():
                print("alpha of", key, got[key].item(), "want", w.item())
                good = False
            continue
        error, update = ((got[key] - w) ** 2).sum().item(), ((w - initial[key]) ** 2).sum().item()
        side = "te" if key.startswith(TE) else "unet"
        for name in ("all", f"{side} {key.split('.')[1].removeprefix('lora_')}"):
            sums[name][0] += error
            sums[name][1] += update
            sums[name][2] += 1
        if update and (error / update) ** 0.5 > worst[0]:
            worst = ((error / update) ** 0.5, key)
    print(f"\n{'set':<10} {'tensors':>8} {'|update|':>10} {'difference':>11}")
    for name, (error, update, n) in sorted(sums.items()):
        ratio = (error / update) ** 0.5 if update else (0.0 if error == 0 else float("inf"))
        print(f"{name:<10} {n:8d} {update ** 0.5:10.4g} {ratio:10.3%}" + ("" if ratio <= UPDATE_BOUND else "  <-- beyond 1 %"))
        good &= ratio <= UPDATE_BOUND
    print(f"worst tensor {worst[0]:.3%} {worst[1]}")
    return good


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--case", type=pathlib.Path, help="a folder with adapter, expected.safetensors and losses.json")
    p.add_argument("--initial", type=pathlib.Path)
    p.add_argument("--expected", type=pathlib.Path)
    p.add_argument("--losses", type=pathlib.Path)
    p.add_argument("--adapter", type=pathlib.Path, required=True)
    p.add_argument("--metrics", type=pathlib.Path, required=True)
    args = p.parse_args()
    if args.case:
        args.initial = args.initial or args.case / "adapter.safetensors"
        args.expected = args.expected or args.case / "expected.safetensors"
        args.losses = args.losses or args.case / "losses.json"
    if not (args.initial and args.expected and args.losses):
        p.error("give --case, or all of --initial, --expected and --losses")
    good = compare_losses(json.loads(args.losses.read_text())["steps"], step_losses(args.metrics))
    good &= compare_adapters(*(canonical(read(path)) for path in (args.initial, args.expected, args.adapter)))
    print("equal within the bounds" if good else "NOT equal within the bounds")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
