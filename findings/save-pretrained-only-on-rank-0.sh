#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0: once a process group is open, `save_pretrained` writes nothing on ranks other than 0, without an error or a
# warning, and whatever `is_main_process` says (`True` is its default; the mixin adds "and rank is 0"). The folder is made, and
# stays empty. So what every host is to keep on a disk of its own, as the first rank of each node would write it, exists on node 0
# only, and shows when it is loaded, on another host. Accelerate's `save_on_each_node` sets `is_main_process`, which no longer does it.
# Output: "rank 0 writes config.json generation_config.json model.safetensors; rank 1 writes nothing, also with is_main_process=True". Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy
cat > rank.py <<'P'
import os, sys
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{os.getcwd()}/meeting", rank=rank, world_size=2)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4
)
model = LlamaForCausalLM(config)
model.save_pretrained(f"rank-{rank}", is_main_process=True)
dist.barrier()
dist.destroy_process_group()
os._exit(0)
P
env/bin/python rank.py 1 2> one.log & other=$!
env/bin/python rank.py 0 2> zero.log; wait $other
written() { if [ -z "$(ls -A "$1")" ]; then echo nothing; else ls "$1" | tr '\n' ' ' | sed 's/ $//'; fi; }
found="rank 0 writes $(written rank-0); rank 1 writes $(written rank-1), also with is_main_process=True"
echo "$found"
[ "$found" = "rank 0 writes config.json generation_config.json model.safetensors; rank 1 writes nothing, also with is_main_process=True" ]
