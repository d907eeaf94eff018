#!/usr/bin/env bash
# Memory of a bf16 training on the CPU grows with every new number of tokens, up to 0.7 GB, and one switch does not stop it.
#
# torch 2.13.0 (CPU, x86-64 with avx512_bf16), Python 3.11, 2026-11-30. One weight of 128 x 128 in bf16, multiplied with 1 to
# 1,024 rows; no result is kept. Resident memory grows by about 660 MiB (0.65 MiB a shape) and stays: oneDNN keeps the compiled
# product of each of the last 1,024 shapes. ONEDNN_PRIMITIVE_CACHE_CAPACITY=16, its documented switch, leaves about 410 MiB,
# because torch's bindings (ideep) keep 1,024 shapes of their own, told by LRU_CACHE_CAPACITY, which no page of torch names as
# one for memory; that one alone leaves about 630. Both together leave about 15. In fp32 nothing grows.
# Batches that are packed, or padded to their longest row, differ in length nearly every step: what looks like a leak, or like
# fragmentation of the heap, is this. On a CPU without bf16 instructions other kernels run, and nothing is claimed.
#
# Output seen (MiB grown):
#   float32 2 · bfloat16 664 · bfloat16, oneDNN 16: 413 · bfloat16, ideep 16: 631 · bfloat16, both 16: 16
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.3.5
cat > "$work/grown.py" <<'PY'
import sys, torch
torch.set_num_threads(1)
kind = getattr(torch, sys.argv[1])
weight, rows = torch.randn(128, 128, dtype=kind), torch.randn(1024, 128, dtype=kind)
def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4096 // 2**20
torch.nn.functional.linear(rows, weight)
before = resident()
for count in range(1, 1025):
    torch.nn.functional.linear(rows[:count], weight)
print(resident() - before)
PY
grown() { env "${@:2}" "$work/venv/bin/python" "$work/grown.py" "$1"; }
plain32=$(grown float32 X=1)
plain=$(grown bfloat16 X=1)
onednn=$(grown bfloat16 ONEDNN_PRIMITIVE_CACHE_CAPACITY=16)
ideep=$(grown bfloat16 LRU_CACHE_CAPACITY=16)
both=$(grown bfloat16 ONEDNN_PRIMITIVE_CACHE_CAPACITY=16 LRU_CACHE_CAPACITY=16)
echo "float32 $plain32, bfloat16 $plain, oneDNN 16: $onednn, ideep 16: $ideep, both 16: $both"
[ "$plain32" -lt 50 ] && [ "$plain" -gt 400 ] && [ "$onednn" -gt 200 ] && [ "$ideep" -gt 300 ] && [ "$both" -lt 60 ]
