"""``Grid``: the moments at which a query is asked, one step apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """``points`` moments from ``start_seconds`` (Unix time, a multiple of the step) on."""

    start_seconds: int
    step_seconds: int
    points: int

    @classmethod
    def ending(cls, now_seconds: float, step_seconds: int, points: int) -> Grid:
        """The newest ``points`` moments that are not after ``now_seconds``."""
        end = int(now_seconds // step_seconds) * step_seconds
        return cls(end - (points - 1) * step_seconds, step_seconds, points)

    @property
    def end_seconds(self) -> int:
        return self.start_seconds + (self.points - 1) * self.step_seconds

    def since(self, start_seconds: int) -> Grid:
        """This grid without what is before ``start_seconds``, but never without its end."""
        start = min(max(start_seconds, self.start_seconds), self.end_seconds)
        return Grid(start, self.step_seconds, (self.end_seconds - start) // self.step_seconds + 1)

    def pieces(self, most_points: int) -> list[Grid]:
        """Parts of at most ``most_points`` points, the newest first."""
        pieces = []
        left = self.points
        while left > 0:
            points = min(left, max(1, most_points))
            left -= points
            start = self.start_seconds + left * self.step_seconds
            pieces.append(Grid(start, self.step_seconds, points))
        return pieces
