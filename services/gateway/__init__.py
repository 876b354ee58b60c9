"""The gateway: the models' HTTP APIs, and a page for people."""
