"""``KubernetesSource``: the log of a pod's failed container, and how the cluster saw it end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from contract.errors import (
    InputError,
    PresageError,
    ServerAnswerError,
    ServerUnavailableError,
)
from services.job_diagnosis.evidence import JobEvidence, KubernetesReference
from services.job_diagnosis.sources.kept_log import KeptLog
from services.job_diagnosis.sources.pod import (
    container_names,
    container_status,
    event_lines,
    failed_container,
    is_previous,
    status_lines,
    user_of,
)
from services.job_diagnosis.sources.retrying import Deadline

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_PIECE_BYTES = 1 << 16
_MOST_EVENTS = 500
_BUSY = {429, 500, 502, 503, 504}
USER_LABELS = ("user", "owner", "app.kubernetes.io/created-by")


class KubernetesSource:
    """By the official client.

    api: a ``kubernetes.client.CoreV1Api`` whose client does not retry by itself
    namespaces: which may be read; empty: all that the service account may
    user_labels: labels or annotations that name the job's user, the first one there is
    largest_bytes: of a log; of a longer one its end is read
    """

    def __init__(
        self,
        api: Any,
        *,
        namespaces: Sequence[str] = (),
        user_labels: Sequence[str] = USER_LABELS,
        largest_bytes: int = 256 << 20,
        request_seconds: float = 10.0,
        deadline_seconds: float = 60.0,
        make_deadline: Callable[[str, float], Deadline] = Deadline,
    ) -> None:
        self._api = api
        self._namespaces = frozenset(namespaces)
        self._user_labels = tuple(user_labels)
        self._largest_bytes = largest_bytes
        self._request_seconds = request_seconds
        self._deadline_seconds = deadline_seconds
        self._make_deadline = make_deadline

    def fetch(self, reference: KubernetesReference, /) -> JobEvidence:
        """Raises InputError (no such pod or container), ServerError."""
        self._check(reference)
        where = f"pod {reference.namespace}/{reference.pod}"
        deadline = self._make_deadline("Kubernetes", self._deadline_seconds)
        pod = self._json(where, deadline, self._api.read_namespaced_pod, reference)
        container = reference.container or failed_container(pod)
        if container is None or container not in container_names(pod):
            raise InputError(
                "no such container",
                where=where,
                expected=" or ".join(container_names(pod)) or "a container",
                got=container,
            )
        extra = [*status_lines(pod), *self._events(where, deadline, reference, pod)]
        log = self._log(where, deadline, reference, container, pod)
        return JobEvidence(
            log=log,
            extra=tuple(extra),
            node=(pod.get("spec") or {}).get("nodeName"),
            user=user_of(pod, self._user_labels),
        )

    def _check(self, reference: KubernetesReference) -> None:
        names = [reference.namespace, reference.pod, reference.container or "x"]
        for name in names:
            if not _NAME.fullmatch(name):
                raise InputError(
                    "not a name of Kubernetes",
                    where="reference",
                    expected="small letters, digits, - and .",
                    got=repr(name[:100]),
                )
        if self._namespaces and reference.namespace not in self._namespaces:
            raise InputError(
                "this namespace is not for reading",
                where=f"namespace {reference.namespace}",
                expected=" or ".join(sorted(self._namespaces)),
            )

    def _events(
        self,
        where: str,
        deadline: Deadline,
        reference: KubernetesReference,
        pod: Mapping[str, Any],
    ) -> list[str]:
        selector = f"involvedObject.kind=Pod,involvedObject.name={reference.pod}"
        if uid := (pod.get("metadata") or {}).get("uid"):
            # A pod of the same name that was there before is another one.
            selector += f",involvedObject.uid={uid}"
        try:
            answer = self._json(
                where,
                deadline,
                lambda _, namespace, **options: self._api.list_namespaced_event(
                    namespace, field_selector=selector, limit=_MOST_EVENTS, **options
                ),
                reference,
            )
        except ServerAnswerError:
            # Many service accounts may read pods and logs, and no events.
            return []
        return event_lines(answer.get("items") or [])

    def _json(
        self,
        where: str,
        deadline: Deadline,
        call: Callable[..., Any],
        reference: KubernetesReference,
    ) -> dict[str, Any]:
        import json

        def ask(left: float) -> dict[str, Any]:
            answer = call(
                reference.pod,
                reference.namespace,
                # The raw answer: the client's models refuse what a newer server says.
                _preload_content=False,
                _request_timeout=min(self._request_seconds, left),
            )
            try:
                found = json.loads(answer.data)
            except ValueError as error:
                raise ServerAnswerError(
                    "not an answer of Kubernetes", where=where, got=str(error)
                ) from error
            if not isinstance(found, dict):
                raise ServerAnswerError("not an answer of Kubernetes", where=where)
            return found

        return deadline.retry(lambda left: _translated(where, ask, left))

    def _log(
        self,
        where: str,
        deadline: Deadline,
        reference: KubernetesReference,
        container: str,
        pod: Mapping[str, Any],
    ) -> Iterator[bytes]:
        """Of the last run that ended; empty where there never was one."""
        status = container_status(pod, container)
        choices = [True, False] if is_previous(status) else [False]
        for previous in choices:

            def ask(left: float, previous: bool = previous) -> Iterator[bytes]:
                return self._stream(reference, container, previous, left, deadline)

            try:
                return deadline.retry(lambda left, ask=ask: _translated(where, ask, left))  # type: ignore[misc]
            except _NoLogError:
                continue
        return iter(())

    def _stream(
        self,
        reference: KubernetesReference,
        container: str,
        previous: bool,
        left: float,
        deadline: Deadline,
    ) -> Iterator[bytes]:
        """The whole answer, kept: one that breaks off is asked for again, not half believed."""
        answer = self._api.read_namespaced_pod_log(
            reference.pod,
            reference.namespace,
            container=container,
            previous=previous,
            _preload_content=False,
            _request_timeout=min(self._request_seconds, left),
        )
        kept = KeptLog(self._largest_bytes)
        try:
            for piece in answer.stream(_PIECE_BYTES):
                kept.write(piece)
                deadline.left()
        except BaseException:
            kept.close()
            raise
        finally:
            answer.release_conn()
        return kept.pieces()


class _NoLogError(Exception):
    """The container has no such run."""


def _translated(where: str, ask: Callable[[float], Any], left: float) -> Any:
    """The client's errors as ours."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return ask(left)
    except ApiException as error:
        raise _api_error(where, error) from error
    except (HTTPError, OSError) as error:
        raise ServerUnavailableError(
            "Kubernetes cannot be reached", where=where, got=type(error).__name__
        ) from error


def _api_error(where: str, error: Any) -> PresageError | _NoLogError:
    import json

    status = int(error.status or 0)
    body = error.body
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    try:
        message = str(json.loads(body or "")["message"])[:300]
    except (ValueError, KeyError, TypeError):
        message = str(error.reason or "")[:300]
    if status == 404:
        return InputError(
            "there is no such pod, or it is gone",
            where=where,
            got=message or None,
            next_command="its log may be in Elasticsearch still; or send the log itself",
        )
    if status == 400 and ("terminated container" in message or "waiting to start" in message):
        return _NoLogError(message)
    if status in _BUSY:
        return ServerUnavailableError("Kubernetes is busy", where=where, got=str(status))
    if status in (401, 403):
        return ServerAnswerError(
            "Kubernetes refuses",
            where=where,
            expected="a service account that may get pods, pods/log and list events",
            got=f"{status}: {message}",
        )
    return ServerAnswerError("Kubernetes refuses", where=where, got=f"{status}: {message}")
