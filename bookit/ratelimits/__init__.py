"""Counts requests against limits: in Redis for all hosts, or in memory for this host."""
