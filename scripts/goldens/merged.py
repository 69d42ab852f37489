"""Merges adapters of every algorithm with `lycoris merge` and compares what diffusers makes of the result with lycoris-lora's training forward.

    python scripts/goldens/merged.py [--lycoris bin/lycoris] [--case NAME…]

Each adapter is random, written by lycoris-lora's own modules for testdata/golden/tiny-sd1 (layers of every kind, UNet and text encoder), and merged at weights 1 and 0.7 in float32 into
the diffusers folder and into a single file of the same numbers. diffusers loads the folder with from_pretrained and the file with from_single_file (the text encoder with its converter).
The expected outputs are base + adapter: lycoris-lora 4.1.3's modules with the file's values in training form (not its merge) at that multiplier; where its own
create_network_from_weights can read the file, that network too. Of UNet and text encoder, relative to the largest value, at most 1e-4.

Further: plain LoRA equals diffusers' own load_lora_weights and fuse_lora; for what only adds, merging with weight w and the result with -w gives the base's weights back within
4e-7 of a tensor's largest value; GLoKr, which lycoris-lora doesn't have, equals its definition (glokr.py) and the merge of its `full` export. Exit status 1 on a failure.
"""

import argparse
import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import warnings

from common import GOLDEN, REPO, normal, read, relative, setup, stream, write  # first: it sets the environment

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint
from lycoris.kohya import LycorisNetworkKohya, create_network_from_weights
from lycoris.logging import logger as lycoris_logger
from lycoris.modules.dylora import DyLoraModule
from make_replay import arguments_of, fill
from replay import TE_FILE, build_network, load_model, make_network, saved, spelled, text_states, to_lycoris
from replay_cases import ALL, CONV3, EVERY_KIND, FLAT
from single_file import convert
from transformers import CLIPTextModel

MODEL, BOUND, BACK = GOLDEN / "tiny-sd1", 1e-4, 4e-7
WEIGHTS = (1.0, 0.7)
NORMS = EVERY_KIND + ["unet.down_blocks.0.resnets.0.norm*", "unet.conv_norm_out", "text_encoder.final_layer_norm"]
CONV1 = ["*.proj_in", "*.proj_out", "*.conv_shortcut"]


def low(algo: str, **more) -> dict:
    return ALL | dict(algo=algo, dim=2, alpha=1.0) | more


