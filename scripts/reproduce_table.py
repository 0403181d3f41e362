"""Runs a table of configs/table and makes its report: python scripts/reproduce_table.py pdp_cifar10 size=smoke seed=1

What follows the name goes to `prune-run -m table=<name>`. Finished runs are skipped; the report is made of what is
there, also where some failed. Exits as prune-run does, or else as prune-report.
"""

import json
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    name, *overrides = sys.argv[1:]
    start = time.time()
    code = subprocess.run(["prune-run", "-m", f"table={name}", *overrides], check=False).returncode
    written = dict(word.split("=", 1) for word in overrides if "=" in word).get("output_dir", "outputs")
    files = [path for path in Path(written).rglob("*.sweep.json") if path.stat().st_mtime >= start]
    own = [path for path in files if json.loads(path.read_text())["table"] == name]
    if own:
        newest = max(own, key=lambda path: path.stat().st_mtime)
        code = code or subprocess.run(["prune-report", str(newest)], check=False).returncode
    raise SystemExit(code)


if __name__ == "__main__":
    main()
