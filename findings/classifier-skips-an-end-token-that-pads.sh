#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0: a model `...ForSequenceClassification` of a decoder (here Llama) reads its score at the last token whose
# id is not `pad_token_id`, and never looks at `attention_mask` for it. Where the end token also pads (`tokenizer.pad_token =
# tokenizer.eos_token`, usual for Llama), an end token that the mask calls part of the text is skipped: the score is read at the token
# before it. So a finished answer and the same answer cut short score exactly alike, and a reward model gets another score for
# the same tokens and weights when only its pad token is set (None, for one row, reads the last token). No warning.
# Output: "pad 0 reads the end token; pad None reads the end token; pad 2 = end reads the token before; cut short the same".
# Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy
env/bin/python - <<'P'
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
    max_position_embeddings=32, num_labels=1, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
model = LlamaForSequenceClassification(config).eval()
ids = torch.tensor([[1, 17, 23, 42, 2]])  # 2 ends the text

def score(ids, pad):
    model.config.pad_token_id = pad
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.item()

with torch.no_grad():
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 0.5)
    at = model.score(model.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state)[0, :, 0].tolist()
    near = lambda left, right: abs(left - right) < 1e-4
    place = lambda value: "the end token" if near(value, at[-1]) else "the token before" if near(value, at[-2]) else "elsewhere"
    found = (
        f"pad 0 reads {place(score(ids, 0))}; pad None reads {place(score(ids, None))}; pad 2 = end reads {place(score(ids, 2))}; "
        f"cut short {'the same' if near(score(ids[:, :-1], 2), score(ids, 2)) else 'another'}"
    )
print(found)
raise SystemExit(near(at[-1], at[-2]) or found != (
    "pad 0 reads the end token; pad None reads the end token; pad 2 = end reads the token before; cut short the same"
))
P
