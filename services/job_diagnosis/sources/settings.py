"""``SourceSettings``: where logs may be fetched from, and ``make_sources`` of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.errors import ConfigError
from services.job_diagnosis.evidence import Source
from services.job_diagnosis.sources.kubernetes import USER_LABELS


class SourceSettings(BaseSettings):
    """Each field is also the variable PRESAGE_JOBS_<FIELD>; lists are JSON there.

    A source that is not set up is not offered.

    files_below: folders below which files are read
    elasticsearch_url: of one node or several, separated by commas
    elasticsearch_indices: patterns of the indices that may be read
    kubernetes: ``in-cluster``, or the path of a kubeconfig file
    kubernetes_namespaces: which may be read; empty: all that the service account may
    kubernetes_user_labels: labels or annotations of a pod that name the job's user
    source_largest_bytes: of a log; of a longer one what matters most is read
    """

    model_config = SettingsConfigDict(env_prefix="PRESAGE_JOBS_", frozen=True, extra="ignore")

    files_below: tuple[Path, ...] = ()
    elasticsearch_url: str | None = None
    elasticsearch_api_key: SecretStr | None = None
    elasticsearch_api_key_file: Path | None = None
    elasticsearch_ca_file: Path | None = None
    elasticsearch_indices: tuple[str, ...] = ("*",)
    kubernetes: str | None = None
    kubernetes_context: str | None = None
    kubernetes_namespaces: tuple[str, ...] = ()
    kubernetes_user_labels: tuple[str, ...] = USER_LABELS
    source_largest_bytes: int = Field(default=256 << 20, ge=1 << 16)
    source_request_seconds: float = Field(default=10.0, gt=0)
    source_deadline_seconds: float = Field(default=60.0, gt=0)


def make_sources(settings: SourceSettings) -> dict[str, Source[Any]]:
    """By the ``source`` of a reference: elasticsearch, kubernetes, file. Nobody is asked yet.

    Raises ConfigError: a source that is set up cannot be used so.
    """
    sources: dict[str, Source[Any]] = {}
    if settings.files_below:
        from services.job_diagnosis.sources.file import FileSource

        sources["file"] = FileSource(
            settings.files_below, largest_bytes=settings.source_largest_bytes
        )
    if settings.elasticsearch_url:
        sources["elasticsearch"] = _elasticsearch(settings, settings.elasticsearch_url)
    if settings.kubernetes:
        sources["kubernetes"] = _kubernetes(settings, settings.kubernetes)
    return sources


def _elasticsearch(settings: SourceSettings, url: str) -> Source[Any]:
    from elasticsearch import Elasticsearch

    from services.job_diagnosis.sources.elasticsearch import ElasticsearchSource

    key = settings.elasticsearch_api_key
    api_key = None if key is None else key.get_secret_value()
    if settings.elasticsearch_api_key_file is not None:
        try:
            api_key = settings.elasticsearch_api_key_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                "the API key cannot be read",
                where=str(settings.elasticsearch_api_key_file),
                got=getattr(error, "strerror", None) or "no text",
            ) from error
    more = {}
    if settings.elasticsearch_ca_file is not None:
        more["ca_certs"] = str(settings.elasticsearch_ca_file)
    try:
        client = Elasticsearch(
            [node.strip() for node in url.split(",")],
            api_key=api_key or None,
            # Repeated here, with back-off and within a deadline.
            max_retries=0,
            retry_on_timeout=False,
            request_timeout=settings.source_request_seconds,
            **more,  # type: ignore[arg-type]
        )
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(
            "Elasticsearch cannot be set up",
            where="PRESAGE_JOBS_ELASTICSEARCH_URL",
            expected="http(s)://host:port",
            got=type(error).__name__,
        ) from error
    return ElasticsearchSource(
        client,
        indices=settings.elasticsearch_indices,
        largest_bytes=min(settings.source_largest_bytes, 64 << 20),
        page_seconds=settings.source_request_seconds,
        deadline_seconds=settings.source_deadline_seconds,
    )


def _kubernetes(settings: SourceSettings, where: str) -> Source[Any]:
    from kubernetes import client
    from kubernetes import config as untyped_config
    from kubernetes.config.config_exception import ConfigException

    from services.job_diagnosis.sources.kubernetes import KubernetesSource

    config: Any = untyped_config
    configuration = client.Configuration()
    try:
        if where == "in-cluster":
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(
                where, context=settings.kubernetes_context, client_configuration=configuration
            )
    except (ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            "Kubernetes cannot be set up",
            where=f"PRESAGE_JOBS_KUBERNETES={where}",
            expected="in-cluster, or a kubeconfig file",
            got=str(error)[:200],
        ) from error
    # Repeated by the source, with back-off and within a deadline.
    configuration.retries = False
    return KubernetesSource(
        client.CoreV1Api(client.ApiClient(configuration)),
        namespaces=settings.kubernetes_namespaces,
        user_labels=settings.kubernetes_user_labels,
        largest_bytes=settings.source_largest_bytes,
        request_seconds=settings.source_request_seconds,
        deadline_seconds=settings.source_deadline_seconds,
    )
