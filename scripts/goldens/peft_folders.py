"""Adapter folders as peft writes them, with the weight changes that peft merges.

    python scripts/goldens/peft_folders.py [--out testdata/golden]

peft/<case>/adapter_config.json, adapter_model.safetensors   save_pretrained on the UNet or text encoder of tiny-sd1
peft/<case>.safetensors                                       merged weight - base weight by module path, unet.… or text_encoder.…
"""

import argparse
import json
import pathlib
import re
import tempfile

from common import GOLDEN, normal, read, setup, stream, write, write_json  # first: it sets the environment

import peft
import torch
from replay import load_model

UNET = ["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2", "down_blocks.1.attentions.0.proj_in",
        "down_blocks.1.resnets.0.conv1", "down_blocks.0.downsamplers.0.conv"]
TEXT = ["encoder.layers.1.mlp.fc1", "encoder.layers.1.self_attn.q_proj"]
CASES = {
    "loha": ("unet", UNET, lambda t: peft.LoHaConfig(r=4, alpha=2, target_modules=t, use_effective_conv2d=True, rank_pattern={"proj_in": 2}, alpha_pattern={"attn1.to_q": 3})),
    "loha-flat": ("unet", UNET, lambda t: peft.LoHaConfig(r=2, alpha=8, target_modules=t)),
    "lokr": ("unet", UNET, lambda t: peft.LoKrConfig(r=1, alpha=2, target_modules=t, use_effective_conv2d=True, decompose_both=True)),
    # Both factors whole, where lycoris has scale 1 and peft alpha/r.
    "lokr-whole": ("unet", UNET, lambda t: peft.LoKrConfig(r=8, alpha=2, target_modules=t, decompose_factor=4, alpha_pattern={r".*resnets\.0\.conv1": 4})),
    "lokr-text": ("te", TEXT, lambda t: peft.LoKrConfig(r=2, alpha=3, target_modules=t, decompose_factor=2)),
    "lora": ("unet", UNET, lambda t: peft.LoraConfig(r=4, lora_alpha=2, target_modules=t, use_rslora=True, rank_pattern={"proj_in": 2}, alpha_pattern={"ff.net.2": 5})),
    "dora": ("unet", UNET, lambda t: peft.LoraConfig(r=2, lora_alpha=3, target_modules=t, use_dora=True)),
}


def make(name: str, folder: pathlib.Path, out: pathlib.Path) -> None:
    part, targets, config = CASES[name]
    unet, te = load_model(out / "tiny-sd1", True)
    model = unet if part == "unet" else te
    base = {t: model.get_submodule(t).weight.detach().clone() for t in targets}
    wrapped = peft.get_peft_model(model, config(targets))
    rng = stream("peft." + name)
    with torch.no_grad():
        for key, p in wrapped.named_parameters():
            if "magnitude" in key:
                p.mul_(1 + normal(rng, *p.shape, std=0.05))
            elif re.search(r"lora_|hada_|lokr_", key):
                p.copy_(normal(rng, *p.shape, std=0.3))
    wrapped.save_pretrained(folder)
    merged = wrapped.merge_and_unload()
    prefix = "unet." if part == "unet" else "text_encoder.text_model."
    write(out / "peft" / f"{name}.safetensors", {prefix + t: merged.get_submodule(t).weight.detach() - w for t, w in base.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=GOLDEN)
    args = parser.parse_args()
    setup()
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            make(name, folder, args.out)
            config = json.loads((folder / "adapter_config.json").read_text())
            for key in ("base_model_name_or_path", "auto_mapping", "task_type"):  # where it was made, and noise
                config.pop(key, None)
            config["target_modules"] = sorted(config["target_modules"])
            write_json(args.out / "peft" / name / "adapter_config.json", config)
            write(args.out / "peft" / name / "adapter_model.safetensors", read(folder / "adapter_model.safetensors"), {"format": "pt"})


if __name__ == "__main__":
    main()
