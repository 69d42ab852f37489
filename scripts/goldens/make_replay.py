"""Makes a random replay file and a random start adapter for any diffusers folder.

    python scripts/goldens/make_replay.py --model FOLDER --out DIR --rows 24 --size 8 16 --targets 'unet.*attn*' 'text_encoder.*'

Writes DIR/replay.safetensors and DIR/adapter.safetensors. Targets are shell-style patterns on whole module paths: `unet.` or
`text_encoder.` and the diffusers name (text_encoder.encoder.layers.0.mlp.fc1); only Linear and Conv2d modules count. Both factors are
random, so that every gradient is alive from the first step on.

Any other network: --rules FILE, a JSON list of {"match": [patterns], …} whose other keys are lycoris's arguments (algo, dim, alpha, factor,
weight_decompose, …; algo norm for norms); the first rule that matches a module counts. DIR/network.json then has the arguments of each module, for
replay.py --network.
"""

import argparse
import fnmatch
import json
import pathlib

from common import normal, stream, write, write_json  # first: it sets the environment

import numpy as np
import torch
from replay import ADAPTED, TE_FILE, UNET, flat, load_model, make_network, saved, te_root


def modules_of(unet, te):
    """Yields (path with its root, adapter module name, module)."""
    if te is not None:
        root = te_root(te)
        for path, module in te.named_modules():
            path = path.removeprefix(root)
            yield "text_encoder." + path, TE_FILE + flat(path), module
    for path, module in unet.named_modules():
        yield "unet." + path, UNET + flat(path), module


