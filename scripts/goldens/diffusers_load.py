"""Loads an adapter with diffusers' load_lora_weights and checks that it does what the file says.

    python scripts/goldens/diffusers_load.py --model FOLDER --adapter FILE

The model's UNet (and text encoder, where the adapter has modules in it) runs with the adapter loaded by diffusers and once more with
W + alpha/rank * up*down written into the weights by this script; the outputs must be equal within 1e-4 of the largest value, and must
differ from the base model's. Plain linear and conv LoRA; diffusers does not read the Tucker form. Exit status 1 on a failure.
"""

import argparse
import pathlib
import sys
import warnings

from common import normal, read, relative, stream  # first: it sets the environment

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline
from make_replay import modules_of
from replay import TE, load_model, text_states

BOUND = 1e-4


def outputs(unet, te) -> dict[str, torch.Tensor]:
    """UNet output of fixed random inputs and text states of fixed ids, without gradient."""
    rng = stream("diffusers_load")
    size = 8 * 2 ** max(0, len(unet.config.block_out_channels) - 4)
    latents, context = normal(rng, 2, 4, size, 2 * size), normal(rng, 2, 77, unet.config.cross_attention_dim)
    ids = torch.from_numpy(rng.integers(0, te.config.vocab_size, (2, 77)))
    with torch.no_grad():
        return dict(unet=unet(latents, torch.tensor([20, 700]), encoder_hidden_states=context).sample, te=text_states(te, ids, 1))


def merge(unet, te, adapter: dict[str, torch.Tensor]) -> set[str]:
    """Adds every module's delta to the weight it belongs to; returns the modules of the file that found no weight."""
    left = {key.split(".")[0] for key in adapter}
    for _, name, module in modules_of(unet, te):
        for spelled in (name, name.replace("lora_te_text_model_", TE)):
            if spelled not in left:
                continue
            left.remove(spelled)
            up, down = adapter[spelled + ".lora_up.weight"].float(), adapter[spelled + ".lora_down.weight"].float()
            rank = down.shape[0]
            scale = adapter.get(spelled + ".alpha", torch.tensor(float(rank))).item() / rank
            delta = scale * (up.flatten(1) @ down.flatten(1)).reshape(module.weight.shape)
            module.weight.data += delta
    return left


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=pathlib.Path, required=True)
    p.add_argument("--adapter", type=pathlib.Path, required=True)
    args = p.parse_args()
    warnings.simplefilter("ignore")
    adapter = read(args.adapter)
    if any(".lora_mid." in key for key in adapter):
        sys.exit("the adapter has Tucker tensors, which diffusers does not read")
    unet, te = load_model(args.model, True)
    base = outputs(unet, te)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(args.model / "vae"), text_encoder=te, tokenizer=None, unet=unet, safety_checker=None,
        scheduler=PNDMScheduler.from_pretrained(args.model / "scheduler"), feature_extractor=None, requires_safety_checker=False)
    pipeline.load_lora_weights(args.adapter.parent, weight_name=args.adapter.name)
    loaded = outputs(unet, te)
    wrapped = sum(hasattr(m, "lora_A") for part in (unet, te) for m in part.modules())
    modules = len({key.split(".")[0] for key in adapter})

    unet, te = load_model(args.model, True)
    left = merge(unet, te, adapter)
    own = outputs(unet, te)
    print(f"{modules} modules in the file, {wrapped} loaded by diffusers, {len(left)} without a weight {sorted(left)[:3]}")
    good = wrapped == modules and not left
    for part, prefix in (("unet", "lora_unet_"), ("te", TE)):
        moved, error = relative(base[part], own[part]), relative(loaded[part], own[part])
        trained = any(key.startswith(prefix) for key in adapter)
        ok = error <= BOUND and (moved > BOUND) == trained
        print(f"{part:<5} the adapter moves the output by {moved:.2e}, diffusers and the file differ by {error:.2e}{'' if ok else '  <-- wrong'}")
        good &= ok
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
