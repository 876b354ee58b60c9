# Why did this training job die, and who must know.
#   docker build -f deploy/docker/job-diagnosis.Dockerfile -t presage/job-diagnosis:VERSION .
# Pin the base by digest: --build-arg PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
# These alone: another file's change would install everything anew.
COPY requirements/clients.txt requirements/constraints.txt requirements/jobs.txt \
    requirements/notify.txt requirements/services-common.txt requirements/web.txt requirements/
# pip has done its work after this: what cannot be run cannot be misused.
RUN python -m venv /opt/presage \
    && /opt/presage/bin/python -m pip install --quiet -c requirements/constraints.txt \
        -r requirements/jobs.txt \
    && /opt/presage/bin/python -m pip uninstall --quiet --yes pip setuptools
WORKDIR /app
COPY contract/ contract/
COPY clients/ clients/
COPY services/ services/
COPY deploy/docker/healthcheck.py ./
# Compiled here: the file system of a running container cannot be written.
RUN /opt/presage/bin/python -m compileall -q /app \
    && install -d /state/presage

FROM ${PYTHON_IMAGE}
ARG PRESAGE_VERSION=0.0.0
ARG PRESAGE_REVISION=unknown
LABEL org.opencontainers.image.title="presage-job-diagnosis" \
      org.opencontainers.image.description="Diagnoses failed training jobs, keeps and tells the results" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${PRESAGE_VERSION}" \
      org.opencontainers.image.revision="${PRESAGE_REVISION}"
ENV PATH=/opt/presage/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PRESAGE_HOST=0.0.0.0 \
    PRESAGE_JOBS_SPOOL=/var/lib/presage/spool \
    PRESAGE_HEALTH_URL=http://127.0.0.1:8004/readyz
COPY --from=build /opt/presage /opt/presage
COPY --from=build /app /app
COPY --from=build --chown=10001:10001 /state/ /var/lib/
WORKDIR /app
USER 10001:10001
EXPOSE 8004
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/app/healthcheck.py"]
ENTRYPOINT ["python", "-m", "services", "job_diagnosis"]
CMD ["serve", "--port", "8004"]
