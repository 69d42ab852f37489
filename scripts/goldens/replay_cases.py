"""Makes the committed replay goldens: testdata/golden/replay/<case>/{case.json,adapter,replay,expected.safetensors,losses.json,[network.json]}.

    python scripts/goldens/replay_cases.py [--out testdata/golden]

case.json says which model folder (relative to testdata/golden) and which options of replay.py; `flags` are the same run for
`lycoris train`; blocks.json, where there is one, is what the run draws: internal/train's test writes and checks it; replay, where it stands, is the file of another case in place of the case's own. expected.safetensors is the adapter after the
last step, losses.json replay.py's record, network.json the arguments of each module.
"""

import argparse
import logging
import pathlib
import shutil

from common import GOLDEN, setup, write, write_json  # first: it sets the environment

import replay
from lycoris.logging import logger as lycoris_logger
from make_replay import arguments_of, make_adapter, make_rows, make_start

CASES = {
    # UNet and text encoder, two rates, accumulation, clipping that bites, warm-up and cosine.
    "te-accum-clip": dict(
        model="tiny-sd1", size=(8, 16), context="ids", dim=2, alpha=2.0, conv_dim=0, conv_alpha=1.0, tucker=False,
        targets=["text_encoder.encoder.layers.*", "unet.down_blocks.*.attentions.0.transformer_blocks.0.*", "unet.mid_block.attentions.0.*",
                 "unet.up_blocks.3.attentions.2.transformer_blocks.0.ff.*"],
        train=dict(steps=6, batch_size=2, grad_accum=2, lr_unet=2e-3, lr_te=1e-3, max_grad_norm=0.1, scheduler="cosine", warmup=2)),
    # Convolutions of every kind, the 3x3 ones in Tucker form, alpha unlike rank, v target, linear decay, weight decay, odd widths.
    "conv-tucker-v": dict(
        model="tiny-odd", size=(8, 12), context="states", dim=3, alpha=1.0, conv_dim=2, conv_alpha=1.5, tucker=True,
        targets=["unet.conv_in", "unet.conv_out", "unet.time_embedding.*", "unet.down_blocks.*.resnets.0.*", "unet.*samplers.0.conv",
                 "unet.mid_block.resnets.1.*", "unet.up_blocks.*.resnets.2.*", "unet.up_blocks.1.attentions.0.proj_*"],
        train=dict(steps=6, batch_size=2, grad_accum=1, lr_unet=2e-3, lr_te=0.0, max_grad_norm=0.0, scheduler="linear", warmup=0,
                   weight_decay=0.1, prediction="v")),
    # Plain LoCon, text encoder frozen but in use with clip skip 2, batch 1, accumulation 3, constant rate after warm-up.
    "locon-clip-skip": dict(
        model="tiny-sd1", size=(16, 8), context="ids", dim=2, alpha=2.0, conv_dim=1, conv_alpha=1.0, tucker=False,
        targets=["unet.down_blocks.1.resnets.0.*", "unet.down_blocks.*.downsamplers.0.conv", "unet.up_blocks.2.upsamplers.0.conv",
                 "unet.down_blocks.1.attentions.1.transformer_blocks.0.*", "unet.up_blocks.0.resnets.0.*"],
        train=dict(steps=6, batch_size=1, grad_accum=3, lr_unet=2e-3, lr_te=0.0, max_grad_norm=1.0, scheduler="constant", warmup=1,
                   betas=[0.9, 0.99], clip_skip=2)),
}


# Layers of every kind, in UNet and text encoder.
EVERY_KIND = ["text_encoder.encoder.layers.1.*", "unet.conv_in", "unet.down_blocks.1.attentions.0.transformer_blocks.0.*",
              "unet.down_blocks.0.attentions.1.proj_*", "unet.down_blocks.1.resnets.0.*", "unet.down_blocks.0.downsamplers.0.conv",
              "unet.up_blocks.2.upsamplers.0.conv", "unet.time_embedding.linear_2"]
FLAT = [t for t in EVERY_KIND if not any(w in t for w in ("conv_in", "resnets", "samplers"))] + [
    "unet.down_blocks.1.resnets.0.time_emb_proj", "unet.down_blocks.1.resnets.0.conv_shortcut"]
CONV3 = ["unet.conv_in", "*resnets.?.conv1", "*resnets.?.conv2", "*samplers.0.conv"]
ALL = dict(match=["*"])


