"""One module a theme; each offers ``SCENARIOS``."""
