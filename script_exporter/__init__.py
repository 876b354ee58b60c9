"""Scripts on a schedule, exposed to Prometheus: the metrics that no exporter has.

``python -m script_exporter -config.file FILE`` reads the configuration of the Go program
``public_exporter`` unchanged; ``python -m script_exporter discover`` asks the CMDB which hosts
run which collectors.
"""
