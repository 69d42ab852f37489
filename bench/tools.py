"""Times `lycoris merge`, `extract` and `resize` beside a plain copy of the file and the same tools of LyCORIS and sd-scripts, alternately, and writes a table.

    python bench/tools.py [--rows merge-lora,resize,…] [--rounds 3] [--ours-only] [--continue] [--smoke] [--out bench/out]

Models are random: SD1.5 of full size in fp16 (sd15-random.safetensors in --out, 2.1 GB) and, for merge-sdxl, SDXL (6.9 GB); adapters and tuned models are made from them before the
first round (scripts/fullsize). In each round every side of a row runs once, each in a process of its own: A B C A B C. All inputs are read before each run, so that everybody finds
them in the page cache, and what earlier runs wrote is on the disk. Seconds are the whole process, program start included; lycoris and the copy end with an fsync, the peers don't,
and their time to get the file to the disk isn't counted. Memory is the process's peak resident set (wait4, which is VmHWM). The table has medians, tools.json every run.

The peers' tools run from checkouts of their repositories, which aren't part of this one: --sd-scripts and --lycoris-tools (default: peers/sd-scripts and peers/LyCORIS in --out), with
--peer-python (peers/venv) that has sd-scripts' requirements and lycoris-lora 4.1.3. LyCORIS's tools call that package and sd-scripts' library. Without a checkout a side is left out
and the table says so. A side that fails, needs more than --memory GiB or more than --limit seconds is noted with the reason and isn't run again in later rounds.

--smoke: tiny models and one round, to see that every row runs; the peers' merge and extract know only full-size models and stay out.
"""

import argparse
import json
import os
import pathlib
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from algos import Others, busy_processes, first_to_go, header
from run import HERE, REPO, cpu_name

COPY, OURS, LYCORIS, KOHYA = "copy", "lycoris", "LyCORIS", "sd-scripts"
SIDES = (COPY, OURS, LYCORIS, KOHYA)


@dataclass(frozen=True)
class Row:
    """One line of the table. Files are names of FILES."""
    name: str
    tool: str                # merge, extract, resize
    model: str = ""          # the file that is copied beside it
    adapter: str = ""
    tuned: str = ""
    conv: bool = False       # extract: kernels larger than a pixel too
    peers: tuple[str, ...] = ()
    faster: dict | None = None  # goals: times as fast as each peer
    copies: float = 0           # goal: at most so many times as long as a copy
    memory: float = 0           # goal: MiB
    note: str = ""


ROWS = [
    Row("merge-lora", "merge", "base", "lora", peers=(LYCORIS, KOHYA), faster={LYCORIS: 6, KOHYA: 6}, copies=1.5, memory=600, note="LoRA rank 16 on 264 layers"),
    Row("merge-loha", "merge", "base", "loha", peers=(LYCORIS,), faster={LYCORIS: 6}, copies=1.5, memory=600,
        note="LoHa dim 8 on 264 layers; sd-scripts leaves out LoHa without a word"),
    Row("merge-lokr", "merge", "base", "lokr", peers=(LYCORIS,), faster={LYCORIS: 6}, copies=1.5, memory=600,
        note="LoKr dim 8, factor 8, on 264 layers; sd-scripts leaves out LoKr without a word"),
    Row("extract", "extract", "base", tuned="tuned", peers=(KOHYA,), faster={KOHYA: 5}, memory=1536, note="rank 16 of a change of rank 64 on 264 layers (no convolutions larger than a pixel)"),
    Row("extract-conv", "extract", "base", tuned="tuned-all", conv=True, peers=(LYCORIS,), faster={LYCORIS: 12}, memory=1536,
        note="rank 16 of a change of rank 64 on all 354 layers; LyCORIS splits convolutions once more (Tucker form), its default"),
    Row("resize", "resize", adapter="lora", peers=(KOHYA,), faster={KOHYA: 30}, memory=400, note="LoRA of rank 16 on 264 layers to rank 8; sd-scripts stops on a layer of fewer than 8 outputs (conv_out)"),
    Row("merge-sdxl", "merge", "base-xl", "lora-xl", copies=1.5, memory=600, note="LoRA rank 16 on the 722 layers of SDXL's transformers"),
]

