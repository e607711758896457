"""What a process tells its operator: figures for Prometheus, spans for OpenTelemetry, which nothing else imports."""
