"""Times training steps of PyTorch + lycoris-lora on an SD1.x UNet on the CPU. algos.py starts it and sends it jobs.

    python bench/lycoris_step.py [--isa avx2] < jobs

A job is one line of JSON on standard input: {"model": single file, "replay": file, "layers": [globs], "algo": name, "options": {of create_network},
"names": {glob: {of a module}}, "dim": 16, "steps": 3, "threads": 2, "checkpointing": false, "save": file, "dtype": "bf16", "log": file, "limit": seconds}.
It runs in a process of its own, forked from one that has only imported the libraries, so that these are read once and memory is a job's alone. The answer is
one line: {"exit": status, "peak": bytes of the resident set at its height, "cpu": seconds}; a first line says that the libraries are read. The job's log has lines of JSON:
    {"type": "ready", "modules": N, "parameters": N}  {"type": "step", "step": 1, "seconds": …, "loss": …}
The step is `lycoris train`'s: noisy latents, UNet, MSE, backward, clipping, AdamW, float32. The network is what lycoris.kohya.create_network makes, with its
defaults; only the layers are named here, since its presets take in other ones or stop on SD UNets.
"""

import argparse
import gc
import json
import os
import signal
import sys
import time
from contextlib import contextmanager, nullcontext

from peft_step import hold_isa, say

LDM_UNET = "model.diffusion_model."


def read_tensors(path: str, wanted) -> dict:
    """The tensors of a safetensors file whose names are wanted, in float32, read and not mapped: a mapped file would count as memory."""
    import torch
    types = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "I64": torch.int64}
    out = {}
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.tell()
        for name, entry in header.items():
            if name == "__metadata__" or not wanted(name):
                continue
            start, end = entry["data_offsets"]
            f.seek(data + start)
            value = torch.frombuffer(bytearray(f.read(end - start)), dtype=types[entry["dtype"]]).reshape(entry["shape"])
            out[name] = value if value.dtype == torch.int64 else value.float()
    return out | {"__metadata__": header.get("__metadata__", {})}


def load_unet(path: str):
    """The UNet of a single file: SD1.5's, or of the configuration in the file's metadata."""
    import torch
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    tensors = read_tensors(path, lambda name: name.startswith(LDM_UNET))
    config = json.loads(tensors.pop("__metadata__").get("lycoris.config", "{}")).get("unet", dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8))
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    unet.load_state_dict(convert_ldm_unet_checkpoint(tensors, unet.config), assign=True)
    return unet.requires_grad_(False)


@contextmanager
def quick_svd(rank: int):
    """T-LoRA starts from the largest singular triples. lycoris takes them from a whole decomposition of each weight, which is minutes; the time of a step doesn't
    depend on how they were found."""
    import torch
    whole = torch.linalg.svd

    def largest(weight, full_matrices=False):
        torch.linalg.svd = whole  # svd_lowrank calls it
        u, s, v = torch.svd_lowrank(weight, q=min(rank + 8, *weight.shape))
        torch.linalg.svd = largest
        return u, s, v.T
    torch.linalg.svd = largest
    try:
        yield
    finally:
        torch.linalg.svd = whole


def make_network(unet, job: dict):
    from lycoris.config import PRESET
    from lycoris.kohya import create_network
    PRESET["bench"] = dict(enable_conv=True, use_fnmatch=True, module_algo_map={}, exclude_name=[], name_algo_map=job["names"], unet_target_module=[],
                           unet_target_name=job["layers"], text_encoder_target_module=[], text_encoder_target_name=[])
    with quick_svd(job["dim"]) if job["algo"] == "tlora" else nullcontext():
        network = create_network(1.0, job["dim"], job["dim"], None, None, unet, warn_on_unmatched=False, preset="bench", algo=job["algo"], **job["options"])
    network.apply_to(None, unet, False, True)
    network.prepare_grad_etc(None, unet)
    return network.train()


def train(job: dict) -> None:
    import torch
    from lycoris.modules.tlora import TLoraModule, clear_timestep_mask, compute_timestep_mask, set_timestep_mask
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    unet = load_unet(job["model"])
    network = make_network(unet, job)
    if job["checkpointing"]:
        unet.enable_gradient_checkpointing()
    unet.train()
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
    masked = any(isinstance(m, TLoraModule) for m in network.loras)
    alphas = (1 - torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000) ** 2).cumprod(0)
    rows = read_tensors(job["replay"], lambda name: True)
    say(type="ready", modules=len(network.loras), parameters=sum(p.numel() for p in trained))
    for step in range(job["steps"]):
        latents, noise, states, t = (rows[k][step:step + 1] for k in ("latents", "noise", "context", "timesteps"))
        start = time.perf_counter()
        if masked:
            set_timestep_mask(compute_timestep_mask(t.item(), 1000, job["dim"]))
        noisy = alphas[t].sqrt() * latents + (1 - alphas[t]).sqrt() * noise
        loss = torch.nn.functional.mse_loss(unet(noisy, t, encoder_hidden_states=states).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clear_timestep_mask()
        say(type="step", step=step + 1, seconds=round(time.perf_counter() - start, 4), loss=loss.item())
    network.save_weights(job["save"], {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[job["dtype"]], {})


def run(job: dict) -> dict:
    """Runs a job in a child; its output is in job["log"]."""
    pid = os.fork()
    if pid == 0:
        with open(job["log"], "wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        with open("/proc/self/oom_score_adj", "w") as f:
            f.write("500")  # where memory is short it is this process that goes
        signal.alarm(job["limit"])  # ends the process
        status = 1
        try:
            train(job)
            status = 0
        except BaseException as err:  # the child must not go on as a server
            print(f"{type(err).__name__}: {err}", file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status, usage = os.wait4(pid, 0)
    return dict(exit=os.waitstatus_to_exitcode(status), peak=usage.ru_maxrss * 1024, cpu=usage.ru_utime + usage.ru_stime)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--isa", choices=("auto", "avx2"), default="auto")
    args = p.parse_args()
    hold_isa(args.isa)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import logging
    import diffusers.loaders.single_file_utils  # noqa: F401
    import lycoris.kohya  # noqa: F401
    from diffusers import UNet2DConditionModel  # noqa: F401
    from lycoris.logging import logger
    logger.setLevel(logging.WARNING)
    gc.freeze()  # lycoris collects garbage after each T-LoRA module: a second each with all the libraries' objects
    say(type="ready")
    for line in sys.stdin:
        say(**run(json.loads(line)))


if __name__ == "__main__":
    main()