def make_adapter(unet, te, seed: str, targets: list[str], dim: int, alpha: float, conv_dim: int, conv_alpha: float, tucker: bool) -> dict:
    """Random LoRA tensors under kohya's names for the modules that a pattern matches. The delta's size is about a tenth of a weight's."""
    rng = stream(seed + ".adapter")
    out = {}
    for path, name, m in modules_of(unet, te):
        if not any(fnmatch.fnmatchcase(path, t) for t in targets):
            continue
        if isinstance(m, torch.nn.Linear):
            rank, a, shapes = dim, alpha, dict(up=(m.out_features, dim), down=(dim, m.in_features))
        elif isinstance(m, torch.nn.Conv2d) and m.kernel_size == (1, 1):
            rank, a, shapes = dim, alpha, dict(up=(m.out_channels, dim, 1, 1), down=(dim, m.in_channels, 1, 1))
        elif isinstance(m, torch.nn.Conv2d):
            rank, a, k, i = conv_dim, conv_alpha, m.kernel_size, m.in_channels
            shapes = dict(up=(m.out_channels, rank, 1, 1), down=(rank, i, *k))
            if tucker:
                shapes |= dict(down=(rank, i, 1, 1), mid=(rank, rank, *k))
        else:
            continue
        if not rank:
            continue
        for key, shape in shapes.items():
            std = (torch.Size(shape).numel() // shape[0]) ** -0.5
            out[f"{name}.lora_{key}.weight"] = normal(rng, *shape, std=0.1 * std * rank ** 0.5 if key == "up" else std)
        out[f"{name}.alpha"] = torch.tensor(float(a))
    if not out:
        raise SystemExit(f"no module matches {targets}")
    return out


def arguments_of(unet, te, rules: list[dict], within: list[str] = ("*",)) -> dict[str, dict]:
    """The arguments of each module by its name in a file, from the first rule that matches it; of those that a pattern of within matches too."""
    out = {}
    for path, name, m in modules_of(unet, te):
        rule = next((r for r in rules if any(fnmatch.fnmatchcase(path, p) for p in r["match"])), None)
        if not any(fnmatch.fnmatchcase(path, p) for p in within):
            continue
        if rule is not None and isinstance(m, ADAPTED) and (rule["algo"] == "norm") == (not isinstance(m, ADAPTED[:2])):
            out[name] = {k: v for k, v in rule.items() if k != "match"}
    if not out:
        raise SystemExit("no module matches the rules")
    return out


# Standard deviations by the end of a parameter's name; 0 stands for fan_in^-1/2. The change comes to a tenth of a weight or so.
SIZES = {
    "lora_up.weight": 0.1, "lora_down.weight": 0, "lora_mid.weight": 0, "hada_w1_a": 0.3, "hada_w1_b": 0.5, "hada_w2_a": 0.3, "hada_w2_b": 0.5, "hada_t1": 0.5,
    "hada_t2": 0.5, "lokr_w1": 0.3, "lokr_w1_a": 0.5, "lokr_w1_b": 0.5, "lokr_w2": 0.1, "lokr_w2_a": 0.3, "lokr_w2_b": 0.3, "lokr_t2": 0.5,
    "a1.weight": 0.15, "a2.weight": 0.15, "b1.weight": 0.15, "b2.weight": 0.15, "oft_blocks": 0.05, "w_norm": 0.1, "b_norm": 0.1,
    "q_layer.weight": 0, "p_layer.weight": 0, "lambda_layer": 0.5, "up_list": 0.1, "down_list": 0,
    "glokr_a_w1": 0.2, "glokr_a_w1_a": 0.4, "glokr_a_w1_b": 0.4, "glokr_a_w2": 0.2, "glokr_a_w2_a": 0.4, "glokr_a_w2_b": 0.4,
    "glokr_b_w1": 0.3, "glokr_b_w1_a": 0.5, "glokr_b_w1_b": 0.5, "glokr_b_w2": 0.1, "glokr_b_w2_a": 0.3, "glokr_b_w2_b": 0.3, "glokr_b_t2": 0.5,
}


def fill(module: torch.nn.Module, rng) -> None:
    """Random values in everything trained."""
    for key, p in module.named_parameters():
        if key == "dora_scale":  # the norm by numpy in float64: the same bits everywhere
            w = module.org_module[0].weight.double().numpy()
            keep = 0 if p.shape[0] == w.shape[0] else 1
            norm = np.sqrt((w * w).sum(axis=tuple(i for i in range(w.ndim) if i != keep), keepdims=True))
            p.data = torch.from_numpy(norm.astype(np.float32)) * (1 + normal(rng, *p.shape, std=0.05))
        elif key == "rescale":
            p.data = 1 + normal(rng, *p.shape, std=0.05)
        elif key in ("weight", "bias"):  # full: the weight itself by now; ia3: a factor near 0
            p.data = p.data + normal(rng, *p.shape, std=0.1 if key == "bias" or p.shape[0] == 1 or p.ndim == 1 else 0.1 * p[0].numel() ** -0.5)
        else:
            size = SIZES[key] if key in SIZES else SIZES[key.split(".")[0]]
            p.data = normal(rng, *p.shape, std=size or (p.numel() // p.shape[0]) ** -0.5)


def make_start(unet, te, seed: str, arguments: dict[str, dict]) -> dict:
    """A random adapter with lycoris's own modules, as it writes them."""
    rng, network = stream(seed + ".adapter"), make_network(unet, te, arguments)
    for module in network.loras:
        fill(module, rng)
    out = {k: v.clone() for k, v in saved(network, te).items()}
    network.restore()
    return out


def make_rows(unet, te, seed: str, rows: int, size: tuple[int, int], context: str) -> dict:
    """latents, noise, timesteps, and input_ids (BOS, 3 to 75 ids, EOS to the end) or context."""
    rng = stream(seed + ".replay")
    out = dict(latents=normal(rng, rows, 4, *size), noise=normal(rng, rows, 4, *size),
               timesteps=torch.from_numpy(rng.integers(0, 1000, rows)))
    if context == "states":
        return out | dict(context=normal(rng, rows, 77, unet.config.cross_attention_dim))
    vocab = te.config.vocab_size
    ids = torch.full((rows, 77), vocab - 1)
    ids[:, 0] = vocab - 2
    for row in ids:
        n = int(rng.integers(3, 76))
        row[1:1 + n] = torch.from_numpy(rng.integers(0, vocab - 2, n))
    return out | dict(input_ids=ids)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=pathlib.Path, required=True)
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.add_argument("--rows", type=int, required=True, help="steps * grad_accum * batch_size")
    p.add_argument("--size", type=int, nargs=2, default=(8, 16), metavar=("H", "W"), help="of the latents")
    p.add_argument("--context", choices=("ids", "states"), default="ids")
    p.add_argument("--targets", nargs="+", default=["unet.*attentions*", "text_encoder.*"])
    p.add_argument("--dim", type=int, default=4)
    p.add_argument("--alpha", type=float, default=2)
    p.add_argument("--conv-dim", type=int, default=4)
    p.add_argument("--conv-alpha", type=float, default=2)
    p.add_argument("--tucker", action="store_true")
    p.add_argument("--rules", type=pathlib.Path, help="JSON: other algorithms than LoRA")
    p.add_argument("--seed", default="0")
    args = p.parse_args()
    unet, te = load_model(args.model, (args.model / "text_encoder").exists())
    if args.rules:
        arguments = arguments_of(unet, te, json.loads(args.rules.read_text()))
        write_json(args.out / "network.json", arguments)
        adapter = make_start(unet, te, args.seed, arguments)
    else:
        adapter = make_adapter(unet, te, args.seed, args.targets, args.dim, args.alpha, args.conv_dim, args.conv_alpha, args.tucker)
    write(args.out / "adapter.safetensors", adapter)
    write(args.out / "replay.safetensors", make_rows(unet, te, args.seed, args.rows, args.size, args.context))
    print(len({k.split(".")[0] for k in adapter}), "modules,", args.rows, "rows")


if __name__ == "__main__":
    main()
