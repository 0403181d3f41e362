#!/usr/bin/env bash
# The runs behind docs/results.md.
#   reproduce_results.sh <cifar10_resnet20.safetensors> <folder with cifar-10-batches-bin> <BERT folder> <MRPC folder>
set -euo pipefail
checkpoint=$1 cifar=$2 bert=$3 mrpc=$4
prune-run -m experiment=cifar10_resnet20_short model.checkpoint="$checkpoint" dataset.root="$cifar" \
    method=pdp,gmp,magnitude sparsity=0.8,0.9,0.95 seed=1,2,3
prune-run -m experiment=mrpc_small_bert model.name_or_path="$bert" dataset.path="$mrpc" \
    method=pdp,gmp sparsity=0.5,0.8,0.9
