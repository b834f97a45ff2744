"""What every endpoint shares: views, shapes, filters, pages of lists, rates and the OpenAPI document."""
