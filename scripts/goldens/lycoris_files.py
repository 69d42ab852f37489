"""Exchanges adapter files with lycoris-lora, in both directions, for every algorithm.

    python scripts/goldens/lycoris_files.py [--lycoris bin/lycoris] [--case NAME...]

Ours: `lycoris train` makes an adapter for testdata/golden/tiny-sd1 (the layers and forms of replay_cases.py), lycoris-lora loads it. Theirs: lycoris-lora's
network with random values writes one in float16, `lycoris` loads it. Each time the loss of twelve single pictures with the adapter is taken by both programs from the
same rows and must be equal within 1e-5, and unlike the frozen model's. Modules are loaded as create_network_from_weights does it, by get_module and
make_module_from_state_dict; where that fails (its known faults: README.md) the module is built with its arguments and given the values. The table says how many.
Exit status 1 on a difference.
"""

import argparse
import collections
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile

from common import GOLDEN, REPO, read, setup, stream  # first: it sets the environment

import torch
from diffusers import DDPMScheduler
from lycoris.kohya import LycorisNetworkKohya, create_network_from_weights
from lycoris.logging import logger as lycoris_logger
from lycoris.modules import get_module, make_module
from lycoris.modules.dylora import DyLoraModule
from lycoris.modules.tlora import clear_timestep_mask, compute_timestep_mask, set_timestep_mask
from make_replay import arguments_of, fill
from replay import build_network, from_lycoris, load_model, make_network, module_names, spelled, text_states, to_lycoris
from replay_cases import every_algorithm

MODEL, ROWS = GOLDEN / "tiny-sd1", GOLDEN / "replay" / "loha" / "replay.safetensors"
PICTURES, BOUND = 12, 1e-5
OPTIONS = {"algo": "algo", "dim": "dim", "alpha": "alpha", "use_tucker": "tucker", "factor": "factor", "decompose_both": "decompose_both", "block_size": "block_size",
           "unbalanced_factorization": "unbalanced", "constraint": "constraint", "rescaled": "rescaled", "train_on_input": "on_input"}


def layers(rules: list[dict]) -> list[dict]:
    """The rules as `layers` of our configuration."""
    out = []
    for rule in rules:
        ours = {OPTIONS[k]: v for k, v in rule.items() if k in OPTIONS}
        if rule.get("weight_decompose"):
            ours["dora"] = "out" if rule["wd_on_out"] else "in"
        if rule["algo"] != "norm":
            out += [{"match": m.replace("text_encoder.encoder", "text_encoder.text_model.encoder")} | ours for m in rule["match"]]
    return out


def lycoris(program: pathlib.Path, folder: pathlib.Path, name: str, steps: int, batch: int, *more: str) -> list[dict]:
    """Runs `lycoris train` on the rows and returns its steps."""
    run = subprocess.run(
        [str(program), "train", "--no-config", "--progress", "none", "--model", str(MODEL), "--replay", str(ROWS), "--out", str(folder), "--name", name,
         "--steps", str(steps), "--batch-size", str(batch), "--scheduler", "constant", "--warmup", "0", "--set", "save.dtype=fp32", *more],
        capture_output=True, text=True, env={k: v for k, v in os.environ.items() if k != "LYCORIS_KERNEL_BACKEND"})
    if run.returncode:
        raise SystemExit(f"{name}: {run.stdout[-2000:]}{run.stderr[-2000:]}")
    rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return [r for r in rows if r.get("type") == "step"]


def our_losses(program, folder, name, adapter, more) -> list[float]:
    """The loss of each picture with the adapter: the losses of a run whose rate is next to nothing."""
    steps = lycoris(program, folder, name, PICTURES, 1, "--network-weights", str(adapter), "--lr-unet", "1e-30", "--lr-te", "1e-30", "--set", "optimizer.weight_decay=0", *more)
    return [s["loss"] for s in steps]


def their_losses(unet, te, tlora_rank: int = 0) -> list[float]:
    data, schedule = read(ROWS), DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
    out = []
    for i in range(PICTURES):
        latents, noise, t = (data[k][i:i + 1] for k in ("latents", "noise", "timesteps"))
        if tlora_rank:
            set_timestep_mask(compute_timestep_mask(t.item(), 1000, tlora_rank))
        with torch.no_grad():
            pred = unet(schedule.add_noise(latents, noise, t), t, encoder_hidden_states=text_states(te, data["input_ids"][i:i + 1], 1)).sample
        clear_timestep_mask()
        out.append(torch.nn.functional.mse_loss(pred, noise).item())
    return out


def whole_network(state: dict, unet, te):
    """What create_network_from_weights makes of a file; None where it raises."""
    LycorisNetworkKohya.apply_preset(dict(unet_target_module=[], unet_target_name=[], text_encoder_target_module=[], text_encoder_target_name=[],
                                          name_algo_map={}, module_algo_map={}))
    try:
        return create_network_from_weights(1.0, None, None, te, unet, weights_sd=state)[0]
    except Exception:  # whatever it stops on
        return None


