"""The peer trainer: replays a run with PyTorch, diffusers and lycoris-lora.

    python scripts/goldens/replay.py --model FOLDER --adapter init.safetensors --replay replay.safetensors --steps 6 \
        --out-adapter final.safetensors --out-losses losses.json [options]

Takes the files that `lycoris train --model … --network-weights … --replay …` takes, so that the two runs can be compared step by step
(compare.py). The network is lycoris-lora's LycorisNetworkKohya in its default rebuild form, on the weights as stored, in float32, with the
modules of the adapter file. --network is a JSON file with the arguments of each by its name in the file, {"lora_unet_…": {"algo": "loha",
"dim": 4, "alpha": 2, …}, …}, as a preset's name_algo_map has them; without it the file is LoRA and says everything itself.

A replay file holds N = steps * grad_accum * batch_size rows: latents (N,4,h,w) already scaled, noise (N,4,h,w), timesteps (N) int64, and
context (N,L,C) or input_ids (N,77) int64. Row (step*grad_accum + micro)*batch_size + i is picture i of that micro-batch.

Written: the adapter under kohya's names (lora_te_text_model_…) in float32, and
    {"config": {…}, "steps": [{"step": 1, "loss": mean of its micro-batches, "micro": [...], "grad_norm": before clipping,
                               "lr": {"unet": …, "te": …}}, …]}
"""

import argparse
import json
import logging
import pathlib

from common import read, write, write_json  # first: it sets the environment

import glokr  # makes it known to lycoris
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from transformers import CLIPTextModel

from lycoris.kohya import LycorisNetworkKohya
from lycoris.logging import logger as lycoris_logger
from lycoris.modules.dylora import DyLoraModule
from lycoris.modules.tlora import TLoraModule, clear_timestep_mask, compute_timestep_mask, set_timestep_mask

UNET, TE, TE_FILE = "lora_unet_", "lora_te_", "lora_te_text_model_"


def flat(path: str) -> str:
    return path.replace(".", "_")


def load_model(folder: pathlib.Path, with_te: bool):
    """UNet and text encoder of a diffusers folder, in float32, frozen."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    te = None
    if with_te:
        te = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        te.eval().requires_grad_(False)
    return unet.eval().requires_grad_(False), te


def te_root(te) -> str:
    """The level above the encoder in module paths: '' since transformers 5, 'text_model.' before."""
    return "text_model." if hasattr(te, "text_model") else ""


ADAPTED = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)


def module_names(unet, te) -> dict[str, str]:
    """From adapter-file module name to module path, for everything that can have an adapter."""
    names = {UNET + flat(path): path for path, m in unet.named_modules() if isinstance(m, ADAPTED)}
    if te is not None:
        root = te_root(te)
        for path, m in te.named_modules():
            if isinstance(m, ADAPTED):
                names[TE_FILE + flat(path.removeprefix(root))] = path
    return names


def to_lycoris(key: str, te) -> str:
    """A file's key as lycoris-lora names it on this transformers version."""
    inner = key.removeprefix(TE_FILE) if key.startswith(TE_FILE) else key.removeprefix(TE)
    return TE + flat(te_root(te)) + inner if key.startswith(TE) else key


def from_lycoris(key: str, te) -> str:
    """Back: always with the text_model level, as files in the field have it."""
    return TE_FILE + key.removeprefix(TE + flat(te_root(te))) if key.startswith(TE) else key


def spelled(name: str) -> str:
    """A module's name with the text_model level."""
    return TE_FILE + name.removeprefix(TE) if name.startswith(TE) and not name.startswith(TE_FILE) else name


def lora_arguments(adapter: dict[str, torch.Tensor]) -> dict[str, dict]:
    """The arguments of each module of a LoRA file."""
    out = {}
    for name in {key.split(".")[0] for key in adapter}:
        rank = adapter[name + ".lora_down.weight"].shape[0]
        alpha = adapter.get(name + ".alpha", torch.tensor(float(rank))).item()
        out[name] = dict(algo="locon", dim=rank, alpha=alpha, use_tucker=name + ".lora_mid.weight" in adapter)
    return out


