"""Goldens of the LoRA/LoCon algorithm: lycoris-lora's LoConModule, rebuild form, forward and every gradient.

    python scripts/goldens/lycoris_lora.py [--out testdata/golden]

locon.safetensors, one layer:  <layer>.W, .b, .x, .dy, .up, .down, [.mid]; y = layer(x), x NCHW or [B,T,I]
                   one case:   <layer>/<variant>.y, .dx, .d_up, .d_down, [.d_mid], [.d_scalar], and .saved_up, .saved_alpha: what lycoris
                               writes to a file for this module (the scalar folded into lora_up, rs-lora into alpha)
locon.json         the cases: layer, variant, kind, stride, padding, rank, alpha, rs_lora, use_scalar, scalar, multiplier, tucker, scale
lycoris_file.json  what LycorisNetworkKohya.save_weights writes for testdata/golden/tiny-sd1 with targets of every kind: keys in
                   order with dtype and shape. transformers 5 has no text_model level, so lycoris's names lack it; ours have it.
"""

import argparse
import itertools
import json
import pathlib
import tempfile

import torch
from common import GOLDEN, normal, setup, stream, write
from safetensors import safe_open

from lycoris.kohya import LycorisNetworkKohya
from lycoris.modules.locon import LoConModule

RANK = 4
LAYERS = {
    "linear": dict(kind="linear"),
    "conv1x1": dict(kind="conv", kernel=1, stride=1, padding=0),
    "conv3x3": dict(kind="conv", kernel=3, stride=1, padding=1),
    "conv3x3s2": dict(kind="conv", kernel=3, stride=2, padding=1),
    "tucker3x3": dict(kind="conv", kernel=3, stride=1, padding=1, tucker=True),
    "tucker3x3s2": dict(kind="conv", kernel=3, stride=2, padding=1, tucker=True),
}
PLAIN = dict(alpha=RANK, rs_lora=False, use_scalar=False, scalar=1.0, multiplier=1.0)
VARIANTS = {
    "plain": {},
    "alpha": dict(alpha=1.5),
    "rs_lora": dict(alpha=3.0, rs_lora=True),
    "scalar": dict(use_scalar=True, scalar=-0.7),
    "multiplier": dict(multiplier=0.6),
    "all": dict(alpha=1.5, rs_lora=True, use_scalar=True, scalar=0.4, multiplier=1.3),
}


