"""The WSGI application that gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

from bookit.startup import provide_database

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookit.settings")

provide_database()  # in development; `manage.py serve` and bookit.gunicorn have done it already
application = get_wsgi_application()
