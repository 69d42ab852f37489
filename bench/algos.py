"""Times a training step of every algorithm, `lycoris train` and PyTorch + lycoris-lora alternately, and writes a table.

    python bench/algos.py [--rows lora,loha,…] [--steps 3] [--ours-only] [--continue] [--smoke] [--model bench/out/sd15-random.safetensors] [--out bench/out]

Each row is one algorithm at default settings (ROWS says the others), dim 16, alpha = dim, on the layers of the UNet that the row names; the text encoder isn't
trained. Both programs read the same file: latents, noise, timesteps and text states that --replay takes. One process for each row and side. Seconds are the
median of the steps after the first, memory is the process's peak (wait4, which is VmHWM), the adapter is saved in bf16 by both.

--continue keeps what an earlier run with the same settings measured and runs the rest, failures again. --ours-only is for a quick look after a change; it writes
algos-ours.*. --smoke takes a tiny model and two steps: it shows that every row runs. A side that crashes, runs out of memory or needs more than --limit seconds
is a row with the reason; steps made before that count. algos.json and algos.md in --out are written after every row.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field

from run import HERE, REPO, cpu_name, json_lines

OURS, THEIRS = "lycoris", "lycoris-lora"


@dataclass(frozen=True)
class Layers:
    """The same layers as each program names them."""
    targets: str                               # ours: a set
    globs: tuple[str, ...]                     # theirs: of module paths
    names: dict = field(default_factory=dict)  # theirs: arguments of modules by glob


ATTENTION = Layers("attn-mlp", ("*.attentions.*",))
EVERYTHING = Layers("unet-only", ("*",))
IA3 = Layers("ia3", ("*.to_k", "*.to_v", "*.ff.net.2"), {"*.ff.net.2": dict(train_on_input=True)})


@dataclass(frozen=True)
class Row:
    """One line of the table: an algorithm on some layers, with what isn't a default on either side."""
    name: str
    algo: str
    layers: Layers = ATTENTION
    ours: tuple[str, ...] = ()                 # KEY=VALUE
    theirs: dict = field(default_factory=dict)  # options of create_network
    goal: float = 2                            # times as fast as lycoris-lora
    note: str = ""


ROWS = [
    Row("lora", "lora"),
    Row("loha", "loha"),
    Row("lokr", "lokr"),
    Row("dylora", "dylora", ours=("block_size=4",), theirs=dict(block_size=4), note="blocks of 4 ranks on both sides, lycoris-lora's default"),
    Row("glora", "glora"),
    Row("ia3", "ia3", IA3, note="to_k, to_v and, on the input, ff.net.2"),
    Row("full", "full"),
    Row("diag-oft", "diag-oft"),
    Row("boft", "boft"),
    Row("tlora", "tlora", note="lycoris-lora's start, whole decompositions of the weights, is replaced by the largest singular triples only: it isn't part of a step; "
        "ours saves the start too"),
    Row("dora", "lora", ours=("dora=out",), theirs=dict(dora_wd=True), note="lora with a magnitude per output"),
    Row("locon-conv", "locon", EVERYTHING, goal=3),
    Row("loha-conv", "loha", EVERYTHING),
    Row("lokr-conv", "lokr", EVERYTHING),
]


# What the machine does beside this.

