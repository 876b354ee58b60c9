"""The closed loop with Prometheus: its series are read, forecast and given back as ai_forecast_*."""
