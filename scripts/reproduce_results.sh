#!/usr/bin/env bash
# The runs behind docs/results.md.
#   reproduce_results.sh <cifar10_resnet20.safetensors> <folder with cifar-10-batches-bin> <BERT folder> <MRPC folder>
set -euo pipefail
checkpoint=$1 cifar=$2 bert=$3 mrpc=$4
short=(experiment=cifar10_resnet20_short model.checkpoint="$checkpoint" dataset.root="$cifar" seed=1,2,3)
prune-run -m "${short[@]}" method=pdp_paper,gmp sparsity=0.8,0.9,0.95 schedule.end=0.6
prune-run -m "${short[@]}" method=magnitude sparsity=0.8,0.9,0.95
prune-run -m "${short[@]}" method=pdp sparsity=0.9,0.95,0.98
prune-run -m "${short[@]}" method=pdp,gmp sparsity=0.95,0.98 epochs=20
prune-run -m "${short[@]}" method=str epochs=20 method.s_init=-2 method.weight_decay=0.073,0.112
prune-run -m "${short[@]}" method=gmp sparsity=0.9,0.95,0.98 schedule.end=0.2
prune-run -m "${short[@]}" method=str method.s_init=-2 method.weight_decay=0.086,0.137,0.203
fast=("${short[@]}" optimizer.learning_rate=0.1)
prune-run -m "${fast[@]}" method=pdp sparsity=0.98 schedule.end=0.3 method.harden_at=0.35 method.tau=0.5 method.tau_end=0.2
prune-run -m "${fast[@]}" method=gmp sparsity=0.95,0.98
prune-run -m "${fast[@]}" method=magnitude sparsity=0.98
prune-run -m "${fast[@]}" method=str method.s_init=-2 method.learning_rate=0.01 method.weight_decay=0.137,0.203
prune-run -m "${short[@]}" method=nm pattern.n=1,2 pattern.m=4 schedule=constant method.tau=0.02 method.tau_end=null \
    method.harden_at=1
prune-run -m "${short[@]}" method=sr_ste pattern.n=1,2 pattern.m=4
prune-run -m "${short[@]}" method=channel sparsity=0.3,0.5,0.7 schedule.end=0.2
prune-run -m "${short[@]}" method=magnitude pattern=channel sparsity=0.3,0.5,0.7
prune-run -m "${short[@]}" method=gmp pattern=channel sparsity=0.7 schedule.end=0.2
prune-run -m experiment=mrpc_small_bert model.name_or_path="$bert" dataset.path="$mrpc" \
    method=pdp_paper sparsity=0.5,0.8,0.9 schedule.end=0.6
