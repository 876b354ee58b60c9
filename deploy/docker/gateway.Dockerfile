# The three APIs, one target each: metric-forecast, log-anomaly, train-failure-rca.
#   docker build -f deploy/docker/gateway.Dockerfile --target log-anomaly -t presage/log-anomaly:VERSION .
# Pin the base by digest: --build-arg PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
# These alone: another file's change would install everything anew.
COPY requirements/clients.txt requirements/constraints.txt requirements/gateway.txt \
    requirements/notify.txt requirements/services-common.txt requirements/web.txt requirements/
# pip has done its work after this: what cannot be run cannot be misused.
RUN python -m venv /opt/presage \
    && /opt/presage/bin/python -m pip install --quiet -c requirements/constraints.txt \
        -r requirements/gateway.txt \
    && /opt/presage/bin/python -m pip uninstall --quiet --yes pip setuptools
WORKDIR /app
COPY contract/ contract/
COPY clients/ clients/
COPY services/ services/
COPY deploy/docker/healthcheck.py ./
# Compiled here: the file system of a running container cannot be written.
RUN /opt/presage/bin/python -m compileall -q /app \
    && install -d /state/presage

FROM ${PYTHON_IMAGE} AS gateway
ARG PRESAGE_VERSION=0.0.0
ARG PRESAGE_REVISION=unknown
LABEL org.opencontainers.image.title="presage-gateway" \
      org.opencontainers.image.description="HTTP API of one of Presage's models, with its page" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${PRESAGE_VERSION}" \
      org.opencontainers.image.revision="${PRESAGE_REVISION}"
ENV PATH=/opt/presage/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PRESAGE_HOST=0.0.0.0 \
    PRESAGE_REPOSITORY=/models
COPY --from=build /opt/presage /opt/presage
COPY --from=build /app /app
COPY --from=build --chown=10001:10001 /state/ /var/lib/
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
# Ready: the model behind the API answers. A container with TLS sets PRESAGE_HEALTH_URL to https://….
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/app/healthcheck.py"]
ENTRYPOINT ["python", "-m", "services", "gateway"]

FROM gateway AS metric-forecast
LABEL org.opencontainers.image.title="presage-metric-forecast"
ENV PRESAGE_HEALTH_URL=http://127.0.0.1:8001/readyz
EXPOSE 8001
CMD ["metric_forecast", "--port", "8001"]

FROM gateway AS log-anomaly
LABEL org.opencontainers.image.title="presage-log-anomaly"
ENV PRESAGE_HEALTH_URL=http://127.0.0.1:8002/readyz
EXPOSE 8002
CMD ["log_anomaly", "--port", "8002"]

FROM gateway AS train-failure-rca
LABEL org.opencontainers.image.title="presage-train-failure-rca"
ENV PRESAGE_HEALTH_URL=http://127.0.0.1:8003/readyz
EXPOSE 8003
CMD ["train_failure_rca", "--port", "8003"]
