"""`rewardbench` on a machine without a GPU: its pipeline of reward models puts inputs on "cuda" whatever is there.

Nothing else of the package is touched. Arguments are those of its command.
"""

import sys
from typing import Any

import torch
from rewardbench.rewardbench import main  # type: ignore[import-not-found]
from transformers import BatchEncoding

_to = BatchEncoding.to


def _to_what_is_there(self: Any, device: Any, **options: Any) -> Any:
    return _to(self, "cpu" if device == "cuda" else device, **options)


if __name__ == "__main__":
    if not torch.cuda.is_available():
        BatchEncoding.to = _to_what_is_there
    sys.exit(main())