def make_network(unet, te, arguments: dict[str, dict], use_scalar: bool = False) -> LycorisNetworkKohya:
    """A LycorisNetworkKohya with exactly the modules named in arguments, on the models.

    Presets can't be used: those that reach the whole UNet stop on lycoris 4.1.3's own duplicate-name assertion. Naming every
    module, matched as a whole string, and giving each its arguments avoids that and leaves nothing to rules.
    """
    known = module_names(unet, te)
    unknown = sorted(m for m in arguments if spelled(m) not in known)
    if unknown:
        raise SystemExit(f"the model has no modules {unknown[:5]} ({len(unknown)} in all)")
    names = [spelled(name) for name in arguments]
    LycorisNetworkKohya.apply_preset(dict(
        enable_conv=True, use_fnmatch=True, module_algo_map={}, exclude_name=[],
        name_algo_map={known[spelled(name)]: a for name, a in arguments.items()},
        unet_target_module=[], unet_target_name=[known[n] for n in names if n.startswith(UNET)],
        text_encoder_target_module=[], text_encoder_target_name=[known[n] for n in names if n.startswith(TE)]))
    network = LycorisNetworkKohya(te, unet, network_module="locon", bypass_mode=False, use_scalar=use_scalar, warn_on_unmatched=False,
                                  train_norm=any(a.get("algo") == "norm" for a in arguments.values()))
    network.apply_to(te, unet, bool(network.text_encoder_loras), True)
    if len(network.loras) != len(arguments):
        raise SystemExit(f"{len(network.loras)} modules made of {len(arguments)}")
    return network


def build_network(unet, te, adapter: dict[str, torch.Tensor], arguments: dict[str, dict] | None = None, use_scalar: bool = False) -> LycorisNetworkKohya:
    """The network of an adapter file with its values."""
    network = make_network(unet, te, arguments or lora_arguments(adapter), use_scalar)
    state = {to_lycoris(key, te): value.float() for key, value in adapter.items()}
    for module in network.loras:
        if isinstance(module, DyLoraModule):  # lycoris can't read its own files
            up, down = state.pop(module.lora_name + ".lora_up.weight"), state.pop(module.lora_name + ".lora_down.weight")
            for i, (u, d) in enumerate(zip(up.flatten(1).split(module.block_size, 1), down.flatten(1).split(module.block_size))):
                state |= {f"{module.lora_name}.up_list.{i}": u, f"{module.lora_name}.down_list.{i}": d}
    missing, unexpected = network.load_state_dict(state, strict=False)
    missing = [k for k in missing if not k.endswith((".scalar", ".alpha", ".base_q", ".base_p", ".base_lambda"))]
    if missing or unexpected:
        raise SystemExit(f"missing {missing[:5]}, unexpected {unexpected[:5]}")
    network.prepare_grad_etc(te, unet)
    return network.train()


def saved(network: LycorisNetworkKohya, te) -> dict[str, torch.Tensor]:
    """What is written to a file: the start of T-LoRA is not."""
    return {from_lycoris(k, te): v.detach() for k, v in network.state_dict().items() if ".base_" not in k}


def force_block(module: DyLoraModule, k: int) -> None:
    """Makes the module's next forward train block k, with alpha over the active ranks, as a reader of the file scales it (algorithms.md 7.3).
    lycoris takes alpha over the number of blocks."""
    down, up, scale = module.get_weight(k * module.block_size)
    module.get_random_rank_weight = lambda: (down, up, scale / module.block_size)


def text_states(te, ids: torch.Tensor, clip_skip: int) -> torch.Tensor:
    """hidden_states[-clip_skip], then the final layer norm: [B,77] -> [B,77,D]."""
    if clip_skip == 1:
        return te(input_ids=ids).last_hidden_state
    inner = getattr(te, "text_model", te)
    return inner.final_layer_norm(te(input_ids=ids, output_hidden_states=True).hidden_states[-clip_skip])


