"""The admin pages of all rooms, and their cards on the home page.

Django imports only this module.
"""

from bookings import home  # noqa: F401 - importing `home` adds its cards
from bookings.apps import import_from_rooms

import_from_rooms("admin")
import_from_rooms("home")