# How each file is made: by scripts/fullsize with these arguments, or by merging an adapter into the base.
FILES = {
    "base": ["-model", "MODEL"], "base-xl": ["-model", "sdxl"],
    "lora": ["-model", "MODEL", "-adapter", "lora", "-dim", "16"], "loha": ["-model", "MODEL", "-adapter", "loha", "-dim", "8"],
    "lokr": ["-model", "MODEL", "-adapter", "lokr", "-dim", "8"],
    "lora-xl": ["-model", "sdxl", "-adapter", "lora", "-dim", "16"],
    "change": ["-model", "MODEL", "-adapter", "lora", "-dim", "64", "-seed", "2"], "change-all": ["-model", "MODEL", "-adapter", "lora", "-dim", "64", "-all", "-seed", "2"],
    "tuned": "change", "tuned-all": "change-all",
}




# Files.

def path_of(args, name: str) -> pathlib.Path:
    if name == "base" and not args.smoke:
        return args.model
    return args.out / f"tools-{'smoke-' if args.smoke else ''}{name}.safetensors"


def make(args, name: str) -> pathlib.Path:
    """The file, made where it isn't there."""
    path, recipe = path_of(args, name), FILES[name]
    if path.exists():
        return path
    print(f"making {path.name}", file=sys.stderr, flush=True)
    if isinstance(recipe, str):
        command = [str(args.lycoris), "merge", "--quiet", "--model", str(make(args, "base")), "--adapter", str(make(args, recipe)), "--out", str(path)]
    else:
        command = ["go", "run", "./scripts/fullsize", *(("tiny" if args.smoke else "sd15") if a == "MODEL" else a for a in recipe), str(path.resolve())]
    if subprocess.run(command, cwd=REPO, stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"{shlex.join(command)} failed")
    return path


def inputs(args, row: Row) -> list[pathlib.Path]:
    return [make(args, name) for name in (row.model, row.adapter, row.tuned) if name]


# The sides.

def command(args, row: Row, side: str, out: pathlib.Path) -> list[str]:
    """The one place where command lines are spelled."""
    model, adapter, tuned = (str(path_of(args, name)) if name else "" for name in (row.model, row.adapter, row.tuned))
    ours = [str(args.lycoris), row.tool, "--quiet", "--out", str(out)]
    kohya = [str(args.peer_python), str(HERE / "tools_peer.py"), str(args.sd_scripts), str(args.sd_scripts / "networks")]
    lycoris = [str(args.peer_python), str(HERE / "tools_peer.py"), str(args.sd_scripts), str(args.lycoris_tools / "tools")]
    script = lambda program, name, *more: [*program[:-1], f"{program[-1]}/{name}", *more]
    conv = ["--conv-dim", "16"] if row.conv else []
    return {
        ("merge", COPY): ["dd", f"if={model}", f"of={out}", "bs=8M", "conv=fsync", "status=none"],
        ("merge", OURS): [*ours, "--model", model, "--adapter", adapter],
        ("merge", LYCORIS): script(lycoris, "merge.py", model, adapter, str(out), "--dtype", "fp16"),
        ("merge", KOHYA): script(kohya, "merge_lora.py", "--sd_model", model, "--models", adapter, "--ratios", "1", "--save_to", str(out), "--precision", "float", "--save_precision", "fp16"),
        ("extract", OURS): [*ours, "--base", model, "--tuned", tuned, "--dim", "16", *conv],
        ("extract", LYCORIS): script(lycoris, "extract_locon.py", model, tuned, str(out), "--safetensors", "--mode", "fixed", "--linear_dim", "16", "--conv_dim", "16"),
        ("extract", KOHYA): script(kohya, "extract_lora_from_models.py", "--model_org", model, "--model_tuned", tuned, "--save_to", str(out), "--dim", "16", "--save_precision", "fp16",
                                   "--min_diff", "0.001", *(["--conv_dim", "16"] if row.conv else [])),
        ("resize", OURS): [*ours, "--in", adapter, "--dim", "8"],
        ("resize", KOHYA): script(kohya, "resize_lora.py", "--model", adapter, "--save_to", str(out), "--new_rank", "8", "--save_precision", "fp16"),
    }[row.tool, side]


