"""Errors as answers: application/problem+json (RFC 9457), without traces, paths or addresses."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import orjson

from contract.errors import (
    ConfigError,
    DataFileError,
    InputError,
    OverloadedError,
    PresageError,
    RequestRefusedError,
    ServerUnavailableError,
)

CONTENT_TYPE = "application/problem+json"
_RETRY_SECONDS = 1
_LONGEST_DETAIL = 600
# A path, a URL, an address with a port: what tells a stranger about the inside.
_INSIDE = re.compile(
    r"[a-z][a-z0-9+.-]*://[^\s'\",;)]+"
    r"|(?<![\w.])~?/(?:[\w.@+-]+/)+[\w.@+-]*"
    r"|\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b|\bipv[46]:[^\s'\",;)]+",
    re.IGNORECASE,
)
_TITLES = {
    "internal": ("It broke inside", "内部错误"),
    "input": ("The input makes no sense", "输入无法处理"),
    "query": ("The query gives nothing to forecast", "查询没有可预测的数据"),
    "unknown_model": ("No such model", "没有这个模型"),
    "unavailable": ("The model server does not answer", "模型服务没有应答"),
    "overloaded": ("Too much at once", "请求过多"),
    "deadline": ("No answer in time", "超时未得到结果"),
    "answer": ("The model server answered nonsense", "模型服务的应答无法理解"),
    "server": ("The model server failed", "模型服务出错"),
    "no_token": ("Who are you?", "缺少访问令牌"),
    "bad_token": ("Unknown token", "访问令牌无效"),
    "forbidden": ("Not with this token", "该令牌无权访问"),
    "rate": ("Too fast", "请求过于频繁"),
    "in_flight": ("Too much at once", "并发请求过多"),
    "body_size": ("Too large", "请求体过大"),
    "batch_size": ("Too many at once", "批量过大"),
    "header_size": ("Headers too large", "请求头过大"),
    "slow_body": ("Too slow", "请求体传输过慢"),
    "content_type": ("Not this content type", "内容类型不支持"),
    "encoding": ("Not this encoding", "内容编码不支持"),
    "body": ("The body cannot be read", "请求体无法解析"),
    "not_found": ("Nothing here", "没有这个地址"),
    "method": ("Not this method", "不支持该方法"),
    "draining": ("Shutting down", "服务正在停止"),
}


def wants_chinese(accept_language: str) -> bool:
    """Whether Chinese comes before English in an Accept-Language header."""
    best: dict[str, float] = {}
    for rank, part in enumerate(accept_language.lower().split(",")[:20]):
        tag, _, parameters = part.strip().partition(";")
        quality = 1.0
        if parameters.strip().startswith("q="):
            try:
                quality = float(parameters.strip()[2:])
            except ValueError:
                quality = 0.0
        language = tag.split("-")[0]
        best[language] = max(best.get(language, 0.0), quality - rank * 1e-4)
    return best.get("zh", 0.0) > max(best.get("en", 0.0), 0.0)


def status_of(error: PresageError) -> int:
    return error.status if isinstance(error, RequestRefusedError) else error.http_status


def reason_of(error: PresageError) -> str:
    """The metric label: one of few."""
    return error.reason if isinstance(error, RequestRefusedError) else error.metric_label


def problem(error: PresageError, *, request_id: str = "", chinese: bool = False) -> dict[str, Any]:
    """The document. What the asker did wrong is told in full; what broke inside is only named."""
    reason, status = reason_of(error), status_of(error)
    titles = _TITLES.get(reason)
    if titles is None:
        phrase = HTTPStatus(status).phrase
        titles = (phrase, phrase)
    told: dict[str, Any] = {
        "type": f"urn:presage:problem:{reason}",
        "title": titles[1] if chinese else titles[0],
        "status": status,
        "detail": detail_of(error),
        "code": reason,
    }
    if request_id:
        told["request_id"] = request_id
    return told


def detail_of(error: PresageError) -> str:
    if isinstance(error, RequestRefusedError) or (
        isinstance(error, InputError) and not isinstance(error, (ConfigError, DataFileError))
    ):
        text = str(error)
    elif status_of(error) == HTTPStatus.INTERNAL_SERVER_ERROR:
        text = "the request may be repeated; the service's log has the reason by the request id"
    else:
        text = error.what
    return scrub(text)


def scrub(text: str) -> str:
    """Without paths, URLs and addresses; bounded."""
    clean = _INSIDE.sub("…", text)
    return clean if len(clean) <= _LONGEST_DETAIL else clean[: _LONGEST_DETAIL - 1] + "…"


def retry_after(error: PresageError) -> int | None:
    """Whole seconds for Retry-After, at least one; None where asking again does not help."""
    if isinstance(error, RequestRefusedError):
        wait = error.retry_after_seconds
        return None if wait is None else max(1, int(-(-wait // 1)))
    if isinstance(error, (OverloadedError, ServerUnavailableError)):
        return _RETRY_SECONDS
    return None


def render_problem(
    error: PresageError, *, request_id: str = "", chinese: bool = False
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of an answer."""
    body = orjson.dumps(problem(error, request_id=request_id, chinese=chinese))
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"content-language", b"zh" if chinese else b"en"),
    ]
    wait = retry_after(error)
    if wait is not None:
        headers.append((b"retry-after", str(wait).encode()))
    if status_of(error) == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b'Bearer realm="presage"'))
    return status_of(error), headers, body
