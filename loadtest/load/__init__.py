"""Load on the running server: Locust, open loop, objectives, every answer checked."""
