"""A tiny job of 2,000 epochs, watched from outside: memory, files and processor time should not grow with its length.

    python scripts/long_run.py                     2,000 epochs, W&B offline; some ten minutes on one core
    python scripts/long_run.py --epochs 200 --json FILE

Prints, for tenths of the run: resident memory at its end, bytes of metrics.jsonl and of the W&B file per epoch, and
processor seconds per epoch. Processor time and not the clock, so that other work on the machine changes nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

JOB = ["dataset.max_examples=40", "batch_size=40", "dataset.validation_fraction=0.03", "dense=none", "device=cpu"]
PARTS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples = watch(Path(folder), [*JOB, f"epochs={options.epochs}", "logger.mode=offline"])
    parts = tenths(samples, options.epochs)
    print(f"{'epochs':>12} {'memory, MB':>11} {'metrics, B':>11} {'W&B, B':>8} {'CPU, ms per epoch':>18}")
    for part in parts:
        print(
            f"{part['from']:>5} -{part['to']:>5} {part['memory'] / 1e6:>11.1f} {part['metrics']:>11.0f} "
            f"{part['wandb']:>8.0f} {1000 * part['seconds']:>18.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps(parts, indent=1) + "\n")


def watch(folder: Path, options: list[str]) -> list[dict]:
    """Runs the job in a folder; a sample about every half second."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "output").open("w") as output:
        command = [sys.executable, "-m", "pruneexp.cli", *options]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        samples = []
        while process.poll() is None:
            time.sleep(0.5)
            if (sample := look(process.pid, folder)) is not None:
                samples.append(sample)
    if process.returncode:
        sys.exit((folder / "output").read_text()[-2000:])
    return samples


def look(pid: int, folder: Path) -> dict | None:
    """Memory, processor time and files of the job now; None before its first epoch and after its end."""
    metrics = next(iter(folder.glob("outputs/default/*/metrics.jsonl")), None)
    if metrics is None or not metrics.stat().st_size:
        return None
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - 4000))
            epoch = json.loads(file.read().splitlines()[-1])["epoch"]
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        memory = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):  # a line half written, or the process just ended
        return None
    wandb = sum(path.stat().st_size for path in metrics.parent.glob("wandb/offline-run-*/*.wandb"))
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    sizes = {"metrics": metrics.stat().st_size, "wandb": wandb}
    return {"epoch": epoch, "memory": memory, "seconds": seconds, **sizes}


def tenths(samples: list[dict], epochs: int) -> list[dict]:
    """What each tenth of the run took, per epoch; memory at its end."""
    parts = []
    for part in range(PARTS):
        first, last = part * epochs / PARTS, (part + 1) * epochs / PARTS
        inside = [s for s in samples if first <= s["epoch"] <= last and s["epoch"] < epochs]  # the end is no epoch
        if len(inside) < 2 or inside[-1]["epoch"] == inside[0]["epoch"]:
            continue
        first, last = inside[0], inside[-1]
        done = last["epoch"] - first["epoch"]
        rates = {key: (last[key] - first[key]) / done for key in ("metrics", "wandb", "seconds")}
        parts.append({"from": round(first["epoch"]), "to": round(last["epoch"]), "memory": last["memory"], **rates})
    return parts


if __name__ == "__main__":
    main()
