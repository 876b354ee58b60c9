"""``Renderer``: notifications → title and body, in a channel's languages and form."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
from jinja2.exceptions import TemplateError
from markupsafe import Markup, escape

from contract.errors import ConfigError
from services.notify.causes import CauseTable
from services.notify.config import Form
from services.notify.escaping import ESCAPES, finalizer, markdown_code, title
from services.notify.notification import Audience, Language, Notification, Severity, rank

_MOST_ROWS = 20
_MOST_SUBJECTS = 20
_LONGEST_TITLE = 200
SumReason = Literal["on_node", "of_user", "held"]


@dataclass(frozen=True)
class Message:
    """Ready to be sent; ``severity`` is the highest of what it tells."""

    title: str
    body: str
    form: Form
    severity: Severity
    resolved: bool = False


@cache
def _words() -> Mapping[str, Mapping[str, str]]:
    text = files("services.notify").joinpath("templates/words.toml").read_text("utf-8")
    return tomllib.loads(text)


class Renderer:
    """For one channel.

    largest_bytes: of a body; evidence is left out, the last lines first, until it fits
    templates: a folder before the package's own

    Raises ConfigError: a template that cannot be used.
    """

    def __init__(
        self,
        form: Form,
        languages: Sequence[Language],
        audience: Audience,
        table: CauseTable,
        *,
        largest_bytes: int = 32_768,
        templates: Path | None = None,
    ) -> None:
        self.form = form
        self._languages = tuple(languages)
        self._audience = audience
        self._table = table
        self._largest_bytes = largest_bytes
        own = [] if templates is None else [FileSystemLoader(templates)]
        environment = Environment(
            loader=ChoiceLoader([*own, PackageLoader("services.notify")]),
            # Our finalizer escapes for all three forms; jinja's own knows HTML alone.
            autoescape=False,
            finalize=finalizer(form),
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        environment.filters["code"] = markdown_code
        try:
            self._message = environment.get_template(f"message.{form}.j2")
            self._summary = environment.get_template(f"summary.{form}.j2")
        except TemplateError as error:
            raise ConfigError(
                "a template cannot be used",
                where=str(templates or "services/notify/templates"),
                got=f"{error.name}: {error.message}" if hasattr(error, "name") else str(error),
            ) from error

    def message(self, notification: Notification) -> Message:
        severity = self._table.severity(notification, self._audience)
        head = [self.word(severity), self._cause(notification.cause), notification.subject]
        if notification.resolved:
            head[0] = self.word("resolved")
        body = self._fitting(
            lambda lines: self._message.render(
                n=notification,
                w=lambda word: Markup(self.word(word)),
                cause=self._cause(notification.cause),
                severity=severity,
                facts=[
                    {"name": self._joined(fact.name), "value": fact.value}
                    for fact in notification.facts
                ],
                summary=self._texts(notification.summary),
                action=self._texts(notification.action),
                evidence=notification.evidence[:lines],
                link=self._link(notification.link),
            ),
            len(notification.evidence),
        )
        return Message(self._title(head), body, self.form, severity, notification.resolved)

    def summary(
        self, notifications: Sequence[Notification], why: SumReason, beyond: int = 0
    ) -> Message:
        """Several as one: by cause and node, the most severe first, and how many.

        beyond: how many more there were of which only the number is known
        """
        groups: dict[tuple[str, str], list[Notification]] = {}
        for notification in notifications:
            groups.setdefault((notification.cause, notification.node), []).append(notification)
        ordered = sorted(
            groups.values(),
            key=lambda group: (-max(self._rank(n) for n in group), -len(group)),
        )
        severest = max(notifications, key=self._rank)
        total = len(notifications) + beyond
        is_alerts = all(n.kind == "alert" for n in notifications)
        if why == "held":
            head = [self._counted("held_title", total)]
        else:
            head = [
                self._cause(severest.cause),
                self._counted("more_alerts" if is_alerts else "more_jobs", total),
                severest.node if why == "on_node" else severest.user,
            ]

        def render(subjects: int) -> str:
            return self._summary.render(
                w=lambda word: Markup(self.word(word)),
                why=why,
                total=total,
                rows=[self._row(group, subjects) for group in ordered[:_MOST_ROWS]]
                + self._rest(sum(map(len, ordered[_MOST_ROWS:])) + beyond),
            )

        body = self._fitting(render, _MOST_SUBJECTS)
        severity = self._table.severity(severest, self._audience)
        return Message(self._title(head), body, self.form, severity)

    def word(self, word: str) -> str:
        return " ".join(_words()[language][word] for language in self._languages)

    def _counted(self, word: str, count: int) -> str:
        phrases = [_words()[language][word] for language in self._languages]
        return " / ".join(phrases).replace("{count}", str(count))

    def _row(self, group: Sequence[Notification], subjects: int) -> dict[str, Any]:
        names = list(dict.fromkeys(n.subject for n in group))
        return {
            "cause": self._cause(group[0].cause),
            "node": group[0].node,
            "count": len(group),
            "subjects": names[:subjects],
            "more": max(len(names) - subjects, 0),
        }

    @staticmethod
    def _rest(count: int) -> list[dict[str, Any]]:
        row = {"cause": "…", "node": "", "count": count, "subjects": [], "more": 0}
        return [row] if count else []

    def _rank(self, notification: Notification) -> int:
        return rank(self._table.severity(notification, self._audience))

    def _cause(self, cause: str) -> str:
        names = [self._table.name(cause, language) for language in self._languages]
        return " / ".join(dict.fromkeys(names))

    def _joined(self, by_language: Mapping[Language, str]) -> str:
        return " ".join(self._texts(by_language))

    def _texts(self, by_language: Mapping[Language, str]) -> list[str]:
        return [by_language[language] for language in self._languages if by_language.get(language)]

    def _link(self, link: str) -> Markup:
        # Its characters are checked: nothing in it is markup but HTML's &.
        return Markup(escape(link) if self.form == "html" else link)

    @staticmethod
    def _title(parts: Sequence[str]) -> str:
        text = "[Presage] " + title(" · ".join(part for part in parts if part))
        return text if len(text) <= _LONGEST_TITLE else text[: _LONGEST_TITLE - 1] + "…"

    def _fitting(self, render: Callable[[int], str], most: int) -> str:
        for count in range(most, -1, -1):
            try:
                body = render(count).strip()
            except TemplateError as error:
                raise ConfigError("a template cannot be rendered", got=str(error)) from error
            if len(body.encode()) <= self._largest_bytes:
                return body
        if self.form == "html":
            # A cut through a tag would swallow what follows.
            return ESCAPES["html"](_cut(body, self._largest_bytes // 6))
        return _cut(body, self._largest_bytes)


def _cut(text: str, largest_bytes: int) -> str:
    return text.encode()[: max(largest_bytes - 3, 0)].decode("utf-8", "ignore") + "…"
