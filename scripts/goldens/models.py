"""Makes the tiny models and their goldens: UNet, CLIP text encoder and VAE of diffusers and transformers.

    python scripts/goldens/models.py [--out testdata/golden] [--debug DIR]

Every model folder is a diffusers folder of SD1.x architecture with random weights; beside it, in goldens/, lie inputs, outputs and
input gradients, computed in float32 from the weights as stored. --debug writes the output of every submodule too, to find
where another implementation parts ways.
"""

import argparse
import json
import pathlib

import torch
from common import DTYPES, GOLDEN, normal, randomise, setup, stream, write, write_json

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

SCALING = 0.18215

# Each model: widths, heads, groups of the UNet; width, heads, layers of the text encoder; widths of the VAE; stored dtypes.
# tiny-sd1 has SD1's four levels. tiny-odd has widths that no vector length divides, and asks for the v target.
MODELS = {
    "tiny-sd1": dict(unet=(12, 16, 24, 24), heads=2, groups=4, te=(32, 4, 3), vae=(8, 8, 16, 16), latent=(16, 24), image=(24, 40),
                     dtypes=dict(unet="fp16", text_encoder="fp32", vae="fp16"), prediction="epsilon", text_model_level=False),
    "tiny-odd": dict(unet=(12, 28), heads=4, groups=4, te=(24, 3, 2), vae=(4, 4, 8, 8), latent=(6, 10), image=(16, 8),
                     dtypes=dict(unet="bf16", text_encoder="bf16", vae="bf16"), prediction="v_prediction", text_model_level=True),
}
VOCAB = 400  # the last two are BOS and EOS, as in the full table
SCHEDULER = {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.42.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "clip_sample": False,
}


def make_unet(name: str, m: dict) -> UNet2DConditionModel:
    levels = len(m["unet"])
    return randomise(UNet2DConditionModel(
        sample_size=m["latent"][0], block_out_channels=m["unet"], layers_per_block=2, cross_attention_dim=m["te"][0],
        attention_head_dim=m["heads"], norm_num_groups=m["groups"],
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1)), name + ".unet", m["dtypes"]["unet"])


def make_text_encoder(name: str, m: dict) -> CLIPTextModel:
    width, heads, layers = m["te"]
    return randomise(CLIPTextModel(CLIPTextConfig(
        vocab_size=VOCAB, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=heads,
        max_position_embeddings=77, hidden_act="quick_gelu", layer_norm_eps=1e-5, projection_dim=width,
        bos_token_id=VOCAB - 2, eos_token_id=VOCAB - 1, pad_token_id=VOCAB - 1, attn_implementation="eager")),
        name + ".text_encoder", m["dtypes"]["text_encoder"])


def make_vae(name: str, m: dict) -> AutoencoderKL:
    return randomise(AutoencoderKL(
        block_out_channels=m["vae"], layers_per_block=2, norm_num_groups=4, latent_channels=4, scaling_factor=SCALING, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4), name + ".vae", m["dtypes"]["vae"])


def save_folder(folder: pathlib.Path, m: dict, unet, text_encoder, vae) -> None:
    """Writes a diffusers folder. The text encoder is stored with or without the text_model level: both occur in the field."""
    unet_dtype, vae_dtype = DTYPES[m["dtypes"]["unet"]], DTYPES[m["dtypes"]["vae"]]
    for part, model, dtype in (("unet", unet, unet_dtype), ("vae", vae, vae_dtype)):
        model.to(dtype).save_pretrained(folder / part)
        model.float()
    te_dtype = DTYPES[m["dtypes"]["text_encoder"]]
    text_encoder.to(te_dtype).save_pretrained(folder / "text_encoder")
    text_encoder.float()
    if m["text_model_level"]:
        state = {"text_model." + k: v.to(te_dtype) for k, v in text_encoder.state_dict().items() if "position_ids" not in k}
        write(folder / "text_encoder" / "model.safetensors", state, {"format": "pt"})
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER | {"prediction_type": m["prediction"]})
    write_json(folder / "model_index.json", {
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.0",
        "feature_extractor": [None, None], "safety_checker": [None, None], "image_encoder": [None, None], "requires_safety_checker": False,
        "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": [None, None],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    })
    strip_paths(folder)


def strip_paths(folder: pathlib.Path) -> None:
    """Removes where a model was made from the configs, and read-only attributes that only add noise."""
    for path in folder.glob("*/config.json"):
        config = {k: v for k, v in json.loads(path.read_text()).items() if k != "_name_or_path"}
        write_json(path, config)