def train(args) -> tuple[dict[str, torch.Tensor], dict]:
    """Runs the replay; returns the final adapter and the record of losses."""
    data, adapter = read(args.replay), read(args.adapter)
    rows = args.steps * args.grad_accum * args.batch_size
    if len(data["timesteps"]) < rows:
        raise SystemExit(f"{args.replay} has {len(data['timesteps'])} rows, {rows} are needed")
    unet, te = load_model(args.model, "input_ids" in data or any(k.startswith(TE) for k in adapter))
    network = build_network(unet, te, adapter, args.network and json.loads(args.network.read_text()), args.use_scalar)
    dylora = [m for m in network.loras if isinstance(m, DyLoraModule)]
    blocks = json.loads(args.blocks.read_text()) if args.blocks else {from_lycoris(m.lora_name, te): [0] * rows for m in dylora if m.block_count == 1}
    if len(blocks) < len(dylora):
        raise SystemExit("--blocks must say which block of each DyLoRA module is trained")
    tlora_rank = max((m.lora_dim for m in network.loras if isinstance(m, TLoraModule)), default=0)
    scheduler_config = json.loads((args.model / "scheduler/scheduler_config.json").read_text())
    prediction = args.prediction or {"v_prediction": "v"}.get(scheduler_config.get("prediction_type"), "eps")
    noise_scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)

    groups = []
    for name, loras, lr in (("te", network.text_encoder_loras, args.lr_te), ("unet", network.unet_loras, args.lr_unet)):
        params = [p for lora in loras for p in lora.parameters()]
        if params and lr:
            groups.append(dict(params=params, lr=lr, name=name))
        else:
            for p in params:
                p.requires_grad_(False)
    optimizer = torch.optim.AdamW(groups, betas=tuple(args.betas), eps=args.eps, weight_decay=args.weight_decay, foreach=False)
    kind = "constant_with_warmup" if args.scheduler == "constant" and args.warmup else args.scheduler
    schedule = get_scheduler(kind, optimizer, num_warmup_steps=args.warmup, num_training_steps=args.steps)
    trained = [p for g in optimizer.param_groups for p in g["params"]]

    record = []
    for step in range(args.steps):
        micro = []
        for i in range(args.grad_accum):
            first = (step * args.grad_accum + i) * args.batch_size
            rows = slice(first, first + args.batch_size)
            latents, noise, timesteps = data["latents"][rows].float(), data["noise"][rows].float(), data["timesteps"][rows]
            if tlora_rank:  # one mask for a batch: that of its highest noise
                set_timestep_mask(compute_timestep_mask(timesteps.max().item(), 1000, tlora_rank, int(args.tlora_mask[0]), args.tlora_mask[1]))
            for m in dylora:
                force_block(m, blocks[from_lycoris(m.lora_name, te)][step * args.grad_accum + i])
            context = data["context"][rows].float() if "context" in data else text_states(te, data["input_ids"][rows], args.clip_skip)
            noisy = noise_scheduler.add_noise(latents, noise, timesteps)
            target = noise_scheduler.get_velocity(latents, noise, timesteps) if prediction == "v" else noise
            pred = unet(noisy, timesteps, encoder_hidden_states=context).sample
            loss = torch.nn.functional.mse_loss(pred, target, reduction="none").mean([1, 2, 3]).mean()
            (loss / args.grad_accum).backward()
            micro.append(loss.item())
            clear_timestep_mask()
        norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in trained if p.grad is not None])).item()
        if args.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(trained, args.max_grad_norm)  # coefficient min(1, max/(norm+1e-6))
        rates = {g["name"]: g["lr"] for g in optimizer.param_groups}
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        record.append(dict(step=step + 1, loss=sum(micro) / len(micro), micro=micro, grad_norm=norm, lr=rates))

    final = saved(network, te)
    network.restore()
    keep = ("steps", "batch_size", "grad_accum", "lr_unet", "lr_te", "betas", "eps", "weight_decay", "max_grad_norm", "scheduler", "warmup",
            "clip_skip", "use_scalar")
    return final, dict(config={k: getattr(args, k) for k in keep} | {"prediction": prediction}, steps=record)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=pathlib.Path, required=True)
    p.add_argument("--adapter", type=pathlib.Path, required=True)
    p.add_argument("--replay", type=pathlib.Path, required=True)
    p.add_argument("--steps", type=int, required=True)
    p.add_argument("--batch-size", type=int, default=1)
    p.add_argument("--grad-accum", type=int, default=1)
    p.add_argument("--lr-unet", type=float, default=1e-4)
    p.add_argument("--lr-te", type=float, default=5e-5)
    p.add_argument("--betas", type=float, nargs=2, default=[0.9, 0.999])
    p.add_argument("--eps", type=float, default=1e-8)
    p.add_argument("--weight-decay", type=float, default=0.01)
    p.add_argument("--max-grad-norm", type=float, default=1.0, help="0 = no clipping")
    p.add_argument("--scheduler", choices=("constant", "linear", "cosine"), default="constant")
    p.add_argument("--warmup", type=int, default=0, help="steps")
    p.add_argument("--prediction", choices=("eps", "v"), help="default: the model's scheduler_config.json")
    p.add_argument("--clip-skip", type=int, default=1)
    p.add_argument("--use-scalar", action="store_true", help="a trainable scalar a module, starting at 1 as after loading")
    p.add_argument("--network", type=pathlib.Path, help="JSON: arguments of each module")
    p.add_argument("--blocks", type=pathlib.Path, help="JSON: the DyLoRA block of each module at each forward")
    p.add_argument("--tlora-mask", type=float, nargs=2, default=[1, 1.0], metavar=("MIN_RANK", "EXPONENT"))
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--out-adapter", type=pathlib.Path)
    p.add_argument("--out-losses", type=pathlib.Path)
    return p


def main() -> None:
    args = parser().parse_args()
    lycoris_logger.setLevel(logging.WARNING)
    if args.threads:
        torch.set_num_threads(args.threads)
    final, record = train(args)
    for s in record["steps"]:
        print(f"step {s['step']}  loss {s['loss']:.6f}  grad_norm {s['grad_norm']:.5f}  lr {s['lr']}")
    if args.out_adapter:
        write(args.out_adapter, final)
    if args.out_losses:
        write_json(args.out_losses, record)


if __name__ == "__main__":
    main()