# rules: as in replay_cases.py. adds: strength is linear and doesn't depend on the weight. within: the layers, EVERY_KIND if not given.
CASES = {
    "lora": dict(rules=[ALL | dict(algo="lora", dim=4, alpha=2.0)], adds=True, within=[t for t in FLAT if "conv" not in t]),
    "locon": dict(rules=[low("lora")], adds=True),
    "locon tucker": dict(rules=[dict(match=CONV3) | dict(algo="lora", dim=2, alpha=1.0, use_tucker=True), low("lora")], adds=True, fuse=False),
    "loha": dict(rules=[low("loha")], adds=True),
    "loha tucker": dict(rules=[dict(match=CONV3, algo="loha", dim=2, alpha=1.0, use_tucker=True), low("loha")], adds=True),
    "lokr full": dict(rules=[ALL | dict(algo="lokr", dim=100000, alpha=1.0)], adds=True),
    "lokr low rank": dict(rules=[low("lokr", dim=1, factor=4)], adds=True),
    "lokr both split": dict(rules=[low("lokr", dim=1, decompose_both=True)], adds=True),
    "lokr unbalanced": dict(rules=[low("lokr", dim=1, unbalanced_factorization=True)], adds=True),
    "lokr tucker": dict(rules=[dict(match=CONV3, algo="lokr", dim=1, alpha=0.5, use_tucker=True), low("lokr", dim=1)], adds=True),
    "full": dict(rules=[ALL | dict(algo="full")], adds=True),
    "ia3": dict(rules=[dict(match=["*.ff.net.2", "*.mlp.fc2", "*resnets.?.conv2"], algo="ia3", train_on_input=True), ALL | dict(algo="ia3")]),
    "dylora": dict(rules=[low("dylora", block_size=2)], adds=True),
    "glora": dict(rules=[low("glora")]),
    "diag-oft": dict(rules=[ALL | dict(algo="diag-oft", dim=4)]),
    "diag-oft constraint": dict(rules=[ALL | dict(algo="diag-oft", dim=4, constraint=0.01)]),
    "diag-oft rescaled": dict(rules=[ALL | dict(algo="diag-oft", dim=4, rescaled=True)]),
    "boft": dict(rules=[ALL | dict(algo="boft", dim=8)]),
    "boft constraint": dict(rules=[ALL | dict(algo="boft", dim=8, constraint=0.01)]),
    "boft rescaled": dict(rules=[ALL | dict(algo="boft", dim=8, rescaled=True)]),
    "dora out": dict(rules=[low("lora", weight_decompose=True, wd_on_out=True)], flags=["--as", "lycoris"]),
    "dora in": dict(rules=[low("lora", weight_decompose=True, wd_on_out=False)], flags=["--as", "lycoris"]),
    "dora of loha": dict(rules=[low("loha", weight_decompose=True, wd_on_out=True)], flags=["--as", "lycoris"]),
    "dora of lokr": dict(rules=[low("lokr", dim=1, weight_decompose=True, wd_on_out=True)], flags=["--as", "lycoris"]),
    "dora, as others": dict(rules=[low("lora", weight_decompose=True, wd_on_out=True)], weights=(1.0,)),  # the default's strengths are other programs'
    "norm": dict(rules=[dict(match=["*norm*"], algo="norm"), low("lora")], within=NORMS, adds=True),
    "tlora": dict(rules=[ALL | dict(algo="tlora", dim=4, alpha=2.0)], within=FLAT),
    "glokr": dict(rules=[dict(match=CONV3, algo="glokr", dim=1, alpha=0.5, use_tucker=True), ALL | dict(algo="glokr", dim=1, alpha=1.0)], own=True),
}


def lycoris(program: pathlib.Path, *command: str) -> None:
    run = subprocess.run([str(program), *command, "--quiet"], capture_output=True, text=True, env={k: v for k, v in os.environ.items() if k != "LYCORIS_KERNEL_BACKEND"})
    if run.returncode:
        raise SystemExit(f"lycoris {' '.join(command)}: exit {run.returncode}: {run.stderr.strip()}")


def single(model: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """The folder's numbers as a single file, as they are stored."""
    kept = dict(torch_dtype=torch.float16)
    write(out, convert(UNet2DConditionModel.from_pretrained(model / "unet", **kept), CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32),
                       AutoencoderKL.from_pretrained(model / "vae", **kept), None))
    return out


def load_single(path: pathlib.Path):
    """UNet and text encoder that diffusers makes of a single file."""
    unet = UNet2DConditionModel.from_single_file(str(path), config=str(MODEL), subfolder="unet", torch_dtype=torch.float32, local_files_only=True)
    _, te = load_model(MODEL, True)
    state = convert_ldm_clip_checkpoint({k: v.float() for k, v in read(path).items()})
    root = "text_model." if any(k.startswith("text_model.") for k in te.state_dict()) else ""
    state = {root + k.removeprefix("text_model."): v for k, v in state.items()}
    missing, unexpected = te.load_state_dict(state, strict=False)
    if unexpected or [k for k in missing if "position_ids" not in k]:
        raise SystemExit(f"text encoder of the single file: missing {missing[:3]}, unexpected {unexpected[:3]}")
    return unet.eval().requires_grad_(False), te