def make_layer(name: str, spec: dict) -> dict:
    rng = stream("locon." + name)
    if spec["kind"] == "linear":
        o, i, x, dy = 24, 36, (2, 5, 36), (2, 5, 24)
        shapes = dict(W=(o, i), up=(o, RANK), down=(RANK, i))
    else:
        o, i, k, s = 20, 12, spec["kernel"], spec["stride"]
        h, w = 7, 5
        oh, ow = (((n + 2 * spec["padding"] - k) // s) + 1 for n in (h, w))
        x, dy = (2, i, h, w), (2, o, oh, ow)
        shapes = dict(W=(o, i, k, k), up=(o, RANK, 1, 1), down=(RANK, i, k, k))
        if spec.get("tucker"):
            shapes |= dict(down=(RANK, i, 1, 1), mid=(RANK, RANK, k, k))
    out = {key: normal(rng, *shape, std=(torch.Size(shape).numel() // shape[0]) ** -0.5) for key, shape in shapes.items()}
    return out | dict(b=normal(rng, o), x=normal(rng, *x), dy=normal(rng, *dy))


def run(spec: dict, t: dict, v: dict) -> tuple[dict, float]:
    """Output, gradients and saved tensors of one case, and the module's scale."""
    o = t["W"].shape[0]
    if spec["kind"] == "linear":
        layer = torch.nn.Linear(t["W"].shape[1], o)
    else:
        layer = torch.nn.Conv2d(t["W"].shape[1], o, spec["kernel"], spec["stride"], spec["padding"])
    layer.weight.data, layer.bias.data = t["W"].clone(), t["b"].clone()
    layer.requires_grad_(False)
    module = LoConModule("m", layer, v["multiplier"], RANK, v["alpha"], use_tucker=spec.get("tucker", False),
                         use_scalar=v["use_scalar"], rs_lora=v["rs_lora"], bypass_mode=False)
    factors = {"up": module.lora_up, "down": module.lora_down} | ({"mid": module.lora_mid} if spec.get("tucker") else {})
    for key, part in factors.items():
        part.weight.data = t[key].clone()
    if v["use_scalar"]:
        module.scalar.data.fill_(v["scalar"])
    module.train().apply_to()
    x = t["x"].clone().requires_grad_()
    y = layer(x)
    y.backward(t["dy"])
    out = dict(y=y, dx=x.grad) | {"d_" + key: part.weight.grad for key, part in factors.items()}
    if v["use_scalar"]:
        out["d_scalar"] = module.scalar.grad
    saved = module.state_dict()
    return out | dict(saved_up=saved["lora_up.weight"], saved_alpha=saved["alpha"]), float(module.scale)


def file_listing(golden: pathlib.Path) -> dict:
    """Key, dtype and shape of what lycoris writes, in its order, for a few modules of every kind."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel
    unet = UNet2DConditionModel.from_pretrained(golden / "tiny-sd1/unet", torch_dtype=torch.float32)
    te = CLIPTextModel.from_pretrained(golden / "tiny-sd1/text_encoder", dtype=torch.float32)
    LycorisNetworkKohya.apply_preset(dict(
        enable_conv=True, use_fnmatch=True, unet_target_module=["Downsample2D"], text_encoder_target_module=["CLIPMLP"],
        unet_target_name=["conv_in", "mid_block.attentions.0.*", "up_blocks.3.resnets.2.*", "time_embedding.linear_1"],
        text_encoder_target_name=[], module_algo_map={}, name_algo_map={}, exclude_name=[]))
    network = LycorisNetworkKohya(te, unet, lora_dim=3, conv_lora_dim=2, alpha=1.5, conv_alpha=1, use_tucker=True, network_module="locon",
                                  bypass_mode=False, warn_on_unmatched=False)
    network.apply_to(te, unet, True, True)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/a.safetensors"
        network.save_weights(path, None, {"ss_network_module": "lycoris.kohya"})
        with safe_open(path, "pt") as f:
            keys = [[key, f.get_slice(key).get_dtype(), f.get_slice(key).get_shape()] for key in network.state_dict()]
            assert sorted(f.keys()) == sorted(k for k, _, _ in keys)
            return dict(model="tiny-sd1", dim=3, alpha=1.5, conv_dim=2, conv_alpha=1, tucker=True, metadata=sorted(f.metadata()), tensors=keys)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=GOLDEN)
    args = parser.parse_args()
    setup()
    tensors, cases = {}, []
    layers = {name: make_layer(name, spec) for name, spec in LAYERS.items()}
    for name, t in layers.items():
        tensors |= {f"{name}.{key}": value for key, value in t.items()}
    for (name, spec), (variant, changes) in itertools.product(LAYERS.items(), VARIANTS.items()):
        if name.endswith("s2") and variant not in ("plain", "all"):
            continue
        v = PLAIN | changes
        out, scale = run(spec, layers[name], v)
        tensors |= {f"{name}/{variant}.{key}": value for key, value in out.items()}
        cases.append(dict(layer=name, variant=variant, **({"tucker": False} | spec), rank=RANK, **v, scale=scale))
    write(args.out / "locon.safetensors", tensors)
    lines = ",\n ".join(json.dumps(c) for c in cases)
    (args.out / "locon.json").write_text(f"[\n {lines}\n]\n")
    listing = file_listing(args.out)
    rows = ",\n  ".join(json.dumps(row) for row in listing.pop("tensors"))
    (args.out / "lycoris_file.json").write_text(json.dumps(listing)[:-1] + f', "tensors": [\n  {rows}\n]}}\n')


if __name__ == "__main__":
    main()
