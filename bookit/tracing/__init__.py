"""OpenTelemetry traces, if OTEL_EXPORTER_OTLP_ENDPOINT is set. Otherwise, nothing is imported."""
