"""Times a LoRA training step of PyTorch + peft on an SD1.5-shaped UNet with random weights, on the CPU.

    python bench/peft_step.py [--steps 6] [--threads N] [--isa avx2] [--targets full|attn-mlp] [--text-encoder none|frozen|train]

The step is what `lycoris train` does: noisy latents, UNet, MSE, backward, clipping, AdamW, in float32. Targets as lycoris names them: full =
every Linear and convolution (282 modules), attn-mlp = those of the transformer blocks (192). One JSON object a line:
    {"type": "hello", …}  {"type": "step", "step": 1, "seconds": …, "loss": …}  {"type": "result", "median_s": …, "peak_rss_bytes": …}
The median leaves out the first step (allocation, oneDNN's primitive creation), as it does for lycoris in run.py.
"""

import argparse
import json
import os
import resource
import statistics
import time


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--isa", choices=("auto", "avx2"), default="auto", help="avx2: hold ATen, oneDNN and MKL to AVX2")
    p.add_argument("--targets", choices=("full", "attn-mlp"), default="full")
    p.add_argument("--text-encoder", choices=("none", "frozen", "train"), default="none", help="none: cached states, as lycoris does without --train-te")
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--batch-size", type=int, default=1)
    p.add_argument("--size", type=int, default=512, help="pixels of a side")
    p.add_argument("--checkpointing", action="store_true")
    p.add_argument("--tiny", action="store_true", help="a small UNet, to try the script")
    return p.parse_args()


def hold_isa(isa: str) -> None:
    """Must run before torch is imported."""
    if isa == "avx2":
        os.environ |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def say(**fields) -> None:
    print(json.dumps(fields), flush=True)


def wanted(model, targets: str) -> list[str]:
    """Paths of the modules that get an adapter."""
    import torch
    return [path for path, m in model.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))
            and (targets == "full" or ".attentions." in path)]


def main() -> None:
    args = parse()
    hold_isa(args.isa)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import CLIPTextConfig, CLIPTextModel

    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    widths = dict(block_out_channels=(32, 64, 64, 64), norm_num_groups=16) if args.tiny else {}
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8, **widths)
    unet.requires_grad_(False)
    config = dict(r=args.rank, lora_alpha=args.rank, init_lora_weights="gaussian")
    unet.add_adapter(LoraConfig(target_modules=wanted(unet, args.targets), **config))
    if args.checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()
    te = None
    if args.text_encoder != "none":
        te = CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12))
        te.requires_grad_(False)
        if args.text_encoder == "train":
            names = [n for n, m in te.named_modules() if isinstance(m, torch.nn.Linear)]
            inject_adapter_in_model(LoraConfig(target_modules=names, **config), te)
            te.train()
    models = [unet] + ([te] if te is not None else [])
    trained = [p for m in models for p in m.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    say(type="hello", program="peft", torch=torch.__version__, capability=torch.backends.cpu.get_cpu_capability(), threads=torch.get_num_threads(),
        isa=args.isa, targets=args.targets, modules=sum(hasattr(m, "lora_A") for model in models for m in model.modules()),
        parameters=sum(p.numel() for p in trained), size=args.size, batch=args.batch_size, text_encoder=args.text_encoder)

    seconds, shape = [], (args.batch_size, 4, args.size // 8, args.size // 8)
    for step in range(1, args.steps + 1):
        latents, noise = torch.randn(shape), torch.randn(shape)
        timesteps = torch.randint(0, 1000, (args.batch_size,))
        ids, states = torch.randint(0, 49408, (args.batch_size, 77)), torch.randn(args.batch_size, 77, 768)
        start = time.perf_counter()
        if args.text_encoder == "train":
            states = te(input_ids=ids).last_hidden_state
        elif args.text_encoder == "frozen":
            with torch.no_grad():
                states = te(input_ids=ids).last_hidden_state
        noisy = scheduler.add_noise(latents, noise, timesteps)
        pred = unet(noisy, timesteps, encoder_hidden_states=states).sample
        loss = torch.nn.functional.mse_loss(pred, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
        say(type="step", step=step, seconds=round(seconds[-1], 4), loss=round(loss.item(), 6))
    say(type="result", median_s=statistics.median(seconds[1:] or seconds), peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main()
