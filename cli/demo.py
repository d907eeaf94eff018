"""`preftune demo`: the whole product once on this machine, with a small real model and example data."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from core.children.parent import die_with_parent
from preftune import Client, PreftuneError
from preftune.cli.commands.jobs import download_with_progress
from preftune.cli.console import fail, out
from preftune.cli.extras import from_extra
from preftune.cli.watch import EXIT_CODES, result_texts, watch_job
from preftune.cli.words import counted
from preftune.local_key import find_local_key

BASE_MODEL = "smollm2-135m-instruct"
EXAMPLES_DIR = Path(__file__).resolve().parent / "examples"
"""A link to `examples/` in a checkout; in a wheel its files."""
TRAINING_FILE = EXAMPLES_DIR / "house-style.jsonl"
HELD_OUT_FILE = EXAMPLES_DIR / "house-style-heldout.jsonl"
SYSTEM = {"role": "system", "content": "Answer in house style."}
SAMPLE_PROMPTS = (
    "How do I stop my glasses from fogging up in winter?",
    "What is the best way to store fresh basil?",
    "How can I fall asleep faster on a long flight?",
)
ANSWER_TOKENS = 40
MAX_COLUMNS = 100
START_SECONDS = 90
STOP_SECONDS = 20


def demo(
    data_dir: Annotated[Path, typer.Option(help="Where the demo keeps its service's data.")] = Path("data/demo"),
    models_dir: Annotated[Path, typer.Option(help="Where base models are kept.")] = Path("models"),
    url: Annotated[
        str | None, typer.Option(help="A running service with these base models; default: one is started.")
    ] = None,
) -> None:
    """Fetch a base model, start the service, tune the model on example pairs, and show what changed."""
    _heading("1  base model")
    error_type = from_extra("core.domain.errors", "DomainError")
    try:
        pulled = from_extra("cli.model_pull", "pull_with_progress")(BASE_MODEL, models_dir)
    except error_type as error:
        fail(error.detail)
    out.print(f"{pulled.name} from {pulled.source}", markup=False)
    _heading("2  service")
    try:
        service = running_service(data_dir, models_dir) if url is None else nullcontext(url)
        with service as at, _client(at, url, data_dir) as client:
            out.print(f"running at {at} (API docs: {at}/docs)")
            code = _run(client, data_dir, pulled.directory)
    except PreftuneError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("stopped; nothing is left running" if url is None else "no longer watched; the job continues", code=130)
    raise typer.Exit(code)


def _client(at: str, given: str | None, data_dir: Path) -> Client:
    """Return a client, with the key file of a running service if it has one."""
    if given is None:
        return Client(at, api_key=find_local_key(at, data_dir))
    keys = from_extra("core.settings", "load_settings")().bootstrap_keys
    return Client(at, api_key=keys[0] if keys else None)


def _run(client: Client, data_dir: Path, base_model_dir: Path) -> int:
    _heading("3  data")
    training = client.datasets.upload(TRAINING_FILE)
    held_out = client.datasets.upload(HELD_OUT_FILE)
    out.print(f"{counted(training['num_accepted'], 'pair')} to learn from, {held_out['num_accepted']} held out")
    _heading("4  job")
    job = client.jobs.submit(
        base_model=BASE_MODEL,
        dataset_id=training["id"],
        validation_dataset_id=held_out["id"],
        lora={},
        max_length=256,
        evaluate_every_steps=39,  # before and after: an evaluation takes as long as three steps
        score_training_pairs=False,
        name="house-style demo",
    )
    job = watch_job(client, job["id"], out)
    if job["status"] != "succeeded":
        reason = job["error"]["detail"] if job["error"] else "see the events above"
        out.print(Text(f"the job ended as {job['status']}: {reason}", "red"))
        return EXIT_CODES[job["status"]]
    _heading("5  tuned policy")
    folder = download_with_progress(client, job["id"], data_dir / "policy")
    out.print(f"{folder}: loads with AutoModelForCausalLM.from_pretrained", markup=False, soft_wrap=True)
    _show_answers(base_model_dir, folder)
    _show_figures(client, job)
    return 0


def _show_answers(before_dir: Path, after_dir: Path) -> None:
    """Show answers of the base model and the downloaded policy to the same prompts."""
    _heading("6  what changed")
    with out.status("asking both models …"):
        answer = from_extra("cli.answers", "answer")
        asked = [[SYSTEM, {"role": "user", "content": prompt}] for prompt in SAMPLE_PROMPTS]
        before, after = (answer(folder, asked, ANSWER_TOKENS) for folder in (before_dir, after_dir))
    for prompt, old, new in zip(SAMPLE_PROMPTS, before, after, strict=True):
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("before", "dim"), Text(old))
        table.add_row(Text("after", "bold green"), Text(new))
        out.print(Panel(table, title=Text(prompt), title_align="left"), width=_width())


def _show_figures(client: Client, job: dict[str, Any]) -> None:
    for text in result_texts(client.jobs.get(job["id"])):
        out.print(text)
    out.print("Accuracy and margin are 0 before DPO.")


@contextmanager
def running_service(data_dir: Path, models_dir: Path) -> Iterator[str]:
    """Run `preftune serve` as a child process, ready inside the context and ended after it."""
    port = _free_port()
    log_path = data_dir / "service.log"
    data_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "cli.main", "serve", "--port", str(port)]
    command += ["--data-dir", str(data_dir), "--models-dir", str(models_dir)]
    with log_path.open("ab") as log:
        # One that outlives whoever started it would keep the data directory.
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}", log_path)
        yield f"http://127.0.0.1:{port}"
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the service, which ends its children: gracefully at the first signal, at once at the second."""
    for _ in range(2):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return
    process.kill()
    process.wait()


def _last_error(log_path: Path) -> str:
    """Return what the service said last, if that was an error: `: ` and its text."""
    lines = log_path.read_text(errors="replace").splitlines()
    _, is_error, text = lines[-1].partition("error: ") if lines else ("", "", "")
    return f": {text}" if is_error else ""


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with Client(url) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                fail(f"the service ended at once{_last_error(log_path)}; its log is {log_path}")
            try:
                client.health()
                return
            except PreftuneError:
                time.sleep(0.2)
    fail(f"the service was not ready within {START_SECONDS} s; its log is {log_path}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _heading(text: str) -> None:
    out.print(Rule(Text(text, style="bold")), width=_width())


def _width() -> int:
    """Return the columns of headings and panels, which would fill a whole line of a file."""
    return min(out.width, MAX_COLUMNS)
