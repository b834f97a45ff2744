"""OpenTelemetry traces, if OTEL_EXPORTER_OTLP_ENDPOINT is set. Otherwise, OpenTelemetry is not imported."""
