"""Goldens of everything around the network: learning-rate schedules, AdamW, noise, samplers.

    python scripts/goldens/training.py [--out testdata/golden]

schedules.json        factor at each step of diffusers' get_scheduler, {"name", "steps", "warmup", "factors": [...]}
adamw.safetensors     five steps of torch.optim.AdamW: p<i>.0 (start), g<i>.<t>, p<i>.<t> (after step t = 1..5), m<i>, v<i> (after the last)
                      hyperparameters and the learning rate of each step in the metadata
diffusion.safetensors alphas_cumprod [1000]; latents, noise [6,4,3,5], timesteps [6] -> noisy (add_noise), velocity (get_velocity)
samplers.safetensors  <case>.timesteps [n], .sigmas (Euler, [n+1]), .start, .model_output.<i> (given), .model_input.<i> (scaled sample),
                      .sample.<i> (after step i); cases ddim-eps, ddim-v, euler-eps, euler-v, euler-linspace-eps; ten steps
"""

import argparse
import json
import pathlib

import torch
from common import GOLDEN, normal, setup, stream, write

from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from diffusers.optimization import get_scheduler

SD15 = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)


def schedules() -> list[dict]:
    cases = []
    for name in ("constant", "linear", "cosine"):
        for steps, warmup in ((20, 0), (20, 1), (20, 5), (7, 3), (1, 0)):
            p = torch.nn.Parameter(torch.zeros(1))
            optimizer = torch.optim.SGD([p], lr=1.0)
            kind = "constant_with_warmup" if name == "constant" and warmup else name
            scheduler = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
            factors = []
            for _ in range(steps + 1):
                factors.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                scheduler.step()
            cases.append(dict(name=name, steps=steps, warmup=warmup, factors=factors))
    return cases


def adamw() -> tuple[dict, dict]:
    rng = stream("adamw")
    hyper = dict(betas=[0.9, 0.99], eps=1e-8, weight_decay=0.1)
    rates = [0.0, 5e-4, 1e-3, 7e-4, 2e-4]
    params = [torch.nn.Parameter(normal(rng, *shape, std=std)) for shape, std in (((7,), 1), ((4, 5), 0.1), ((3, 2, 3, 3), 1e-3))]
    optimizer = torch.optim.AdamW(params, lr=1.0, foreach=False, **(hyper | {"betas": tuple(hyper["betas"])}))
    out = {f"p{i}.0": p.detach().clone() for i, p in enumerate(params)}
    for t, rate in enumerate(rates, 1):
        optimizer.param_groups[0]["lr"] = rate
        for i, p in enumerate(params):
            p.grad = normal(rng, *p.shape, std=10.0 ** -(i + t % 2))
            out[f"g{i}.{t}"] = p.grad
        optimizer.step()
        out |= {f"p{i}.{t}": p.detach().clone() for i, p in enumerate(params)}
    for i, p in enumerate(params):
        out[f"m{i}"], out[f"v{i}"] = optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"]
    return out, {"hyper": json.dumps(hyper | {"lr": rates})}


def diffusion() -> dict:
    rng = stream("diffusion")
    ddpm = DDPMScheduler(**SD15)
    latents, noise = normal(rng, 6, 4, 3, 5), normal(rng, 6, 4, 3, 5)
    timesteps = torch.tensor([0, 1, 100, 500, 750, 999])
    return dict(alphas_cumprod=ddpm.alphas_cumprod, latents=latents, noise=noise, timesteps=timesteps,
                noisy=ddpm.add_noise(latents, noise, timesteps), velocity=ddpm.get_velocity(latents, noise, timesteps))


def samplers() -> dict:
    out = {}
    shape, steps = (1, 4, 3, 5), 10
    ddim = dict(steps_offset=1, clip_sample=False, set_alpha_to_one=False)
    euler = dict(steps_offset=1, timestep_spacing="leading")
    for case, cls, extra in (
            ("ddim-eps", DDIMScheduler, ddim), ("ddim-v", DDIMScheduler, ddim | {"prediction_type": "v_prediction"}),
            ("euler-eps", EulerDiscreteScheduler, euler), ("euler-v", EulerDiscreteScheduler, euler | {"prediction_type": "v_prediction"}),
            ("euler-linspace-eps", EulerDiscreteScheduler, euler | {"timestep_spacing": "linspace"})):
        rng = stream("sampler." + case)
        scheduler = cls(**SD15, **extra)
        scheduler.set_timesteps(steps)
        sample = normal(rng, *shape) * scheduler.init_noise_sigma
        out |= {f"{case}.timesteps": scheduler.timesteps.double(), f"{case}.start": sample}
        if hasattr(scheduler, "sigmas"):
            out[f"{case}.sigmas"] = scheduler.sigmas
        for i, t in enumerate(scheduler.timesteps):
            out[f"{case}.model_input.{i}"] = scheduler.scale_model_input(sample, t)
            out[f"{case}.model_output.{i}"] = normal(rng, *shape)
            sample = scheduler.step(out[f"{case}.model_output.{i}"], t, sample).prev_sample
            out[f"{case}.sample.{i}"] = sample
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=GOLDEN)
    args = parser.parse_args()
    setup()
    args.out.mkdir(parents=True, exist_ok=True)
    lines = ",\n ".join(json.dumps(c) for c in schedules())
    (args.out / "schedules.json").write_text(f"[\n {lines}\n]\n")
    write(args.out / "adamw.safetensors", *adamw())
    write(args.out / "diffusion.safetensors", diffusion())
    write(args.out / "samplers.safetensors", samplers())


if __name__ == "__main__":
    main()
