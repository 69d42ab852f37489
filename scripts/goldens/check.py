"""Makes every golden again in a temporary folder and compares it with what is committed.

    python scripts/goldens/check.py [--update]

Inputs, weights and integers must be equal bit by bit; results of float32 arithmetic within 2e-5 of the tensor's largest value (libraries
sum in another order on another processor); trained adapters within 1e-4 of it. --update copies the new files over instead.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

from common import GOLDEN, read, relative

HERE = pathlib.Path(__file__).parent
SCRIPTS = ("models.py", "tokens.py", "training.py", "lycoris_file.py", "lycoris_algos.py", "replay_cases.py", "peft_folders.py")
GIVEN = ("latents", "noise", "timesteps", "context", "input_ids", "image", "raw_latents", "g", "g_decoded")  # names of inputs


def numbers(value):
    """The numbers of a JSON value in order, and its text with them taken out."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [float(value)], "#"
    if isinstance(value, dict):
        parts = [(k, *numbers(v)) for k, v in value.items()]
        return [n for _, ns, _ in parts for n in ns], str([(k, t) for k, _, t in parts])
    if isinstance(value, list):
        parts = [numbers(v) for v in value]
        return [n for ns, _ in parts for n in ns], str([t for _, t in parts])
    return [], repr(value)


def differences(new: pathlib.Path, old: pathlib.Path) -> list[str]:
    if new.read_bytes() == old.read_bytes():
        return []
    if new.suffix == ".json":
        import json
        (a, ta), (b, tb) = numbers(json.loads(new.read_text())), numbers(json.loads(old.read_text()))
        if ta != tb or len(a) != len(b):
            return ["other content"]
        return [f"{x} instead of {y}" for x, y in zip(a, b) if abs(x - y) > 1e-5 * abs(y)][:3]
    if new.suffix != ".safetensors":
        return ["other content"]
    a, b = read(new), read(old)
    if a.keys() != b.keys():
        return ["other keys"]
    out = []
    bound = 1e-4 if new.name == "expected.safetensors" else 2e-5
    exact = new.parent.name in ("unet", "vae", "text_encoder") or new.name in ("adapter.safetensors", "replay.safetensors")
    for key, want in b.items():
        got = a[key]
        if got.shape != want.shape or got.dtype != want.dtype:
            out.append(f"{key}: other shape or type")
        elif exact or key in GIVEN or not want.is_floating_point():
            if not got.equal(want):
                out.append(f"{key}: not the same bits")
        elif relative(got, want) > bound:
            out.append(f"{key}: off by {relative(got, want):.1e} of the largest value")
    return out


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--update", action="store_true")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder) / "golden"
        for script in SCRIPTS:
            print("making", script, flush=True)
            run = subprocess.run([sys.executable, str(HERE / script), "--out", str(made)], capture_output=True, text=True)
            if run.returncode:
                sys.exit(run.stdout + run.stderr)
        names = {p.relative_to(made) for p in made.rglob("*") if p.is_file()}
        committed = {p.relative_to(GOLDEN) for p in GOLDEN.rglob("*") if p.is_file()} - {pathlib.Path("README.md")}
        if args.update:
            for name in names:
                (GOLDEN / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(made / name, GOLDEN / name)
            print(len(names), "files written; left alone:", sorted(map(str, committed - names)))
            return
        bad = 0
        for name in sorted(names | committed):
            if name not in names or name not in committed:
                problems = ["no longer made" if name not in names else "not committed"]
            else:
                problems = differences(made / name, GOLDEN / name)
            for problem in problems[:5]:
                print(f"{name}: {problem}")
            bad += bool(problems)
        same = sum((made / n).read_bytes() == (GOLDEN / n).read_bytes() for n in names & committed)
        print(f"{len(names)} files made, {same} equal bit by bit, {bad} differ")
        sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
