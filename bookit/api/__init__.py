"""Shared by all endpoints: views, serializers, filters, pagination, throttles and the schema."""