def unet_golden(unet, name: str, m: dict) -> dict:
    """latents [2,4,h,w], timesteps [2], context [2,77,D], g like the output -> output, and the gradients of sum(output*g)."""
    rng = stream(name + ".unet.golden")
    h, w = m["latent"]
    latents = normal(rng, 2, 4, h, w).requires_grad_()
    context = normal(rng, 2, 77, m["te"][0]).requires_grad_()
    timesteps = torch.tensor([7, 903])
    g = normal(rng, 2, 4, h, w)
    output = unet(latents, timesteps, encoder_hidden_states=context).sample
    (output * g).sum().backward()
    return dict(latents=latents, timesteps=timesteps, context=context, g=g, output=output, d_latents=latents.grad, d_context=context.grad)


def text_encoder_golden(te, name: str, m: dict) -> dict:
    """input_ids [2,77] -> last_hidden_state (final norm in) and clip_skip_2 (hidden_states[-2], then the final norm), each with the
    gradient of sum(.*g) by the token table's output [2,77,D]."""
    rng = stream(name + ".text_encoder.golden")
    ids = torch.full((2, 77), VOCAB - 1)
    for row, n in enumerate((11, 75)):
        ids[row, 0] = VOCAB - 2
        ids[row, 1:1 + n] = torch.from_numpy(rng.integers(0, VOCAB - 2, n))
    g = normal(rng, 2, 77, m["te"][0])
    inner = getattr(te, "text_model", te)
    out = dict(input_ids=ids, g=g)
    for key in ("last_hidden_state", "clip_skip_2"):
        kept = []
        hook = inner.embeddings.token_embedding.register_forward_hook(
            lambda mod, args, y: kept.append(y.detach().requires_grad_()) or kept[-1])
        states = te(input_ids=ids, output_hidden_states=True)
        hook.remove()
        y = states.last_hidden_state if key == "last_hidden_state" else inner.final_layer_norm(states.hidden_states[-2])
        (y * g).sum().backward()
        out |= {key: y, "d_embeddings." + key: kept[0].grad}
    return out


def vae_golden(vae, name: str, m: dict) -> dict:
    """image [2,3,H,W] -> mean, logvar of the (unscaled) latents and the gradient of sum(mean*g)+sum(logvar*g) by the image;
    raw_latents -> decoded, and the gradient of sum(decoded*g_decoded)."""
    rng = stream(name + ".vae.golden")
    h, w = m["image"]
    image = torch.from_numpy(rng.uniform(-1, 1, (2, 3, h, w)).astype("float32")).requires_grad_()
    raw = normal(rng, 2, 4, h // 8, w // 8, std=1 / SCALING).requires_grad_()
    g, g_decoded = normal(rng, 2, 4, h // 8, w // 8), normal(rng, 2, 3, h, w)
    posterior = vae.encode(image).latent_dist
    ((posterior.mean + posterior.logvar) * g).sum().backward()
    decoded = vae.decode(raw).sample
    (decoded * g_decoded).sum().backward()
    return dict(image=image, g=g, mean=posterior.mean, logvar=posterior.logvar, d_image=image.grad, raw_latents=raw, decoded=decoded,
                g_decoded=g_decoded, d_raw_latents=raw.grad)


def traced(model, run, path: pathlib.Path | None) -> dict:
    """Runs run() and, where path is given, writes the output of every submodule."""
    seen, hooks = {}, []
    if path:
        for key, module in model.named_modules():
            def keep(mod, args, y, key=key):
                y = y[0] if isinstance(y, (tuple, list)) else y
                if isinstance(y, torch.Tensor):
                    seen[key or "model"] = y
            hooks.append(module.register_forward_hook(keep))
    result = run()
    for hook in hooks:
        hook.remove()
    if path:
        write(path, seen)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=GOLDEN)
    parser.add_argument("--debug", type=pathlib.Path)
    args = parser.parse_args()
    setup()
    for name, m in MODELS.items():
        folder = args.out / name
        parts = dict(unet=make_unet(name, m), text_encoder=make_text_encoder(name, m), vae=make_vae(name, m))
        save_folder(folder, m, *parts.values())
        for part, golden in (("unet", unet_golden), ("text_encoder", text_encoder_golden), ("vae", vae_golden)):
            debug = args.debug / f"{name}.{part}.safetensors" if args.debug else None
            result = traced(parts[part], lambda: golden(parts[part], name, m), debug)
            write(folder / "goldens" / f"{part}.safetensors", result)
            for key, value in result.items():
                if value.is_floating_point() and not value.isfinite().all():
                    raise SystemExit(f"{name} {part}: {key} is not finite")
            print(name, part, {k: f"{v.float().std().item():.3g}" for k, v in result.items()})


if __name__ == "__main__":
    main()
