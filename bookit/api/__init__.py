"""What every endpoint shares: views, shapes, filters, pages, rate limits and the schema."""