def outputs(unet, te) -> dict[str, torch.Tensor]:
    """UNet output and text states of fixed random inputs."""
    rng = stream("merged")
    latents, context = normal(rng, 2, 4, 8, 16), normal(rng, 2, 77, unet.config.cross_attention_dim)
    ids = torch.from_numpy(rng.integers(0, te.config.vocab_size, (2, 77)))
    with torch.no_grad():
        return dict(unet=unet(latents, torch.tensor([20, 700]), encoder_hidden_states=context).sample, te=text_states(te, ids, 1))


def whole_file(network) -> None:
    """Makes DyLoRA modules act with all ranks and the scale of a reader: alpha over the rank; and every module as in training, without chance."""
    for m in network.loras if hasattr(network, "loras") else network.unet_loras + network.text_encoder_loras:
        if isinstance(m, DyLoraModule):
            m.get_random_rank_weight = lambda m=m: (*m.get_weight(m.lora_dim - m.block_size)[:2], m.alpha / m.lora_dim)


def strength(network, weight: float) -> None:
    for m in network.unet_loras + network.text_encoder_loras:
        m.multiplier = weight


def theirs(state: dict, arguments: dict) -> dict[float, dict]:
    """The outputs with lycoris-lora's modules, by weight."""
    unet, te = load_model(MODEL, True)
    network = build_network(unet, te, state, arguments).eval().requires_grad_(False)
    whole_file(network)
    out = {}
    for weight in WEIGHTS:
        strength(network, weight)
        out[weight] = outputs(unet, te)
    return out


def own_reader(state: dict) -> dict[float, dict] | None:
    """The same by create_network_from_weights; None where it can't read the file."""
    unet, te = load_model(MODEL, True)
    LycorisNetworkKohya.apply_preset(dict(unet_target_module=[], unet_target_name=[], text_encoder_target_module=[], text_encoder_target_name=[], name_algo_map={}, module_algo_map={}))
    try:
        network, _ = create_network_from_weights(1.0, None, None, te, unet, weights_sd={to_lycoris(k, te): v.clone() for k, v in state.items()})
    except Exception:  # whatever it stops on
        return None
    if len(network.unet_loras + network.text_encoder_loras) != len({k.split(".")[0] for k in state}):
        return None
    for m in network.unet_loras + network.text_encoder_loras:
        m.eval().requires_grad_(False)
        m.apply_to()
    whole_file(network)
    out = {}
    for weight in WEIGHTS:
        strength(network, weight)
        out[weight] = outputs(unet, te)
    return out


def fused(adapter: pathlib.Path, weight: float) -> dict:
    """The outputs with diffusers' own load_lora_weights and fuse_lora."""
    unet, te = load_model(MODEL, True)
    pipeline = StableDiffusionPipeline(vae=AutoencoderKL.from_pretrained(MODEL / "vae"), text_encoder=te, tokenizer=None, unet=unet, safety_checker=None,
                                       scheduler=PNDMScheduler.from_pretrained(MODEL / "scheduler"), feature_extractor=None, requires_safety_checker=False)
    pipeline.load_lora_weights(adapter.parent, weight_name=adapter.name)
    pipeline.fuse_lora(lora_scale=weight)
    pipeline.unload_lora_weights()
    return outputs(unet, te)