def ticks() -> int:
    """Clock ticks that the processors were busy, or taken by the host, since the start."""
    user, nice, system, _, _, irq, softirq, steal = map(int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return user + nice + system + irq + softirq + steal


class Others:
    """How many processors other processes kept busy from start to stop."""

    def __init__(self):
        self.ticks, self.time = ticks(), time.perf_counter()

    def stop(self, own: float) -> float:
        """own: processor seconds of the process that was measured."""
        busy = (ticks() - self.ticks) / os.sysconf("SC_CLK_TCK") - own
        return round(max(0.0, busy / (time.perf_counter() - self.time)), 2)


def busy_processes(seconds: float = 1) -> list[str]:
    """Processes that use more than a tenth of a processor: name, share."""
    def times():
        out = {}
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                name, rest = path.read_text().split("(", 1)[1].rsplit(")", 1)
            except (OSError, IndexError):
                continue
            fields = rest.split()
            out[path.parent.name] = (name, int(fields[11]) + int(fields[12]))
        return out
    before, after = times(), (time.sleep(seconds), times())[1]
    shares = {pid: (name, (t - before[pid][1]) / os.sysconf("SC_CLK_TCK") / seconds) for pid, (name, t) in after.items() if pid in before and pid != str(os.getpid())}
    return [f"{name} {share:.0%}" for name, share in sorted(shares.values(), key=lambda s: -s[1]) if share > 0.1]


# The two sides. Each returns {"steps": seconds, "losses": …, "peak": bytes, "wall": seconds, "others": processors, "file": …} and "error" where it failed.

def ours_command(args, row: Row, folder: str) -> list[str]:
    """The one place where lycoris's command line is spelled."""
    settings = [f"targets={row.layers.targets}", "train.train_te=false", f"train.checkpointing={str(args.checkpointing).lower()}", "train.max_grad_norm=1.0",
                f"save.dtype={args.dtype}", "save.state_every=0", f"cpu_isa={args.isa}", *row.ours]
    dim = [] if row.algo in ("full", "ia3") else [f"--dim={args.dim}"]
    return [str(args.lycoris), "train", "--no-config", "--model", str(args.model), "--replay", str(args.replay), f"--algo={row.algo}", *dim, f"--steps={args.steps}",
            "--scheduler=constant", "--warmup=0", f"--threads={args.threads}", "--out", folder, "--name", "bench", "--progress", "none",
            *[a for s in settings for a in ("--set", s)]]


def run_ours(args, row: Row, folder: str) -> dict:
    log, others, start = args.out / f"algos-{row.name}-ours.log", Others(), time.perf_counter()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LYCORIS_")}
    with open(log, "wb") as out:
        process = subprocess.Popen(ours_command(args, row, folder), stdout=out, stderr=subprocess.STDOUT, env=environment, preexec_fn=first_to_go)
        timer = threading.Timer(args.limit, process.kill)
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            in_time = timer.is_alive()
            timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    run = pathlib.Path(folder) / "bench"
    metrics = run / "metrics.jsonl"
    steps = [r for r in json_lines(metrics) if r.get("type") == "step"] if metrics.exists() else []
    result = dict(steps=[r["s_it"] for r in steps], losses=[r["loss"] for r in steps], peak=usage.ru_maxrss * 1024, wall=round(time.perf_counter() - start, 2),
                  others=others.stop(usage.ru_utime + usage.ru_stime))
    if process.returncode:
        return result | dict(error=reason(process.returncode if in_time else None, log, args.limit))
    return result | dict(file=adapter(run / "bench.safetensors"))


def first_to_go() -> None:
    """Where memory is short it is the measured process that ends."""
    pathlib.Path("/proc/self/oom_score_adj").write_text("500")


class Theirs:
    """The process that runs lycoris-lora's side; it is started for the first row."""

    def __init__(self, args):
        self.args, self.process = args, None

    def __call__(self, args, row: Row, folder: str) -> dict:
        if self.process is None:
            environment = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "LYCORIS_KERNEL_BACKEND")}
            self.process = subprocess.Popen([sys.executable, str(HERE / "lycoris_step.py"), f"--isa={args.isa}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                            env=environment, start_new_session=True)
            self.answer()  # the libraries are read
        log, save = args.out / f"algos-{row.name}-theirs.log", f"{folder}/theirs.safetensors"
        job = dict(model=str(args.model), replay=str(args.replay), layers=row.layers.globs, names=row.layers.names, algo=row.algo, options=row.theirs, dim=args.dim,
                   steps=args.steps, threads=args.threads, checkpointing=args.checkpointing, save=save, dtype=args.dtype, log=str(log), limit=args.limit)
        others, start = Others(), time.perf_counter()
        end = self.ask(job)
        steps = [r for r in json_lines(log) if r.get("type") == "step"]
        result = dict(steps=[r["seconds"] for r in steps], losses=[r["loss"] for r in steps], peak=end["peak"], wall=round(time.perf_counter() - start, 2),
                      others=others.stop(end["cpu"]))
        if end["exit"]:
            return result | dict(error=reason(None if end["exit"] == -14 else end["exit"], log, args.limit))
        return result | dict(file=adapter(pathlib.Path(save)))

    def ask(self, job: dict) -> dict:
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict:
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("lycoris_step.py ended")
        return json.loads(answer)

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, 15)
            self.process.wait()


def reason(code: int | None, log: pathlib.Path, limit: int) -> str:
    """Why a side ended: one line. code: exit status, None for the time limit."""
    if code is None:
        return f"stopped after {limit} s"
    if code == -9:
        return "killed: probably out of memory"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip() and not line.lstrip().startswith("{")]
    found = [line for line in lines if re.match(r"error|\w*Error\b|panic", line)] or lines[-1:] or ["no message"]
    return f"exit {code}: {found[-1] if code < 0 else found[0]}"[:300]


