"""Goldens of every algorithm: lycoris-lora's modules in their rebuild form, forward and every gradient.

    python scripts/goldens/lycoris_algos.py [--out testdata/golden]

algos.safetensors  one layer: <layer>.W, [.b], .x, .dy; x is [N,C,H,W] or [B,T,I]
                   one case:  <case>.file.<key>, the module as lycoris writes it to a file; <case>@<mu>.y, .dx and .grad.<key>, the gradient of
                   each trained value by the key that it has in the file
algos.json         layers: kind, stride, padding, groups; cases: case, algo, layer, variant, options of Python, mu, keys (in the order of the
                   state dict), and what a step of it needs: block, block_size (dylora), timestep (tlora: the mask of that step)

Each module gets random values in everything that it trains, is written and read once (so that a trained scalar is 1 and folded into a factor,
as after any resume), and then run at every multiplier mu.

Where lycoris's own training differs from what its file means, the numbers are those of the file, as ours train (algorithms.md):
- dylora: lycoris takes alpha over the number of active blocks, a reader alpha over the rank. Ours is alpha over the active ranks: the same for
  block size 1; for others the module's alpha is divided by the block size here, and the file's is not.
- glora with rs_lora: lycoris writes alpha as given, a reader divides by the rank. The file here has alpha times the root of the rank.
- lokr with two full factors: no rs_lora case, its scale is 1.
glokr is in no library: it is computed here in float64 from its definition (docs/design, algorithms.md 9).
"""

import argparse
import json
import logging
import math
import pathlib

from common import GOLDEN, normal, setup, stream, write  # first: it sets the environment

import glokr
import torch

from lycoris.logging import logger as lycoris_logger
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.dylora import DyLoraModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule
from lycoris.modules.tlora import TLoraModule, clear_timestep_mask, compute_timestep_mask, set_timestep_mask

LAYERS = {
    "linear": dict(kind="linear", shape=(16, 12), x=(2, 3, 12)),
    "linear_nobias": dict(kind="linear", shape=(12, 8), x=(1, 5, 8), bias=False),
    "conv1": dict(kind="conv", shape=(16, 12, 1, 1), x=(1, 12, 2, 3)),
    "conv3": dict(kind="conv", shape=(8, 6, 3, 3), x=(1, 6, 3, 4), padding=1),
    "conv3_stride": dict(kind="conv", shape=(8, 6, 3, 3), x=(2, 6, 5, 4), padding=1, stride=2),
    "layernorm": dict(kind="layernorm", shape=(12,), x=(2, 3, 12)),
    "groupnorm": dict(kind="groupnorm", shape=(12,), x=(2, 12, 2, 3), groups=4),
}
WINDOWS = ("conv3", "conv3_stride")
WEIGHTS = ("linear", "conv1") + WINDOWS
MODULES = {"lora": LoConModule, "loha": LohaModule, "lokr": LokrModule, "full": FullModule, "ia3": IA3Module, "dylora": DyLoraModule,
           "glora": GLoRAModule, "diag-oft": DiagOFTModule, "boft": ButterflyOFTModule, "tlora": TLoraModule, "norm": NormModule}