def every_algorithm() -> dict[str, dict]:
    """A case of 6 steps for each algorithm: UNet and text encoder, batch 2, the rows of one file. In each, two or three forms of the algorithm."""
    lr = dict(lr_unet=2e-3, lr_te=1e-3)
    rules = {
        "loha": [dict(match=CONV3, algo="loha", dim=2, alpha=1.0, use_tucker=True), ALL | dict(algo="loha", dim=2, alpha=1.0)],
        "lokr": [dict(match=CONV3, algo="lokr", dim=1, alpha=0.5, use_tucker=True), dict(match=["unet.*attn1*"], algo="lokr", dim=1, alpha=1.0, decompose_both=True),
                 dict(match=["unet.*attn2*"], algo="lokr", dim=1, alpha=1.0, unbalanced_factorization=True), dict(match=["unet.*"], algo="lokr", dim=100000, alpha=1.0),
                 ALL | dict(algo="lokr", dim=2, alpha=1.0, factor=4)],
        "full": [ALL | dict(algo="full")],
        "ia3": [dict(match=["*.ff.net.2", "*.mlp.fc2", "*resnets.?.conv2"], algo="ia3", train_on_input=True), ALL | dict(algo="ia3")],
        "dylora-blocks": [dict(match=["unet.*"], algo="dylora", dim=4, alpha=2.0, block_size=1), ALL | dict(algo="dylora", dim=3, alpha=1.0, block_size=1)],
        "dylora": [ALL | dict(algo="dylora", dim=2, alpha=1.0, block_size=2)],
        "glora": [ALL | dict(algo="glora", dim=2, alpha=1.0)],
        "glokr": [dict(match=CONV3, algo="glokr", dim=1, alpha=0.5, use_tucker=True), dict(match=["unet.*"], algo="glokr", dim=1, alpha=1.0), ALL | dict(algo="glokr", dim=100, alpha=1.0)],
        "diag-oft": [dict(match=["text_encoder.*"], algo="diag-oft", dim=4, constraint=0.01), dict(match=CONV3, algo="diag-oft", dim=4, rescaled=True), ALL | dict(algo="diag-oft", dim=4)],
        "boft": [dict(match=["text_encoder.*"], algo="boft", dim=8, constraint=0.01), dict(match=CONV3, algo="boft", dim=8, rescaled=True), ALL | dict(algo="boft", dim=8)],
        "dora": [dict(match=["unet.*attn1*"], algo="loha", dim=2, alpha=1.0, weight_decompose=True, wd_on_out=True),
                 dict(match=["unet.*attn2*", "unet.*resnets*"], algo="lokr", dim=1, alpha=1.0, weight_decompose=True, wd_on_out=False),
                 dict(match=["*samplers*", "*mlp*"], algo="lora", dim=2, alpha=1.0, weight_decompose=True, wd_on_out=False),
                 ALL | dict(algo="lora", dim=2, alpha=1.0, weight_decompose=True, wd_on_out=True)],
        "norm": [dict(match=["unet.*norm*", "text_encoder.*layer_norm?", "text_encoder.final_layer_norm"], algo="norm"), ALL | dict(algo="lora", dim=2, alpha=2.0)],
        "mixed": [dict(match=["*norm3"], algo="norm"), dict(match=["unet.*attn1*"], algo="loha", dim=2, alpha=1.0), dict(match=["unet.*attn2*"], algo="diag-oft", dim=4),
                  dict(match=["*.ff.*"], algo="lokr", dim=2, alpha=1.0, factor=4), dict(match=["*resnets*"], algo="lora", dim=2, alpha=1.0),
                  dict(match=["*samplers*", "*mlp*"], algo="ia3"), dict(match=["*self_attn*"], algo="glora", dim=2, alpha=1.0), ALL | dict(algo="full")],
        "tlora-whole": [dict(match=["*"], algo="tlora", dim=4, alpha=2.0)],
        "tlora": [dict(match=["*"], algo="tlora", dim=4, alpha=2.0)],
    }
    cases = {name: dict(model="tiny-sd1", size=(8, 8), context="ids", rules=r, within=EVERY_KIND, train=dict(steps=6, batch_size=2, grad_accum=1, max_grad_norm=1.0, scheduler="constant",
                                                                                         warmup=0) | lr) for name, r in rules.items()}
    cases["full"]["train"] |= dict(weight_decay=0.1, lr_unet=5e-4, lr_te=5e-4)
    cases["dylora-blocks"] |= dict(flags=["--set", "algo=dylora", "--set", "block_size=1"], blocks=True)
    cases["dylora"]["flags"] = ["--set", "algo=dylora", "--set", "block_size=2"]
    cases["tlora"]["within"] = cases["tlora-whole"]["within"] = FLAT
    cases["tlora-whole"]["train"] |= dict(tlora_mask=[4, 1.0])
    cases["tlora"]["flags"] = ["--set", "algo=tlora", "--set", "min_rank=1"]
    cases["tlora-whole"]["flags"] = ["--set", "algo=tlora"]  # a file of lycoris-lora goes on without masks
    cases["norm"]["within"] = EVERY_KIND + ["unet.down_blocks.0.resnets.0.norm*", "unet.conv_norm_out", "text_encoder.final_layer_norm"]
    first = next(iter(cases))
    for name, case in cases.items():
        if name != first:
            case["replay"] = first
    return cases