def header(path: pathlib.Path) -> dict:
    with open(path, "rb") as f:
        return json.loads(f.read(int.from_bytes(f.read(8), "little")))


def adapter(path: pathlib.Path) -> dict:
    """Size of an adapter file, its modules and its trained numbers."""
    tensors = {k: v for k, v in header(path).items() if k != "__metadata__"}
    numbers = 0
    for key, entry in tensors.items():
        n = 1
        for side in entry["shape"]:
            n *= side
        numbers += 0 if key.endswith(".alpha") else n
    return dict(bytes=path.stat().st_size, modules=len({k.split(".")[0] for k in tensors}), numbers=numbers)


def make_replay(args) -> None:
    """Random rows of the benchmark's size."""
    import numpy as np
    from safetensors.numpy import save_file
    config = json.loads(header(args.model).get("__metadata__", {}).get("lycoris.config", "{}")).get("unet", {})
    rng, n, side = np.random.default_rng(0), args.steps, args.size // 8
    normal = lambda *shape: rng.standard_normal(shape, dtype=np.float32)
    save_file(dict(latents=normal(n, 4, side, side), noise=normal(n, 4, side, side), timesteps=rng.integers(0, 1000, n),
                   context=normal(n, 77, config.get("cross_attention_dim", 768))), args.replay)


# The table.

def seconds(side: dict | None) -> float | None:
    """The median of the steps after the first."""
    timed = (side or {}).get("steps", [])[1:]
    return statistics.median(timed) if timed else None


def differences(row: Row, ours: dict | None, theirs: dict | None) -> list[str]:
    """What a reader of the row must know."""
    notes = [row.note] if row.note else []
    for name, side in ((OURS, ours), (THEIRS, theirs)):
        if side and "error" in side:
            notes.append(f"{name}: {side['error']}")
    if ours and theirs and "file" in ours and "file" in theirs:
        for what in ("modules", "numbers"):
            if ours["file"][what] != theirs["file"][what]:
                notes.append(f"{what} saved: {ours['file'][what]} and {theirs['file'][what]}")
    if ours and theirs and ours["losses"] and theirs["losses"] and abs(ours["losses"][0] / theirs["losses"][0] - 1) > 1e-3:
        notes.append(f"the first loss is {ours['losses'][0]:.5f} and {theirs['losses'][0]:.5f}")
    return notes


def company(*sides: dict | None) -> list[str]:
    """A note where the machine was busy with other things."""
    shares = [side["others"] for side in sides if side]
    return [f"other processes kept {' and '.join(f'{s:.1f}' for s in shares)} processors busy meanwhile"] if max(shares, default=0) > 0.15 else []


