"""Writes a single-file checkpoint with LDM names (SD1.x): from a diffusers folder, or full-size with random weights.

    python scripts/goldens/single_file.py --model FOLDER --out tiny.safetensors [--dtype fp16]
    python scripts/goldens/single_file.py --full-size --out sd15-random.safetensors        # 2 GB in fp16
    python scripts/goldens/single_file.py --check FOLDER --out tiny.safetensors            # diffusers' own converter reads it back

The file made from a folder holds the same numbers under other names, so the folder's goldens are its goldens too.
"""

import argparse
import pathlib
import re
import sys

from common import DTYPES, normal, read, stream, write  # first: it sets the environment

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
          "conv_shortcut": "skip_connection"}
UNET_HEAD = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
             "conv_norm_out": "out.0", "conv_out": "out.2"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_name(key: str, attention_up: list[bool]) -> str:
    """diffusers name -> LDM name without prefix. attention_up[i]: whether up block i has attention."""
    for old, new in UNET_HEAD.items():
        if key.startswith(old + "."):
            return new + key[len(old):]
    m = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", key)
    if m:
        side, i, kind, j, rest = m[1], int(m[2]), m[3], int(m[4]), m[5]
        if kind == "downsamplers":
            return f"input_blocks.{3 + 3 * i}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            return f"output_blocks.{3 * i + 2}.{2 if attention_up[i] else 1}.{rest}"
        block = f"input_blocks.{1 + 3 * i + j}" if side == "down" else f"output_blocks.{3 * i + j}"
        return f"{block}.{0 if kind == 'resnets' else 1}.{resnet_rest(rest) if kind == 'resnets' else rest}"
    m = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", key)
    if not m:
        raise SystemExit(f"no LDM name for {key}")
    place = 1 if m[1] == "attentions" else 2 * int(m[2])
    return f"middle_block.{place}.{resnet_rest(m[3]) if m[1] == 'resnets' else m[3]}"


def resnet_rest(rest: str) -> str:
    part, tail = rest.split(".", 1)
    return f"{RESNET[part]}.{tail}"


def vae_name(key: str) -> str:
    key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    key = key.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    m = re.fullmatch(r"(.*)mid_block\.attentions\.0\.(.+)\.(weight|bias)", key)
    if m:
        return f"{m[1]}mid.attn_1.{VAE_ATTENTION[m[2]]}.{m[3]}"
    key = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{3 - int(m[1])}.block.", key)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"up.{3 - int(m[1])}.upsample.", key)


def convert(unet, te, vae, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    out = {}
    attention_up = [hasattr(b, "attentions") for b in unet.up_blocks]
    for key, value in unet.state_dict().items():
        out["model.diffusion_model." + unet_name(key, attention_up)] = value
    for key, value in vae.state_dict().items():
        if ".mid_block.attentions.0.to_" in key and value.ndim == 2:
            value = value[:, :, None, None]  # LDM has 1x1 convolutions here
        out["first_stage_model." + vae_name(key)] = value
    for key, value in te.state_dict().items():
        if "position_ids" not in key:
            out["cond_stage_model.transformer.text_model." + key.removeprefix("text_model.")] = value
    return {key: value if dtype is None else value.to(dtype) for key, value in out.items()}


def stored(folder: pathlib.Path) -> torch.dtype:
    """The type of the weights in a component's folder."""
    return next(iter(read(next(folder.glob("*.safetensors"))).values())).dtype


def full_size():
    """SD1.5's three networks with random weights in float16, made without a float32 copy."""
    torch.set_default_dtype(torch.float16)
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, scaling_factor=0.18215,
                            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, sample_size=512)
        te = CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                          num_attention_heads=12, hidden_act="quick_gelu"))
    torch.set_default_dtype(torch.float32)
    rng = stream("full-size")
    with torch.no_grad():
        for model in (unet, te, vae):
            model.to_empty(device="cpu")
            for key, p in model.named_parameters():
                if p.ndim == 1:
                    p.copy_(torch.ones(p.shape) if key.endswith("weight") else torch.zeros(p.shape))
                else:
                    p.copy_(normal(rng, *p.shape, std=0.02 if "embedding" in key else 0.6 * p[0].numel() ** -0.5))
    return unet, te, vae


def check(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Reads the file with diffusers' converters and compares every tensor with the folder's."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
    single = read(path)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    for model, convert_back in ((unet, convert_ldm_unet_checkpoint), (vae, convert_ldm_vae_checkpoint)):
        back = convert_back(dict(single), model.config)
        for key, want in model.state_dict().items():
            if not torch.equal(back[key].reshape(want.shape).float(), want.float()):
                sys.exit(f"{key} differs")
        print(type(model).__name__, len(back), "tensors equal")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=pathlib.Path)
    source.add_argument("--full-size", action="store_true")
    source.add_argument("--check", type=pathlib.Path)
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.add_argument("--dtype", choices=DTYPES)
    args = p.parse_args()
    if args.check:
        check(args.check, args.out)
        return
    if args.full_size:
        parts = full_size()
    else:
        parts = (UNet2DConditionModel.from_pretrained(args.model / "unet", torch_dtype=stored(args.model / "unet")),
                 CLIPTextModel.from_pretrained(args.model / "text_encoder", dtype=stored(args.model / "text_encoder")),
                 AutoencoderKL.from_pretrained(args.model / "vae", torch_dtype=stored(args.model / "vae")))
    tensors = convert(*parts, DTYPES[args.dtype] if args.dtype else None)
    write(args.out, tensors)
    print(args.out, len(tensors), "tensors,", sum(t.numel() for t in tensors.values()), "numbers")


if __name__ == "__main__":
    main()
