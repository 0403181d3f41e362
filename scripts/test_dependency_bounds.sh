#!/usr/bin/env bash
# Tests both ends of the dependency bounds in pyproject.toml, each in a fresh environment that is removed at the end:
#
#   scripts/test_dependency_bounds.sh lower    the lowest versions that the bounds allow
#   scripts/test_dependency_bounds.sh upper    the newest ones that they allow
#
# Takes 6 GB of disk and, with the tests below, about ten minutes on two cores. TESTS replaces the tests; PYTHON the
# interpreter (3.11 for the lower end: older versions have no wheels for newer ones).
set -euo pipefail

end=${1:?lower or upper}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3.11}" -m venv "$work/venv"
constraints="$work/constraints.txt"
"$work/venv/bin/python" - "$root/pyproject.toml" "$end" > "$constraints" <<'PYTHON'
import re
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
for requirement in [*project["dependencies"], *project["optional-dependencies"]["onnx"]]:
    name, lowest = re.match(r"([\w-]+)>=([\w.]+)", requirement).groups()
    if sys.argv[2] == "lower":
        print(f"{name}=={lowest}.*" if lowest.count(".") < 2 else f"{name}=={lowest}")
PYTHON
cat "$constraints"
"$work/venv/bin/pip" install --quiet --constraint "$constraints" -e "$root[dev]"
"$work/venv/bin/pip" list --format=freeze | grep -iE '^(accelerate|datasets|hydra-core|matplotlib|numpy|omegaconf|pyyaml|rich|safetensors|scikit-learn|timm|torch|torch-pruning|torchvision|transformers|wandb)='
cd "$root"
OMP_NUM_THREADS=1 PYTHONPATH="$root" "$work/venv/bin/python" -m pytest ${TESTS:-tests}
