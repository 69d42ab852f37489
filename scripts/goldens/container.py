"""Loads a diffusers folder that `lycoris convert --to diffusers` made, as a whole, and compares its UNet with another folder's.

    lycoris convert --in model.safetensors --out made --to diffusers
    python scripts/goldens/container.py made [reference]
"""
import sys

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel

made = DiffusionPipeline.from_pretrained(sys.argv[1], dtype=torch.float32)
print(type(made).__name__, {k: type(v).__name__ for k, v in made.components.items() if v is not None})
print("tokens", made.tokenizer("a photo of a cat").input_ids)
if len(sys.argv) > 2:
    other = UNet2DConditionModel.from_pretrained(sys.argv[2], subfolder="unet", dtype=torch.float32)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 16, 16, generator=g)
    text = torch.randn(1, 77, made.unet.config.cross_attention_dim, generator=g)
    with torch.no_grad():
        a, b = made.unet(x, 500, text).sample, other(x, 500, text).sample
    print("UNet: largest difference", (a - b).abs().max().item(), "of", a.abs().max().item())
    assert torch.equal(a, b)
