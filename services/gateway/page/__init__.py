"""The page at ``/``: diagnosis, log lines, forecasts and models for people with a browser."""

from services.gateway.page.mount import mount_page
from services.gateway.page.settings import PageSettings

__all__ = ["PageSettings", "mount_page"]
