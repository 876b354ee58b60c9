# The real tritonserver on CPUs, without NVIDIA's image: what CI and laptops run.
#   docker build -f deploy/docker/triton-cpu.Dockerfile -t presage/triton-cpu:VERSION .
# Pin the base by digest: --build-arg PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY requirements/server.txt requirements/
# pip has done its work after this: what cannot be run cannot be misused.
# Only what server.txt pins: the constraints of Presage's own environment have another numpy.
RUN python -m venv /opt/presage \
    && /opt/presage/bin/python -m pip install --quiet \
        -r requirements/server.txt \
    && /opt/presage/bin/python -m pip uninstall --quiet --yes pip setuptools
WORKDIR /app
COPY contract/__init__.py contract/canary_inputs.py contract/errors.py \
    contract/process_state.py contract/
COPY embedded_triton/ embedded_triton/
# Compiled here: the file system of a running container cannot be written.
RUN /opt/presage/bin/python -m embedded_triton --venv /opt/presage backends --output /opt/backends \
    && /opt/presage/bin/python -m compileall -q /app /opt/backends

FROM ${PYTHON_IMAGE}
ARG PRESAGE_VERSION=0.0.0
ARG PRESAGE_REVISION=unknown
LABEL org.opencontainers.image.title="presage-triton-cpu" \
      org.opencontainers.image.description="tritonserver 2.51 with Presage's stand-ins for its native backends" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${PRESAGE_VERSION}" \
      org.opencontainers.image.revision="${PRESAGE_REVISION}"
ENV PATH=/opt/presage/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/presage /opt/presage
COPY --from=build /app /app
COPY --from=build /opt/backends /opt/backends
WORKDIR /app
USER 10001:10001
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
# One inference of every model: Triton's own readiness does not notice a model whose process is gone.
HEALTHCHECK --interval=30s --timeout=20s --start-period=120s --retries=3 \
    CMD ["python", "-m", "embedded_triton", "--run-folder", "/run/presage", "status"]
ENTRYPOINT ["python", "-m", "embedded_triton", "--venv", "/opt/presage", "--run-folder", "/run/presage"]
CMD ["up", "--repository", "/models", "--backends", "/opt/backends", "--log-to-stderr", \
    "--host", "0.0.0.0", "--http-port", "8000", "--grpc-port", "8001", "--metrics-port", "8002"]
