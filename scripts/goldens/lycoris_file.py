"""What lycoris-lora writes into an adapter file.

    python scripts/goldens/lycoris_file.py [--out testdata/golden]

lycoris_file.json  what LycorisNetworkKohya.save_weights writes for testdata/golden/tiny-sd1 with targets of every kind: keys in
                   order with dtype and shape. transformers 5 has no text_model level, so lycoris's names lack it; ours have it.
"""

import argparse
import json
import pathlib
import tempfile

import torch
from common import GOLDEN, setup
from safetensors import safe_open

from lycoris.kohya import LycorisNetworkKohya


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
    listing = file_listing(args.out)
    rows = ",\n  ".join(json.dumps(row) for row in listing.pop("tensors"))
    (args.out / "lycoris_file.json").write_text(json.dumps(listing)[:-1] + f', "tensors": [\n  {rows}\n]}}\n')


if __name__ == "__main__":
    main()