CASES |= every_algorithm()


def options(case: dict, golden: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """replay.py's command line for a case."""
    rows = folder.parent / case.get("replay", folder.name) / "replay.safetensors"
    out = ["--model", str(golden / case["model"]), "--adapter", str(folder / "adapter.safetensors"), "--replay", str(rows)]
    if "rules" in case:
        out += ["--network", str(folder / "network.json")]
    if "blocks" in case:
        out += ["--blocks", str(folder / "blocks.json")]
    for key, value in case["train"].items():
        out += ["--" + key.replace("_", "-"), *(map(str, value) if isinstance(value, list) else [str(value)])]
    return out


def flags(case: dict) -> list[str]:
    """The same for `lycoris train`, without paths."""
    t = {"weight_decay": 0.01, "betas": [0.9, 0.999], "prediction": "eps", "clip_skip": 1} | case["train"]
    return ["--steps", str(t["steps"]), "--batch-size", str(t["batch_size"]), "--lr-unet", repr(t["lr_unet"]), "--lr-te", repr(t["lr_te"]),
            "--scheduler", t["scheduler"], "--warmup", str(t["warmup"])] + [
            arg for key, value in {
                "grad_accum": t["grad_accum"], "train.max_grad_norm": t["max_grad_norm"], "optimizer.weight_decay": t["weight_decay"],
                "optimizer.betas": "[{},{}]".format(*t["betas"]), "model.prediction": t["prediction"], "model.clip_skip": t["clip_skip"],
                "train.train_te": str(bool(t["lr_te"])).lower(), "save.dtype": "fp32",
            }.items() for arg in ("--set", f"{key}={value}")] + case.get("flags", [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=GOLDEN)
    args = parser.parse_args()
    setup()
    lycoris_logger.setLevel(logging.WARNING)
    for name, case in CASES.items():
        folder = args.out / "replay" / name
        unet, te = replay.load_model(args.out / case["model"], True)
        rows = case["train"]["steps"] * case["train"]["batch_size"] * case["train"]["grad_accum"]
        if "replay" not in case:
            write(folder / "replay.safetensors", make_rows(unet, te, name, rows, case["size"], case["context"]))
        if "rules" in case:
            arguments = arguments_of(unet, te, case["rules"], case["within"])
            write_json(folder / "network.json", arguments)
            adapter = make_start(unet, te, name, arguments)
        else:
            adapter = make_adapter(unet, te, name, *(case[k] for k in ("targets", "dim", "alpha", "conv_dim", "conv_alpha", "tucker")))
        write(folder / "adapter.safetensors", adapter)
        shared = {"replay": case["replay"]} if "replay" in case else {}
        write_json(folder / "case.json", dict(model=case["model"], train=case["train"], flags=flags(case)) | shared)
        if "blocks" in case:  # given, not made
            given = GOLDEN / "replay" / name / "blocks.json"
            if not given.exists():
                print(f"{name}: no blocks.json yet: copy the new files and run go test ./internal/train -run TestReplayOfPython -update")
                continue
            if given != folder / "blocks.json":
                shutil.copyfile(given, folder / "blocks.json")
        final, record = replay.train(replay.parser().parse_args(options(case, args.out, folder)))
        write(folder / "expected.safetensors", final)
        write_json(folder / "losses.json", record)
        update = sum(((final[k] - adapter[k]).float() ** 2).sum() for k in final if not k.endswith(".alpha")).sqrt().item()
        size = sum((adapter[k].float() ** 2).sum() for k in final if not k.endswith(".alpha")).sqrt().item()
        print(f"{name}: {len(adapter)} tensors, update/size {update / size:.4f}")
        for s in record["steps"]:
            print(f"  step {s['step']}  loss {s['loss']:.6f}  grad_norm {s['grad_norm']:.5f}  lr {s['lr']}")


if __name__ == "__main__":
    main()
