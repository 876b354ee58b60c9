"""The closed loop with Prometheus: series are read, forecast and given back as ai_forecast_*."""