def sides_of(args, row: Row) -> dict[str, str]:
    """The sides of a row, with the reason where one can't run."""
    sides = {COPY: ""} if row.tool == "merge" else {}
    sides[OURS] = ""
    if row.tool not in args.commands:
        sides[OURS] = f"this lycoris has no {row.tool}"
    for peer in () if args.ours_only else row.peers:
        missing = [str(p) for p in (args.peer_python, args.sd_scripts, *([args.lycoris_tools] if peer == LYCORIS else [])) if not p.exists()]
        sides[peer] = f"not run: {', '.join(missing)} isn't there" if missing else "not run: knows full-size models only" if args.smoke and row.tool != "resize" else ""
    return sides


def warm(paths: list[pathlib.Path]) -> None:
    """Brings files into the page cache, and everything written to the disk."""
    os.sync()
    for path in paths:
        subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=8M", "status=none"], check=True)


def limited(args):
    def prepare():
        first_to_go()
        limit = int(args.memory * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return prepare


def run_side(args, row: Row, side: str, round_: int) -> dict:
    """One run: {"seconds", "peak", "load", "others", "bytes", "modules"}, or "error"."""
    out = args.out / f"tools-out-{side}.safetensors"
    out.unlink(missing_ok=True)
    warm(inputs(args, row))
    log = args.out / f"tools-{row.name}-{side}.log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LYCORIS_") and k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    load, others, start = os.getloadavg()[0], Others(), time.perf_counter()
    try:
        with open(log, "wb") as file:
            process = subprocess.Popen(command(args, row, side, out), stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment, preexec_fn=limited(args))
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
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        result = dict(seconds=round(seconds, 3), peak=usage.ru_maxrss * 1024, load=round(load, 2), others=others.stop(usage.ru_utime + usage.ru_stime), round=round_)
        if process.returncode or not out.exists():
            return result | dict(error=reason(process.returncode, in_time, log, args))
        names = [k for k in header(out) if k.endswith((".lora_down.weight", ".diff"))]
        return result | dict(bytes=out.stat().st_size, modules=len(names))
    finally:
        for stray in args.out.glob("tools-out-*"):
            stray.unlink()


def reason(code: int, in_time: bool, log: pathlib.Path, args) -> str:
    """Why a side ended, in a line."""
    text = log.read_text(errors="replace")
    if not in_time:
        return f"stopped after {args.limit} s"
    if code == -9 or any(w in text for w in ("MemoryError", "can't allocate memory", "out of memory", "Cannot allocate memory", "cannot allocate memory")):
        return f"out of memory at {args.memory:g} GiB"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"exit {code}: {(lines or ['no message'])[-1]}"[:300] if code else "wrote nothing"


# The table.

def median(runs: list[dict], key: str) -> float | None:
    values = [r[key] for r in runs if "error" not in r]
    return statistics.median(values) if values else None


def peak(runs: list[dict]) -> float | None:
    values = [r["peak"] for r in runs if "error" not in r]
    return max(values) / 2**20 if values else None


def show(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form)


def ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def goals(row: Row, result: dict) -> list[str]:
    """What of its goals a row misses."""
    out, ours = [], median(result.get(OURS, []), "seconds")
    if ours is None:
        return ["not measured"]
    for peer, times in (row.faster or {}).items():
        got = ratio(median(result.get(peer, []), "seconds"), ours)
        if got is not None and got < times:
            out.append(f"{got:.1f} times as fast as {peer}, not {times}")
    copies = ratio(ours, median(result.get(COPY, []), "seconds"))
    if row.copies and copies and copies > row.copies:
        out.append(f"{copies:.2f} times as long as a copy, not {row.copies}")
    if row.memory and (used := peak(result[OURS])) > row.memory:
        out.append(f"{used:.0f} MiB, not {row.memory:g}")
    return out