def weights_of(model: pathlib.Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, or of a folder's UNet and text encoder."""
    if model.is_file():
        return read(model)
    return {f"{part}.{k}": v for part in ("unet", "text_encoder") for file in (model / part).glob("*.safetensors") for k, v in read(file).items()}


class Report:
    def __init__(self):
        self.good = True
        print(f"{'algorithm':<20} {'container':<8} {'weight':>6}  {'against':<32} {'UNet':>8} {'text':>8}  {'moves':>8}")

    def row(self, case: str, container: str, weight, against: str, got: dict, want: dict, base: dict, bound: float = BOUND) -> None:
        errors, moves = {k: relative(got[k], want[k]) for k in want}, max(relative(want[k], base[k]) for k in want)
        ok = max(errors.values()) <= bound and moves > 1e-2
        self.good &= ok
        print(f"{case:<20} {container:<8} {weight:>6}  {against:<32} {errors['unet']:>8.1e} {errors['te']:>8.1e}  {moves:>8.0e}{'' if ok else '  <-- wrong'}", flush=True)

    def back(self, case: str, container: str, weight: float, error: float) -> None:
        ok = error <= BACK
        self.good &= ok
        print(f"{case:<20} {container:<8} {weight:>6}  {'the base, after -' + str(weight):<32} {error:>8.1e} {'':>8}  {'':>8}{'' if ok else '  <-- wrong'}", flush=True)


def check(args, name: str, case: dict, folder: pathlib.Path, containers: dict[str, pathlib.Path], base: dict, report: Report) -> None:
    unet, te = load_model(MODEL, True)
    arguments = arguments_of(unet, te, case["rules"], case.get("within", EVERY_KIND))
    network, rng = make_network(unet, te, arguments), stream("merged." + name)
    for module in network.loras:
        fill(module, rng)
    state = {k: v.clone() for k, v in saved(network, te).items()}
    network.restore()
    adapter = folder / "adapter.safetensors"
    write(adapter, state, {"ss_network_module": "lycoris.kohya"})
    weights = case.get("weights", WEIGHTS)
    want = theirs(state, arguments)
    again = None if case.get("own") else own_reader(state)
    flags = case.get("flags", [])
    for container, model in containers.items():
        end = ".safetensors" if model.is_file() else ""
        for weight in weights:
            out = folder / f"merged-{container}-{weight}{end}"
            lycoris(args.lycoris, "merge", "--model", str(model), "--adapter", f"{adapter}:{weight}", "--out", str(out), "--dtype", "fp32", *flags)
            got = outputs(*(load_single(out) if end else load_model(out, True)))
            report.row(name, container, weight, "its definition" if case.get("own") else "lycoris-lora's training forward", got, want[weight], base)
            if again:
                report.row(name, container, weight, "create_network_from_weights", got, again[weight], base)
            if name in ("lora", "locon"):
                report.row(name, container, weight, "diffusers' fuse_lora", got, fused(adapter, weight), base)
            if case.get("own"):
                full = folder / f"full-{container}.safetensors"
                if not full.exists():
                    lycoris(args.lycoris, "convert", "--in", str(adapter), "--out", str(full), "--to", "full", "--model", str(model), "--dtype", "fp32")
                other = folder / f"exported-{container}-{weight}{end}"
                lycoris(args.lycoris, "merge", "--model", str(model), "--adapter", f"{full}:{weight}", "--out", str(other), "--dtype", "fp32")
                report.row(name, container, weight, "the merge of its full export", got, outputs(*(load_single(other) if end else load_model(other, True))), base)
            if case.get("adds"):
                back = folder / f"back-{container}-{weight}{end}"
                lycoris(args.lycoris, "merge", "--model", str(out), "--adapter", f"{adapter}:{-weight}", "--out", str(back), "--dtype", "fp32", *flags)
                start, end_ = weights_of(model), weights_of(back)
                report.back(name, container, weight, max(relative(end_[k].float(), v.float()) for k, v in start.items() if v.is_floating_point()))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lycoris", type=pathlib.Path, default=REPO / "bin/lycoris")
    p.add_argument("--case", nargs="*", choices=CASES)
    args = p.parse_args()
    setup()
    lycoris_logger.setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as top:
        top = pathlib.Path(top)
        containers = {"folder": MODEL, "file": single(MODEL, top / "single.safetensors")}
        base, report = outputs(*load_model(MODEL, True)), Report()
        for name, case in CASES.items():
            if args.case and name not in args.case:
                continue
            folder = top / name.replace(" ", "-").replace(",", "")
            folder.mkdir()
            check(args, name, case, folder, containers, base, report)
            shutil.rmtree(folder)
    sys.exit(0 if report.good else 1)


if __name__ == "__main__":
    main()
