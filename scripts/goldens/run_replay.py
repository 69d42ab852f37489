"""Runs committed or new replay cases through bin/lycoris and compares each with the peer.

    python scripts/goldens/run_replay.py [--lycoris bin/lycoris] [CASE_FOLDER...] [-- more flags of lycoris train]

Without folders: every case of testdata/golden/replay. Exit status 1 if a run fails or differs.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from common import GOLDEN, REPO


def command(lycoris: pathlib.Path, case: pathlib.Path, runs: str) -> list[str]:
    spec = json.loads((case / "case.json").read_text())
    return [str(lycoris), "train", "--no-config", "--progress", "none", "--model", str(GOLDEN / spec["model"]),
            "--network-weights", str(case / "adapter.safetensors"), "--replay", str(case.parent / spec.get("replay", case.name) / "replay.safetensors"),
            "--out", runs, "--name", case.name, *spec["flags"]]


def main() -> None:
    argv, more = sys.argv[1:], []
    if "--" in argv:
        i = argv.index("--")
        argv, more = argv[:i], argv[i + 1:]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lycoris", type=pathlib.Path, default=REPO / "bin/lycoris")
    p.add_argument("cases", nargs="*", type=pathlib.Path)
    args = p.parse_args(argv)
    failed = []
    for case in args.cases or sorted((GOLDEN / "replay").iterdir()):
        print(f"== {case.name}", flush=True)
        with tempfile.TemporaryDirectory() as runs:
            status = subprocess.run(command(args.lycoris, case, runs) + more).returncode
            if status == 0:
                folder = pathlib.Path(runs) / case.name
                status = subprocess.run([sys.executable, str(pathlib.Path(__file__).parent / "compare.py"), "--case", str(case),
                                         "--adapter", str(folder / f"{case.name}.safetensors"), "--metrics", str(folder / "metrics.jsonl")]).returncode
        if status:
            failed.append(case.name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
