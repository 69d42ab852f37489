"""Prints every module of the reference programs that holds parameters: path, class, classes around it, parameters with shapes.

    python scripts/goldens/names.py [--out testdata/names]

The models are built on the meta device: no weights, no download. internal/arch is tested against the files.
"""

import argparse
import pathlib

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

UNET_SDXL = dict(
    block_out_channels=(320, 640, 1280), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(5, 10, 20), transformer_layers_per_block=(1, 2, 10),
    cross_attention_dim=2048, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816)

MODELS = {
    "sd15_unet": lambda: UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8),
    "sd2_unet": lambda: UNet2DConditionModel(cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True),
    "sdxl_unet": lambda: UNet2DConditionModel(**UNET_SDXL),
    "sd15_vae": lambda: AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4),
    "sd15_text_encoder": lambda: CLIPTextModel(CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, hidden_act="quick_gelu")),
}


def lines(model: torch.nn.Module):
    classes = {name: type(module).__name__ for name, module in model.named_modules()}
    for name, module in model.named_modules():
        params = [f"{key}{list(p.shape)}".replace(" ", "") for key, p in module.named_parameters(recurse=False)]
        if not params:
            continue
        parts = name.split(".")
        around = [classes[".".join(parts[:i])] for i in range(len(parts))]
        extra = [f"stride{module.stride[0]}", f"pad{module.padding[0]}"] if isinstance(module, torch.nn.Conv2d) else []
        yield " ".join([name, type(module).__name__, ">".join(c for c in around if c != "ModuleList"), *params, *extra])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parents[2] / "testdata" / "names")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, make in MODELS.items():
        with torch.device("meta"):
            text = "\n".join(lines(make())) + "\n"
        (out / f"{name}.txt").write_text(text)
        print(name, text.count("\n"))


if __name__ == "__main__":
    main()
