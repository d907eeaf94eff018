#!/usr/bin/env bash
# transformers 4.57.6, torch 2.13.0: Gemma 2 runs by default with "sdpa" attention, which leaves out the soft cap of
# attention logits (`attn_logit_softcapping`, 50.0 in all published Gemma 2 models) without a warning: log-probabilities
# are another model's than with "eager". Here with a cap of 5 and random weights, so that it shows; transformers 5 has no sdpa for it.
# Output: "default sdpa; largest difference from eager 8.8 nats". Exits 1 when the two agree or the default is another.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==4.57.6 numpy
env/bin/python - <<'P'
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

torch.manual_seed(0)
config = Gemma2Config(
    vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16, attn_logit_softcapping=5.0,
    final_logit_softcapping=None, sliding_window=64, max_position_embeddings=512,
)
model = Gemma2ForCausalLM(config).eval()
default, found = model.config._attn_implementation, {}
with torch.no_grad():
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 0.3)
    ids = torch.randint(0, 320, (1, 48))
    for kind in ("eager", "sdpa"):
        model.set_attn_implementation(kind)
        found[kind] = model(input_ids=ids).logits.log_softmax(-1)
difference = (found["eager"] - found["sdpa"]).abs().max().item()
print(f"default {default}; largest difference from eager {difference:.1f} nats")
raise SystemExit(0 if default == "sdpa" and difference > 1 else 1)
P
