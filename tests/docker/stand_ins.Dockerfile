# Stand-ins for the two public images of docker/compose.yaml, for tests where no registry can be reached:
# Debian's PostgreSQL, and moto's server as the S3-compatible store. They listen on loopback only.
ARG BASE=python:3.11-slim

FROM ${BASE} AS postgres
RUN apt-get update -qq \
    && apt-get install -qq --no-install-recommends postgresql >/dev/null \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ 2>/dev/null || true
RUN mkdir -p /var/lib/postgresql/data && chown postgres /var/lib/postgresql/data
USER postgres
ENV PGDATA=/var/lib/postgresql/data
CMD test -s "$PGDATA/PG_VERSION" \
    || { echo "$POSTGRES_PASSWORD" > /tmp/password \
         && initdb --username="$POSTGRES_USER" --auth=scram-sha-256 --pwfile=/tmp/password >/dev/null \
         && echo "CREATE DATABASE $POSTGRES_USER" | postgres --single -j postgres >/dev/null; } \
    && exec postgres -c listen_addresses=127.0.0.1 -c unix_socket_directories=/tmp

FROM ${BASE} AS store
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
RUN python -m venv /opt/venv
COPY requirements.lock /tmp/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --quiet --constraint /tmp/requirements.lock 'moto[server]'
USER 10001
ENTRYPOINT exec /opt/venv/bin/moto_server --host 127.0.0.1 --port "$PORT"
