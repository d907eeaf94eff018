# The HTTP API and the migrations: no torch in here. The locked packages are those of Python 3.11.
ARG PYTHON=python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7
FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# What others wrote comes first, in a layer that our own changes leave as it is: an upgrade fetches only ours.
RUN python -m venv --without-pip /venv
COPY docker/requirements-api.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /venv/bin/python install --require-hashes --no-deps -r requirements-api.txt \
    && python -m pip --python /venv/bin/python check
COPY docker/prune.py ./
RUN python prune.py /venv

FROM build AS ours
COPY docker/requirements-build.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --require-hashes --no-deps -r requirements-build.txt
COPY pyproject.toml README.md alembic.ini ./
COPY api api
COPY worker worker
COPY cli cli
COPY client client
COPY core core
COPY migrations migrations
COPY examples examples
RUN python -m pip wheel --no-build-isolation --no-deps --no-index --wheel-dir /wheels ./client . \
    && python -m pip --python /venv/bin/python install --no-deps --no-index --target /opt/preftune /wheels/*.whl

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
EXPOSE 8000
CMD ["preftune", "api", "--host", "0.0.0.0", "--port", "8000"]
