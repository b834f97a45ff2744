"""Free times: the terms of services, and the search for times that can be booked."""
