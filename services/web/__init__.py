"""What every HTTP service of Presage stands behind: ``protect(app, settings, api=…)``."""

from services.web.protection import Protection, protect

__all__ = ["Protection", "protect"]
