"""Jobs: their queues, their maintenance and their admin page."""