# Options by variant. "layers" names the layers, where it isn't all with a weight.
LOW = dict(lora_dim=4, alpha=2.0)
ONE = dict(lora_dim=1, alpha=0.5)
DORA_OUT, DORA_IN = dict(weight_decompose=True, wd_on_out=True), dict(weight_decompose=True, wd_on_out=False)
NOBIAS = dict(layers=("linear_nobias",))
LOW_RANK = {
    "plain": LOW, "no bias": LOW | NOBIAS, "rank 1": dict(lora_dim=1, alpha=0), "scalar": LOW | dict(use_scalar=True),
    "rs": LOW | dict(rs_lora=True), "dora out": LOW | DORA_OUT, "dora in": LOW | DORA_IN,
    "dora out scalar": LOW | DORA_OUT | dict(use_scalar=True), "tucker": LOW | dict(use_tucker=True, layers=WINDOWS),
    "tucker scalar": LOW | dict(use_tucker=True, use_scalar=True, layers=WINDOWS),
    "dora out tucker": LOW | DORA_OUT | dict(use_tucker=True, layers=WINDOWS), "dora in tucker": LOW | DORA_IN | dict(use_tucker=True, layers=WINDOWS),
}
KRON = {
    "plain": LOW, "no bias": ONE | NOBIAS, "rank 1": ONE, "huge dim": dict(lora_dim=100000, alpha=1.0), "scalar": LOW | dict(use_scalar=True),
    "rank 1 scalar": ONE | dict(use_scalar=True), "rank 1 rs": dict(lora_dim=1, alpha=0.5, rs_lora=True), "factor 2": ONE | dict(factor=2),
    "factor 2 rs": dict(lora_dim=2, alpha=1.0, factor=2, rs_lora=True, layers=("linear", "conv1")), "factor 4": ONE | dict(factor=4),
    "decompose both": ONE | dict(decompose_both=True), "decompose both scalar": ONE | dict(decompose_both=True, use_scalar=True),
    "full matrix": ONE | dict(full_matrix=True), "unbalanced": ONE | dict(unbalanced_factorization=True),
    "unbalanced both": ONE | dict(unbalanced_factorization=True, decompose_both=True, factor=4), "factor 1": ONE | dict(factor=1),
    "tucker": ONE | dict(use_tucker=True, layers=WINDOWS),
}
OFT = {
    "plain": dict(lora_dim=4), "no bias": dict(lora_dim=4) | NOBIAS, "dim 2": dict(lora_dim=2), "constraint": dict(lora_dim=4, constraint=0.05),
    "loose constraint": dict(lora_dim=4, constraint=50.0), "rescaled": dict(lora_dim=4, rescaled=True),
    "rescaled constraint": dict(lora_dim=4, rescaled=True, constraint=0.02),
}
DYLORA = {f"block {b} of {r}, {k}": dict(lora_dim=r, alpha=2.0, block_size=b, block=k)
          for r, b in ((4, 1), (4, 2), (4, 4), (6, 2)) for k in range(r // b)}
FLAT = ("linear", "conv1")
CASES = {
    "lora": LOW_RANK,
    "loha": LOW_RANK,
    "lokr": KRON | {"rank 1 dora out": ONE | DORA_OUT, "rank 1 dora in": ONE | DORA_IN, "dora out": LOW | DORA_OUT, "dora in": LOW | DORA_IN,
                    "tucker dora out": ONE | DORA_OUT | dict(use_tucker=True, layers=WINDOWS)},
    "glokr": KRON,
    "full": {"plain": {}, "no bias": NOBIAS},
    "ia3": {"plain": {}, "on input": dict(train_on_input=True), "no bias": NOBIAS},
    "dylora": DYLORA | {"no bias": dict(lora_dim=4, alpha=2.0, block_size=2, block=1) | NOBIAS},
    "glora": {"plain": LOW, "no bias": LOW | NOBIAS, "rank 1": dict(lora_dim=1, alpha=0), "rs": LOW | dict(rs_lora=True), "scalar": LOW | dict(use_scalar=True)},
    "diag-oft": OFT,
    "boft": OFT | {"no bias": dict(lora_dim=6) | NOBIAS, "dim 8": dict(lora_dim=8), "one block": dict(lora_dim=-1)},
    "tlora": {"plain": LOW | dict(layers=FLAT), "no bias": LOW | NOBIAS, "rank 1": dict(lora_dim=1, alpha=0, layers=FLAT),
              "another start": LOW | dict(sig_type="last", layers=FLAT), **{f"timestep {t}": LOW | dict(timestep=t, layers=FLAT) for t in (0, 300, 600, 999)}},
    "norm": {"plain": dict(layers=("layernorm", "groupnorm"))},
}
MULTIPLIERS = (1.0, 0.7)
NOT_OF_THE_MODULE = ("layers", "block", "timestep")


def make_layer(name: str, spec: dict) -> torch.nn.Module:
    """The frozen layer with random weights."""
    rng = stream("algos." + name)
    shape = spec["shape"]
    if spec["kind"] == "linear":
        layer = torch.nn.Linear(shape[1], shape[0], bias=spec.get("bias", True))
    elif spec["kind"] == "conv":
        layer = torch.nn.Conv2d(shape[1], shape[0], shape[2], spec.get("stride", 1), spec.get("padding", 0))
    elif spec["kind"] == "layernorm":
        layer = torch.nn.LayerNorm(shape[0])
    else:
        layer = torch.nn.GroupNorm(spec["groups"], shape[0])
    norm = len(shape) == 1
    layer.weight.data = 1 + normal(rng, *shape, std=0.2) if norm else normal(rng, *shape, std=0.3)
    if layer.bias is not None:
        layer.bias.data = normal(rng, shape[0])
    return layer.requires_grad_(False)


def fill(module: torch.nn.Module, rng) -> None:
    """Random values in everything trained, as far from the start as some training would bring it."""
    with torch.no_grad():
        if isinstance(module, TLoraModule):  # the signs that an SVD leaves open
            q, p = module.q_layer.weight.flatten(1), module.p_layer.weight.flatten(1)
            sign = q.gather(1, q.abs().argmax(1, keepdim=True)).sign()
            for v in (q, module.base_q.flatten(1)):
                v.mul_(sign)
            for v in (p, module.base_p.flatten(1)):
                v.mul_(sign.T)
        for key, p in module.named_parameters():
            if key == "scalar":
                p.fill_(0.6)
            elif key in ("dora_scale", "rescale", "lambda_layer"):
                p.mul_(1 + normal(rng, *p.shape, std=0.2))
            elif isinstance(module, FullModule):  # absolute values by now
                p.add_(normal(rng, *p.shape, std=0.2))
            elif isinstance(module, TLoraModule):  # orthogonal vectors by now
                p.add_(normal(rng, *p.shape, std=0.1))
            else:
                p.copy_(normal(rng, *p.shape, std=0.4))


def file_key(module, key: str) -> str:
    """The key in the file of a trained value."""
    return {"weight": "diff", "bias": "diff_b"}.get(key, key) if isinstance(module, FullModule) else key


def gradients(module) -> dict[str, torch.Tensor]:
    if isinstance(module, DyLoraModule):
        zeros = lambda p: torch.zeros_like(p) if p.grad is None else p.grad
        down = torch.cat([zeros(p) for p in module.down_list])
        return {"lora_up.weight": torch.cat([zeros(p) for p in module.up_list], 1),
                "lora_down.weight": down.reshape(module.lora_dim, -1, *module.shape[2:])}
    return {file_key(module, key): p.grad for key, p in module.named_parameters()}


def run_module(algo: str, layer: torch.nn.Module, options: dict, seed: str, x, dy) -> tuple[dict, dict]:
    """The module's file, and y, dx and the gradients by multiplier."""
    module = MODULES[algo]("m", layer, 1.0, bypass_mode=False, **{k: v for k, v in options.items() if k not in NOT_OF_THE_MODULE})
    module.train().apply_to()
    fill(module, stream(seed))
    file = {k: v.detach().clone() for k, v in module.state_dict().items()}
    if "sig_type" in options:  # ours write where T-LoRA started; lycoris leaves it to the reader to find the largest singular triples
        file |= {k: v.clone() for k, v in module.named_buffers() if k.startswith("base_")}
    if algo == "dylora":
        module.alpha = module.alpha / module.block_size
        module.get_random_rank_weight = lambda: module.get_weight(options["block"] * module.block_size)
    elif options.get("use_scalar"):
        module.load_state_dict({k: v.clone() for k, v in module.state_dict().items()}, strict=False)
        assert module.scalar.item() == 1
    if algo == "glora" and options.get("rs_lora"):
        file["alpha"] = file["alpha"] * math.sqrt(module.lora_dim)
    assert not (algo == "lokr" and options.get("rs_lora") and module.use_w1 and module.use_w2), "scale is not the file's"
    results = {}
    for mu in MULTIPLIERS:
        module.multiplier = mu
        module.zero_grad()
        if "timestep" in options:
            set_timestep_mask(compute_timestep_mask(options["timestep"], 1000, options["lora_dim"], 1, 1.0))
        given = x.clone().requires_grad_()
        y = layer(given)
        y.backward(dy)
        clear_timestep_mask()
        results[mu] = dict(y=y.detach(), dx=given.grad) | {f"grad.{k}": g.clone() for k, g in gradients(module).items() if g is not None}
    module.restore()
    return file, results


def run_glokr(layer: torch.nn.Module, spec: dict, o: dict, seed: str, x, dy) -> tuple[dict, dict]:
    """GLoKr in float64, rounded to float32 at the end. A trained scalar is folded into both w1 halves and stands at 1."""
    rng, rank = stream(seed), o["lora_dim"]
    shapes = glokr.factor_shapes(spec["shape"], rank, o.get("factor", -1), o.get("decompose_both"), o.get("full_matrix"), o.get("unbalanced_factorization"), o.get("use_tucker"))
    file = {key: normal(rng, *s, std=0.4) for key, s in shapes.items()}
    factored = any(key.endswith(("_a", "_b")) for key in file)
    rf = math.sqrt(rank) if o.get("rs_lora") else rank
    alpha = (o["alpha"] or rank) * rank / rf if factored else float(rank)
    file = {"alpha": torch.tensor(float(alpha))} | file
    results = {}
    for mu in MULTIPLIERS:
        f = {k: v.double().requires_grad_() for k, v in file.items() if k != "alpha"}
        sigma = torch.ones((), dtype=torch.float64, requires_grad=True)
        w, given = layer.weight.double(), x.double().requires_grad_()
        bias = None if layer.bias is None else layer.bias.double()
        merged = w + mu * sigma * glokr.delta(w, f, alpha / rank)
        if spec["kind"] == "linear":
            y = torch.nn.functional.linear(given, merged, bias)
        else:
            y = torch.nn.functional.conv2d(given, merged, bias, layer.stride, layer.padding)
        y.backward(dy.double())
        results[mu] = {k: v.float() for k, v in (dict(y=y.detach(), dx=given.grad) | {f"grad.{k}": v.grad for k, v in f.items()}).items()}
        if o.get("use_scalar"):
            results[mu]["grad.scalar"] = sigma.grad.float()
    return file, results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=GOLDEN)
    args = parser.parse_args()
    setup()
    lycoris_logger.setLevel(logging.ERROR)
    tensors, cases, inputs = {}, [], {}
    for name, spec in LAYERS.items():
        layer, rng = make_layer(name, spec), stream("algos." + name + ".inputs")
        x = normal(rng, *spec["x"])
        dy = normal(rng, *layer(x).shape)
        inputs[name] = (x, dy)
        tensors |= {f"{name}.W": layer.weight, f"{name}.x": x, f"{name}.dy": dy} | ({} if layer.bias is None else {f"{name}.b": layer.bias})
    for algo, variants in CASES.items():
        for variant, options in variants.items():
            for name in options.get("layers", WEIGHTS):
                case, spec, layer = f"{algo}/{name}/{variant}", LAYERS[name], make_layer(name, LAYERS[name])
                if algo == "glokr":
                    file, results = run_glokr(layer, spec, options, "algos." + case, *inputs[name])
                else:
                    file, results = run_module(algo, layer, options, "algos." + case, *inputs[name])
                tensors |= {f"{case}.file.{k}": v for k, v in file.items()}
                for mu, result in results.items():
                    tensors |= {f"{case}@{mu:g}.{k}": v for k, v in result.items()}
                given = {k: v for k, v in options.items() if k != "layers"}
                cases.append(dict(case=case, algo=algo, layer=name, variant=variant, options=given, mu=list(results), keys=list(file)))
    for key, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise SystemExit(f"{key} is not finite")
    write(args.out / "algos.safetensors", tensors)
    layers = {name: {k: v for k, v in spec.items() if k not in ("x", "shape", "bias")} for name, spec in LAYERS.items()}
    lines = ",\n  ".join(json.dumps(c) for c in cases)
    (args.out / "algos.json").write_text(f'{{"layers": {json.dumps(layers)},\n "cases": [\n  {lines}\n ]}}\n')
    print(len(cases), "cases,", sum(v.numel() for v in tensors.values()), "numbers in", len(tensors), "tensors")


if __name__ == "__main__":
    main()
