"""Kills a sweep at random moments, restarts it each time, and compares its end with that of one that nobody disturbed.

    python scripts/check_sweep_restart.py --kills 3 --json restart.json

The sweep: 12 runs on digits, 3 methods x 2 sparsities x 2 seeds, and the 2 dense runs that they share; one after
another, or with --jobs N in N processes, of which the one that started them is killed. Exits 1 if a summary or a weight
differs.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GRID = [
    "method=pdp,gmp,random",
    "sparsity=0.5,0.9",
    "seed=1,2",
    "dataset.max_examples=240",
    "batch_size=24",
    "epochs=3",
]
QUIET = ["logger=none", "device=cpu", "training.checkpoint_minutes=0.001"]
OF_THE_OCCASION = ("wall_seconds", "resumed_from", "places")
"""Keys of a summary that say how a run went, not what came out."""


def main() -> None:
    options = parsed()
    command = [sys.executable, "-m", "pruneexp.cli", "-m", *GRID, *QUIET]
    if options.jobs > 1:
        command += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={options.jobs}"]
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed, killed = Path(scratch) / "undisturbed", Path(scratch) / "killed"
        start = time.monotonic()
        finish(command, undisturbed)
        whole = time.monotonic() - start
        moments = random.Random(options.seed)
        kills = [kill_after(command, killed, moments.uniform(0.1, 0.6) * whole) for _ in range(options.kills)]
        finish(command, killed)
        wanted, found = results(undisturbed), results(killed)
    different = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    record = {"runs": len(wanted), "kills": kills, "different": different, "undisturbed_seconds": round(whole, 1)}
    print(json.dumps(record, indent=2))
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    raise SystemExit(1 if different else 0)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=3, help="how often (3)")
    parser.add_argument("--jobs", type=int, default=1, help="processes of the sweep (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--json", type=Path, help="file to write the result to as well")
    return parser.parse_args()


def finish(command: list[str], folder: Path) -> None:
    """Runs the sweep in a folder to its end."""
    folder.mkdir(exist_ok=True)
    subprocess.run(command, cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)


def kill_after(command: list[str], folder: Path, seconds: float) -> dict[str, float | int]:
    """Starts the sweep in a folder and kills it; what there was by then."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    finished = len(results(folder))
    return {"seconds": round(seconds, 1), "ended_by": process.wait(), "finished": finished, "begun": begun(folder)}


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def begun(folder: Path) -> int:
    """How many runs are unfinished with a checkpoint."""
    return len(list(folder.glob("outputs/*/*/checkpoint.pt")))


def results(folder: Path) -> dict[str, tuple[dict, str]]:
    """Run -> its summary without what is of the occasion, and the digest of its weights."""
    found = {}
    for path in folder.glob("outputs/*/*/summary.json"):
        summary = {key: value for key, value in json.loads(path.read_text()).items() if key not in OF_THE_OCCASION}
        found[path.parent.name] = (
            summary,
            hashlib.sha256((path.parent / "model.safetensors").read_bytes()).hexdigest(),
        )
    return found


if __name__ == "__main__":
    main()