def load(state: dict, arguments: dict, unet, te) -> collections.Counter:
    """Loads each module of a file and applies it; counts those that the library's own loader can read."""
    known, count = module_names(unet, te), collections.Counter()
    for name, args in arguments.items():
        path, key = known[spelled(name)], to_lycoris(spelled(name), te)
        layer = (unet if name.startswith("lora_unet_") else te).get_submodule(path)
        kind, params = get_module(state, key)
        try:
            module = make_module(kind, params, key, layer)
            count["read"] += 1
        except Exception:
            module = None
            count[f"{args['algo']} built"] += 1
        if module is None:
            ctor = {k: v for k, v in args.items() if k not in ("algo", "dim")}
            module = kind(key, layer, 1.0, **({} if args["algo"] == "norm" else {"lora_dim": args.get("dim", 4)}), **ctor)
            module.load_state_dict({k.split(".", 1)[1]: v.float() for k, v in state.items() if k.startswith(key + ".")}, strict=False)
        module.eval().requires_grad_(False)
        module.apply_to()
    return count


def largest(a: list[float], b: list[float]) -> float:
    return max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lycoris", type=pathlib.Path, default=REPO / "bin/lycoris")
    p.add_argument("--case", nargs="*")
    args = p.parse_args()
    setup()
    lycoris_logger.setLevel(logging.CRITICAL)
    torch.set_grad_enabled(False)
    unet, te = load_model(MODEL, True)
    frozen, good = their_losses(unet, te), True
    print(f"{'case':<14} {'ours, read by lycoris-lora':<58} {'theirs, read by lycoris':<30}")
    for name, case in every_algorithm().items():
        if args.case and name not in args.case or name in ("dylora-blocks", "tlora-whole"):  # losses of drawn blocks; tlora's again
            continue
        norms = any(r["algo"] == "norm" for r in case["rules"])
        rank = case["rules"][0]["dim"] if name == "tlora" else 0
        more = case.get("flags", [])
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            # ours
            within = [w.replace("text_encoder.encoder", "text_encoder.text_model.encoder").replace("text_encoder.final", "text_encoder.text_model.final") for w in case["within"]]
            lycoris(args.lycoris, folder, "made", 6, 2, "--lr-unet", "2e-2", "--lr-te", "2e-2", "--set", f"targets={json.dumps(within)}", "--set",
                    f"layers={json.dumps(layers(case['rules']))}", "--set", f"train_norm={str(norms).lower()}", *more)
            file = folder / "made" / "made.safetensors"
            got = our_losses(args.lycoris, folder, "again", file, more)
            state = {to_lycoris(spelled(k), te) if k.startswith("lora_te") else k: v for k, v in read(file).items()}
            unet, te = load_model(MODEL, True)
            arguments = arguments_of(unet, te, case["rules"], case["within"])
            if name == "glokr":
                ours = "-: no library reads it"
            else:
                made = read(file)
                arguments |= {n: {"algo": "norm"} for n in {k.split(".")[0] for k in made if k.endswith(".w_norm")}}  # train_norm takes all norms of the targets
                missing = {k.split(".")[0] for k in made} ^ {spelled(n) for n in arguments}
                whole = whole_network(state, unet, te) is not None
                unet, te = load_model(MODEL, True)
                count = load(state, arguments, unet, te)
                want = their_losses(unet, te, rank)
                error, moved = largest(got, want), largest(want, frozen)
                ok = error <= BOUND and moved > 1e-3 and not missing
                ours = f"{error:.1e} (moves {moved:.0e}) {'whole' if whole else 'parts'} {dict(count)}{'' if ok else f'  <-- wrong {sorted(missing)[:3]}'}"
                good &= ok
            # theirs
            unet, te = load_model(MODEL, True)
            network = make_network(unet, te, arguments)
            rng = stream(f"files.{name}")
            for module in network.loras:
                fill(module, rng)
            file = folder / "theirs.safetensors"
            network.save_weights(str(file), torch.float16, {"ss_network_module": "lycoris.kohya"})
            network.restore()
            unet, te = load_model(MODEL, True)
            state = {from_lycoris(k, te): v for k, v in read(file).items() if ".base_" not in k}
            network = build_network(unet, te, state, arguments).eval()
            for m in network.loras:
                if isinstance(m, DyLoraModule):  # one block, with the scale of a reader
                    m.get_random_rank_weight = lambda m=m: (*m.get_weight(0)[:2], m.alpha / m.lora_dim)
            want = their_losses(unet, te, rank)
            got = our_losses(args.lycoris, folder, "theirs", file, more)
            error, moved = largest(got, want), largest(want, frozen)
            ok = error <= BOUND and moved > 1e-3
            good &= ok
            print(f"{name:<14} {ours:<58} {error:.1e} (moves {moved:.0e}){'' if ok else '  <-- wrong'}", flush=True)
            unet, te = load_model(MODEL, True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
