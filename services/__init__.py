"""What runs for long, built on the clients: ``python -m services <name>``."""
