#!/usr/bin/env bash
# Everything that docs/performance.md leaves open for want of a GPU, in one command; needs an NVIDIA GPU and the development
# install. A figure that is there already is not measured again, so that the command may be repeated when its time ran out.
#
#   scripts/measure_on_gpu.sh FOLDER        one JSON file for each figure, and tests.log
set -euo pipefail

folder=$(realpath -m "${1:?a folder for the figures}")
cd "$(dirname "$0")/.."
if ! python -c "import sys, torch; sys.exit(not torch.cuda.is_available())" 2> /dev/null; then
    echo "measure_on_gpu: torch is not installed for this python, or sees no GPU" >&2
    exit 2
fi

mkdir -p "$folder"

measure() {
    local name=$1
    shift
    if [ -s "$folder/$name.json" ]; then
        echo "== $name: is there"
        return
    fi
    echo "== $name: benchmark_step.py $*"
    python scripts/benchmark_step.py "$@" --json "$folder/$name.json.tmp"
    mv "$folder/$name.json.tmp" "$folder/$name.json"
}

echo "== tests that need a GPU"
python -m pytest -q tests/faults/test_determinism.py tests/surgery/test_semi_structured.py tests/test_soft_mask.py 2>&1 |
    tee "$folder/tests.log"

for model in resnet18 bert-base; do
    measure "mask-work-$model" --mask-work "$model" --rounds 50
done
for compile in "" --compile; do
    measure "step-resnet50$compile" --step resnet50 --image-size 224 --batch-size 256 --bf16 --channels-last --rounds 20 $compile
    measure "step-bert-base$compile" --step bert-base --batch-size 32 --tokens 128 --bf16 --rounds 20 $compile
    measure "step-resnet18$compile" --step resnet18 --batch-size 128 --bf16 --channels-last --rounds 20 $compile
done
