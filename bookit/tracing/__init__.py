"""OpenTelemetry traces, if OTEL_EXPORTER_OTLP_ENDPOINT is set.

Without this setting, OpenTelemetry is not imported.
"""