def misses(row: Row, ours: dict | None, theirs: dict | None) -> list[str]:
    """Which goals a row misses: so many times as fast, with less memory."""
    a, b = seconds(ours), seconds(theirs)
    if a is None or b is None:
        return ["not measured"]
    out = [f"{b / a:.2f} times as fast, not {row.goal:g}"] if b / a < row.goal else []
    return out + (["not less memory"] if ours["peak"] >= theirs["peak"] else [])


def table(args, results: dict[str, dict]) -> str:
    show = lambda value, form: "–" if value is None else format(value, form)
    part = lambda side, *keys: None if side is None or keys[0] not in side else side[keys[0]] if len(keys) == 1 else side[keys[0]][keys[1]]
    ratio = lambda a, b: None if not a or not b else b / a
    lines = [f"{'SD1.5 UNet' if not args.smoke else 'Tiny UNet'} (fp16 file), {args.size}x{args.size}, batch 1, float32, AdamW, dim {args.dim}, alpha = dim, text encoder not trained, "
             f"checkpointing {'on' if args.checkpointing else 'off'}, adapters in {args.dtype}; instruction sets: {args.isa}; {args.threads} threads; {cpu_name()}; {args.steps} steps, "
             f"the first left out; {time.strftime('%Y-%m-%d')}." + ("" if args.ours_only else " Ours / lycoris-lora's / how many times less."), "",
             "| algorithm | layers | s/step | peak GiB | adapter MB | load before |", "|---|---|---|---|---|---|"]
    notes, missed = [], []
    for row in ROWS:
        if row.name not in results:
            continue
        result = results[row.name]
        ours, theirs = result.get(OURS), result.get(THEIRS)
        cells = []
        for values, form in (((seconds(ours), seconds(theirs)), ".2f"), ((part(ours, "peak"), part(theirs, "peak")), ".2f"),
                             ((part(ours, "file", "bytes"), part(theirs, "file", "bytes")), ".2f")):
            unit = {0: 1, 1: 2**30, 2: 1e6}[len(cells)]
            a, b = (None if v is None else v / unit for v in values)
            cells.append(show(a, form) if args.ours_only else f"{show(a, form)} / {show(b, form)} / {show(ratio(a, b), '.2f')}")
        modules = part(ours, "file", "modules") or part(theirs, "file", "modules")
        loads = ", ".join(f"{side['load']:.1f}" for side in (ours, theirs) if side)
        lines.append(f"| {row.name} | {show(modules, 'd')} | {' | '.join(cells)} | {loads} |")
        notes += [f"- {row.name}: {n}" for n in differences(row, ours, theirs) + ([] if args.smoke else company(ours, theirs))]
        missed += [] if args.ours_only or args.smoke else [f"- {row.name}: {m}" for m in misses(row, ours, theirs)]
    if notes:
        lines += ["", "Notes:", "", *notes]
    if missed:
        lines += ["", "Goals missed (2 times as fast, 3 for locon with convolutions, less memory):", "", *missed]
    return "\n".join(lines) + "\n"


# The run.

