"""Jobs: their queues, their upkeep and their admin page."""