def table(args, results: dict[str, dict]) -> str:
    lines = [f"{'Tiny models' if args.smoke else 'Random models of full size, fp16'}; {cpu_name()}, {os.cpu_count()} threads; medians of up to {args.rounds} alternating rounds, peaks of all; "
             f"{time.strftime('%Y-%m-%d')}.", "",
             "| row | copy, s | lycoris, s | LyCORIS, s | sd-scripts, s | lycoris / copy | LyCORIS / lycoris | sd-scripts / lycoris | lycoris, MiB | LyCORIS, MiB | sd-scripts, MiB | rounds | load before |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|---|"]
    notes, missed = [], []
    for row in ROWS:
        if row.name not in results:
            continue
        result = results[row.name]
        seconds = {side: median(result.get(side, []), "seconds") for side in SIDES}
        loads = [r["load"] for runs in result.values() for r in runs if "load" in r]
        cells = [*(show(seconds[side]) for side in SIDES), show(ratio(seconds[OURS], seconds[COPY])), show(ratio(seconds[LYCORIS], seconds[OURS]), ".1f"),
                 show(ratio(seconds[KOHYA], seconds[OURS]), ".1f"), *(show(peak(result.get(side, [])), ".0f") for side in SIDES[1:]),
                 str(max(len([r for r in runs if "error" not in r]) for runs in result.values())), f"{min(loads):.1f}–{max(loads):.1f}" if loads else "–"]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
        notes.append(f"- {row.name}: {row.note}")
        for side, runs in result.items():
            notes += [f"- {row.name}, {side}: {r['error']}" for r in runs if "error" in r]
            if row.tool == "extract" and (counts := {r["modules"] for r in runs if "modules" in r}):
                notes.append(f"- {row.name}, {side}: {'/'.join(map(str, sorted(counts)))} layers in the file")
            spread = [r["seconds"] for r in runs if "error" not in r]
            if len(spread) > 1:
                notes.append(f"- {row.name}, {side}: {min(spread):.2f} to {max(spread):.2f} s")
            busy = max((r.get("others", 0) for r in runs), default=0)
            if busy > 0.15 and not args.smoke:
                notes.append(f"- {row.name}, {side}: other processes kept up to {busy:.1f} processors busy meanwhile")
        missed += [] if args.smoke else [f"- {row.name}: {m}" for m in goals(row, result)]
    lines += ["", "Notes:", "", *notes]
    if missed:
        lines += ["", "Goals missed:", "", *missed]
    return "\n".join(lines) + "\n"


# The run.

