"""Times `lycoris train` and PyTorch + peft on the same step, run alternately (A B A B), and writes a table.

    python bench/run.py --model bench/out/sd15-random.safetensors [--rounds 2] [--steps 6] [--isa avx2] [--data PICTURES] [--out bench/out]

--model: a full-size SD1.5 checkpoint (scripts/goldens/single_file.py --full-size makes one of random weights). Without --data lycoris is fed
random latents and text states by --replay, which leaves out the caching of pictures; its cost is not a step's. Peak memory is the
process's own (wait4), for both programs. Seconds are the median of the steps after the first, of all rounds.
Other busy processes slow PyTorch several-fold: the load before each run is part of the table.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parent


def lycoris_command(args, folder: str) -> list[str]:
    """The one place where lycoris's command line is spelled."""
    source = ["--data", str(args.data)] if args.data else ["--replay", str(args.replay)]
    command = [str(args.lycoris), "train", "--no-config", "--model", str(args.model), *source, "--algo=lora", f"--dim={args.rank}",
               f"--steps={args.steps}", f"--batch-size={args.batch_size}", "--set", f"targets={args.targets}",
               "--set", f"train.train_te={str(args.text_encoder == 'train').lower()}", "--set", "train.max_grad_norm=1.0",
               "--set", f"cpu_isa={args.isa}", f"--resolution={args.size}", "--out", folder, "--name", "bench", "--progress", "none", "--json"]
    if args.threads:
        command.append(f"--threads={args.threads}")
    return command + args.lycoris_flags


def peft_command(args) -> list[str]:
    command = [args.python, str(HERE / "peft_step.py"), f"--steps={args.steps}", f"--threads={args.threads}", f"--rank={args.rank}", f"--isa={args.isa}",
               f"--targets={args.targets}", f"--batch-size={args.batch_size}", f"--size={args.size}", f"--text-encoder={args.text_encoder}"]
    return command + (["--checkpointing"] if args.checkpointing else [])


def run(command: list[str], log: pathlib.Path) -> dict:
    """Runs a command with its output in log; returns load before, wall seconds and the peak resident size in bytes."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    load, start = os.getloadavg()[0], time.perf_counter()
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}\nended with {process.returncode}; the last lines of {log}:\n" + "\n".join(log.read_text().splitlines()[-15:]))
    return dict(load=load, wall=time.perf_counter() - start, peak=usage.ru_maxrss * 1024)


def json_lines(path: pathlib.Path) -> list[dict]:
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            pass
    return [r for r in rows if isinstance(r, dict)]


def run_lycoris(args, round_: int) -> dict:
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        result = run(lycoris_command(args, folder), args.out / f"lycoris-{round_}.log")
        steps = [r["s_it"] for r in json_lines(pathlib.Path(folder) / "bench" / "metrics.jsonl") if r.get("type") == "step"]
    return result | dict(steps=steps)


def run_peft(args, round_: int) -> dict:
    log = args.out / f"peft-{round_}.log"
    result = run(peft_command(args), log)
    return result | dict(steps=[r["seconds"] for r in json_lines(log) if r.get("type") == "step"])


def make_replay(args) -> pathlib.Path:
    """Random rows of the benchmark's size, made by the Python that has torch."""
    path = args.out / "replay.safetensors"
    rows, side = args.steps * args.batch_size, args.size // 8
    text = "input_ids=torch.randint(0,49406,(n,77))" if args.text_encoder != "none" else "context=torch.randn(n,77,768)"
    code = (f"import torch; from safetensors.torch import save_file; torch.manual_seed(0); n={rows}; "
            f"save_file(dict(latents=torch.randn(n,4,{side},{side}),noise=torch.randn(n,4,{side},{side}),timesteps=torch.randint(0,1000,(n,)),{text}),{str(path)!r})")
    subprocess.run([args.python, "-c", code], check=True)
    return path


def cpu_name() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


def table(args, results: dict[str, list[dict]]) -> str:
    lines = [f"SD1.5 UNet, LoRA rank {args.rank} on `{args.targets}`, {args.size}x{args.size}, batch {args.batch_size}, float32, AdamW, text encoder "
             f"{args.text_encoder}; instruction sets: {args.isa}; {args.threads or os.cpu_count()} threads; {cpu_name()}; {args.rounds} rounds of "
             f"{args.steps} steps, the first step of each left out; {time.strftime('%Y-%m-%d')}.", "",
             "| program | s/step, median | best | worst | peak GiB | load before |", "|---|---|---|---|---|---|"]
    medians, peaks = {}, {}
    for name, rounds in results.items():
        steps = [s for r in rounds for s in (r["steps"][1:] or r["steps"])]
        medians[name], peaks[name] = statistics.median(steps), max(r["peak"] for r in rounds)
        loads = ", ".join(f"{r['load']:.1f}" for r in rounds)
        lines.append(f"| {name} | {medians[name]:.2f} | {min(steps):.2f} | {max(steps):.2f} | {peaks[name] / 2**30:.2f} | {loads} |")
    if len(results) == 2:
        lines += ["", f"lycoris is {medians['peft'] / medians['lycoris']:.2f} times as fast and takes {peaks['lycoris'] / peaks['peft']:.0%} of the memory."]
    return "\n".join(lines) + "\n"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=pathlib.Path)
    p.add_argument("--data", type=pathlib.Path, help="a folder of pictures; without it: random latents by --replay")
    p.add_argument("--lycoris", type=pathlib.Path, default=REPO / "bin/lycoris")
    p.add_argument("--python", default=sys.executable)
    p.add_argument("--only", choices=("lycoris", "peft"))
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--isa", choices=("auto", "avx2"), default="auto")
    p.add_argument("--targets", choices=("full", "attn-mlp"), default="full")
    p.add_argument("--text-encoder", choices=("none", "train"), default="none")
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--batch-size", type=int, default=1)
    p.add_argument("--size", type=int, default=512)
    p.add_argument("--checkpointing", action="store_true", help="for peft; lycoris chooses by itself")
    p.add_argument("--out", type=pathlib.Path, default=HERE / "out")
    p.add_argument("lycoris_flags", nargs="*", help="after --: more flags of lycoris train")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    programs = {"lycoris": run_lycoris, "peft": run_peft}
    if args.only:
        programs = {args.only: programs[args.only]}
    if "lycoris" in programs:
        if args.model is None:
            p.error("--model is needed to run lycoris")
        args.replay = None if args.data else make_replay(args)
    results = {name: [] for name in programs}
    for round_ in range(args.rounds):
        for name, program in programs.items():
            print(f"round {round_ + 1}: {name}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
            results[name].append(program(args, round_))
    text = table(args, results)
    (args.out / "table.md").write_text(text)
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
