# A worker. DEVICE=cpu installs the CPU build of torch, DEVICE=cuda the one with CUDA.
ARG PYTHON_VERSION=3.11
FROM python:${PYTHON_VERSION}-slim AS build
ARG DEVICE=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# With pip, unlike the API's: it fetches base models that are published as packages.
RUN python -m venv /venv
# torch first, in a layer of its own: it is the bulk, and changes least. Then what others wrote, then ours.
COPY constraints.txt docker/prune.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ "$DEVICE" = cpu ]; then index="--extra-index-url https://download.pytorch.org/whl/cpu"; fi \
    && /venv/bin/pip install --retries 1 $index -c constraints.txt torch \
    && python prune.py /venv
COPY pyproject.toml docker/requirements.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py api worker > requirements.txt \
    && /venv/bin/pip install -c constraints.txt -r requirements.txt \
    && python prune.py /venv
COPY requirements-gguf.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    /venv/bin/pip install --no-deps --target /venv/gguf-converter -r requirements-gguf.txt

FROM build AS ours
COPY README.md alembic.ini ./
COPY api api
COPY worker worker
COPY cli cli
COPY client client
COPY core core
COPY migrations migrations
RUN --mount=type=cache,target=/root/.cache/pip \
    /venv/bin/pip install --no-deps --target /opt/preftune .

FROM python:${PYTHON_VERSION}-slim
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
