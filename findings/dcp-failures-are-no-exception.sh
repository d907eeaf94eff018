#!/usr/bin/env bash
# torch 2.13.0, torch.distributed.checkpoint: `except Exception` does not catch a failed `save` or `load`. The `CheckpointException` that they
# raise for a failed write or read (also in one process) derives from `BaseException`. "Log it and train on" around a save, or "begin anew" around
# a load, ends the program; the same code around `torch.save` and `torch.load` works. It has no cause (`__cause__`): what went
# wrong is in `failures`, one entry a rank. Here a limit of the size of a file stands for a full disk; the load is of what the failed save left.
# Output: "torch.save caught RuntimeError; torch.load caught FileNotFoundError; save passed on CheckpointException(RuntimeError);
# async_save passed on CheckpointException(RuntimeError); load passed on CheckpointException(AssertionError)". Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy
env/bin/python - <<'P'
import logging, resource, warnings
import torch
import torch.distributed.checkpoint as dcp

logging.disable()
warnings.simplefilter("ignore")
resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
state = {"weight": torch.zeros(10**6)}

def outcome(work):
    try:
        work()
    except Exception as error:
        return f"caught {type(error).__name__}"
    except BaseException as error:
        causes = {type(cause).__name__ for cause, _ in error.failures.values()} if error.__cause__ is None else {"with a cause"}
        return f"passed on {type(error).__name__}({', '.join(causes)})"
    return "worked"

found = "; ".join((
    f"torch.save {outcome(lambda: torch.save(state, 'one'))}",
    f"torch.load {outcome(lambda: torch.load('none'))}",
    f"save {outcome(lambda: dcp.save(state, checkpoint_id='many', no_dist=True))}",
    f"async_save {outcome(lambda: dcp.async_save(state, checkpoint_id='later', no_dist=True).result())}",
    f"load {outcome(lambda: dcp.load(state, checkpoint_id='many', no_dist=True))}",
))
print(found)
raise SystemExit(found != (
    "torch.save caught RuntimeError; torch.load caught FileNotFoundError; save passed on CheckpointException(RuntimeError); "
    "async_save passed on CheckpointException(RuntimeError); load passed on CheckpointException(AssertionError)"
))
P
