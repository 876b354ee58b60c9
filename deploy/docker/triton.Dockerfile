# NVIDIA's tritonserver with its native backends, and what the text fronts need beside numpy.
#   docker build -f deploy/docker/triton.Dockerfile -t presage/triton:VERSION .
# Pin the base by digest: --build-arg TRITON_IMAGE=nvcr.io/nvidia/tritonserver:24.10-py3@sha256:…
# Of Presage only the start is in it: each version folder of the repository carries its own front.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:24.10-py3

FROM ${TRITON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY requirements/container.txt ./
# Without dependencies: tokenizers would pull huggingface_hub, which only downloads.
RUN python3 -m pip install --quiet --no-deps --target /opt/front -r container.txt
WORKDIR /app
COPY contract/canary_inputs.py contract/errors.py contract/
COPY embedded_triton/canary.py embedded_triton/container.py embedded_triton/http_control.py \
    embedded_triton/probe.py embedded_triton/repository.py embedded_triton/

FROM ${TRITON_IMAGE}
ARG PRESAGE_VERSION=0.0.0
ARG PRESAGE_REVISION=unknown
LABEL org.opencontainers.image.title="presage-triton" \
      org.opencontainers.image.description="NVIDIA tritonserver serving Presage's model repository" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${PRESAGE_VERSION}" \
      org.opencontainers.image.revision="${PRESAGE_REVISION}"
# One thread each; instances and the batcher share out the cores (see config.pbtxt).
# A tokenizer is no secret.
# hadolint ignore=DL3064
ENV OMP_NUM_THREADS=1 \
    TOKENIZERS_PARALLELISM=false \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/front:/app
COPY --from=build /opt/front /opt/front
COPY --from=build /app /app
WORKDIR /app
USER 10001:10001
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
# One inference of every model: Triton's own readiness does not notice a model whose process is gone.
HEALTHCHECK --interval=30s --timeout=20s --start-period=120s --retries=3 \
    CMD ["python3", "-m", "embedded_triton.container", "health"]
# NVIDIA's entrypoint makes the driver's forward compatibility work; it ends in an exec.
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "python3", "-m", "embedded_triton.container"]
CMD ["serve", "--exit-timeout-secs=15", "--metrics-config=summary_latencies=true"]