SETTINGS = ("model", "steps", "size", "dim", "dtype", "threads", "isa", "checkpointing")


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", default=",".join(r.name for r in ROWS), help="comma between them; default: %(default)s")
    p.add_argument("--steps", type=int, default=3, help="the first isn't counted")
    p.add_argument("--ours-only", action="store_true")
    p.add_argument("--continue", dest="go_on", action="store_true")
    p.add_argument("--smoke", action="store_true", help="a tiny model, two steps, one thread")
    p.add_argument("--model", type=pathlib.Path, help="single file; default: sd15-random.safetensors in --out")
    p.add_argument("--lycoris", type=pathlib.Path, default=REPO / "bin/lycoris")
    p.add_argument("--limit", type=int, default=300, help="seconds for one side of a row")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--isa", choices=("auto", "avx2"), default="auto")
    p.add_argument("--checkpointing", action="store_true", help="on both sides; off otherwise")
    p.add_argument("--size", type=int, default=512)
    p.add_argument("--dim", type=int, default=16)
    p.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), default="bf16", help="of the adapters")
    p.add_argument("--out", type=pathlib.Path, default=HERE / "out")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.steps < 2:
        p.error("--steps: the first isn't counted, two are needed")
    if args.smoke:
        args.steps, args.size, args.threads = 2, 64, 1  # one thread: OpenMP's threads wait for each other in a loop, seconds for each layer on a busy machine
        args.model = args.model or args.out / "tiny.safetensors"
        if not args.model.exists():
            subprocess.run(["go", "run", "./scripts/fullsize", "-tiny", str(args.model.resolve())], cwd=REPO, check=True)
    args.model = args.model or args.out / "sd15-random.safetensors"
    known = {r.name: r for r in ROWS}
    if unknown := [r for r in args.rows.split(",") if r not in known]:
        p.error(f"no row {', '.join(unknown)}; there are: {', '.join(known)}")
    args.rows = [known[name] for name in args.rows.split(",")]
    for path, what in ((args.model, "go run ./scripts/fullsize FILE makes one"), (args.lycoris, "make build makes it")):
        if not path.exists():
            p.error(f"{path} doesn't exist; {what}")
    args.stem = "algos" + ("-smoke" if args.smoke else "") + ("-ours" if args.ours_only else "")
    args.replay = args.out / f"{args.stem}-replay.safetensors"
    return args


def earlier(args, settings: dict) -> dict:
    """The results to go on from; those that would be lost are put aside."""
    path = args.out / f"{args.stem}.json"
    if not path.exists():
        return {}
    if not args.go_on:
        for end in ("json", "md"):
            (args.out / f"{args.stem}.{end}").replace(args.out / f"{args.stem}-before.{end}")
        return {}
    found = json.loads(path.read_text())
    if changed := [f"{k} {found['settings'].get(k)}, now {v}" for k, v in settings.items() if found["settings"].get(k) != v]:
        sys.exit(f"{path} was made with other settings ({'; '.join(changed)}): leave out --continue")
    return found["results"]


def main() -> None:
    args = parse()
    settings = {k: str(getattr(args, k)) for k in SETTINGS}
    results = earlier(args, settings)
    make_replay(args)
    sides = {OURS: run_ours} if args.ours_only else {OURS: run_ours, THEIRS: Theirs(args)}
    start = time.perf_counter()
    try:
        for row in args.rows:
            result = results.setdefault(row.name, {})
            todo = [name for name in sides if seconds(result.get(name)) is None]
            if not todo:
                continue
            busy = busy_processes()
            print(f"{row.name}: load {os.getloadavg()[0]:.1f}, {time.perf_counter() - start:.0f} s so far", file=sys.stderr, flush=True)
            if busy:
                print(f"  WARNING: the machine isn't idle: {', '.join(busy[:5])}", file=sys.stderr, flush=True)
            for name in todo:
                with tempfile.TemporaryDirectory(dir=args.out) as folder:
                    load = os.getloadavg()[0]
                    result[name] = sides[name](args, row, folder) | dict(load=load, busy=busy)
                s = seconds(result[name])
                print(f"  {name}: {'–' if s is None else f'{s:.2f} s/step'}, {result[name]['peak'] / 2**30:.2f} GiB, {result[name]['wall']:.0f} s in all"
                      + (f"; {result[name]['error']}" if "error" in result[name] else ""), file=sys.stderr, flush=True)
            (args.out / f"{args.stem}.json").write_text(json.dumps(dict(settings=settings, results=results), indent=1) + "\n")
            (args.out / f"{args.stem}.md").write_text(table(args, results))
    except KeyboardInterrupt:
        sys.exit("stopped; --continue goes on with the row that was begun")
    finally:
        if not args.ours_only:
            sides[THEIRS].stop()
    print(table(args, results))


if __name__ == "__main__":
    main()
