"""Grafana's dashboards: what they ask, in tables; ``python -m services dashboards`` writes them."""