def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", default=",".join(r.name for r in ROWS), help="comma between them; default: %(default)s")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--ours-only", action="store_true", help="the copy and lycoris")
    p.add_argument("--continue", dest="go_on", action="store_true", help="keep what an earlier run measured and make up its missing rounds")
    p.add_argument("--smoke", action="store_true")
    p.add_argument("--model", type=pathlib.Path, help="the SD1.5 file; default: sd15-random.safetensors in --out")
    p.add_argument("--lycoris", type=pathlib.Path, default=REPO / "bin/lycoris")
    p.add_argument("--sd-scripts", type=pathlib.Path, help="a checkout of kohya-ss/sd-scripts")
    p.add_argument("--lycoris-tools", type=pathlib.Path, help="a checkout of KohakuBlueleaf/LyCORIS")
    p.add_argument("--peer-python", type=pathlib.Path)
    p.add_argument("--memory", type=float, default=18, help="GiB for one process")
    p.add_argument("--limit", type=int, default=900, help="seconds for one process")
    p.add_argument("--out", type=pathlib.Path, default=HERE / "out")
    args = p.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    peers = args.out / "peers"
    args.sd_scripts = (args.sd_scripts or peers / "sd-scripts").resolve()
    args.lycoris_tools = (args.lycoris_tools or peers / "LyCORIS").resolve()
    args.peer_python = (args.peer_python or peers / "venv/bin/python").absolute()  # not resolved: the link is what makes it a venv
    args.lycoris, args.model = args.lycoris.resolve(), (args.model or args.out / "sd15-random.safetensors").resolve()
    if args.smoke:
        args.rounds = 1
    known = {r.name: r for r in ROWS}
    if unknown := [r for r in args.rows.split(",") if r not in known]:
        p.error(f"no row {', '.join(unknown)}; there are: {', '.join(known)}")
    args.rows = [known[name] for name in args.rows.split(",")]
    if args.smoke:
        args.rows = [r for r in args.rows if not r.model.endswith("-xl")]
    if not args.lycoris.exists():
        p.error(f"{args.lycoris} doesn't exist; make build makes it")
    args.commands = {line.split()[0] for line in subprocess.run([str(args.lycoris), "--help"], capture_output=True, text=True).stdout.splitlines() if line.startswith("  ") and line.split()}
    args.stem = "tools" + ("-smoke" if args.smoke else "") + ("-ours" if args.ours_only else "")
    return args


def earlier(args) -> dict:
    """The results to go on from; otherwise they are put aside."""
    path = args.out / f"{args.stem}.json"
    if not path.exists():
        return {}
    if args.go_on:
        return json.loads(path.read_text())
    for end in ("json", "md"):
        if (old := args.out / f"{args.stem}.{end}").exists():
            old.replace(args.out / f"{args.stem}-before.{end}")
    return {}


def measure(args, row: Row, result: dict, start: float) -> None:
    """The rounds of a row that are missing."""
    for side, why in sides_of(args, row).items():
        runs = result.setdefault(side, [])
        if why and not runs:
            runs.append(dict(error=why))
    done = lambda side: len(result[side]) >= args.rounds or any("error" in r for r in result[side])
    for round_ in range(args.rounds):
        for side in sides_of(args, row):
            if done(side) or len(result[side]) > round_:
                continue
            run = run_side(args, row, side, round_)
            result[side].append(run)
            print(f"  {row.name} {round_ + 1}, {side}: {run['seconds']:.2f} s, {run['peak'] / 2**20:.0f} MiB, load {run['load']:.1f}, others {run['others']:.1f}"
                  + (f"; {run['error']}" if "error" in run else "") + f" ({time.perf_counter() - start:.0f} s so far)", file=sys.stderr, flush=True)


def main() -> None:
    args = parse()
    results, start = earlier(args), time.perf_counter()
    for row in args.rows:
        needed = sum(path.stat().st_size for path in inputs(args, row)[:1])
        if shutil.disk_usage(args.out).free < 2 * needed:
            sys.exit(f"{args.out}: {2 * needed / 1e9:.1f} GB are needed for what {row.name} writes")
    try:
        for row in args.rows:
            if busy := busy_processes():
                print(f"  WARNING: the machine isn't idle: {', '.join(busy[:5])}", file=sys.stderr, flush=True)
            result = results.setdefault(row.name, {})
            if args.go_on:  # failures again
                for side in list(result):
                    result[side] = [r for r in result[side] if "error" not in r]
            measure(args, row, result, start)
            (args.out / f"{args.stem}.json").write_text(json.dumps(results, indent=1) + "\n")
            (args.out / f"{args.stem}.md").write_text(table(args, results))
    except KeyboardInterrupt:
        (args.out / f"{args.stem}.json").write_text(json.dumps(results, indent=1) + "\n")
        sys.exit("stopped; --continue goes on")
    print(table(args, results))
    failed = [f"{name}: {side}" for name, result in results.items() for side, runs in result.items() if any("error" in r and not r["error"].startswith(("not run", "this lycoris")) for r in runs)]
    if args.smoke and failed:
        sys.exit("failed: " + ", ".join(failed))


if __name__ == "__main__":
    main()
