# The processors, their schemas and the streampipe command, for a user without rights.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /venv
COPY requirements.lock ./
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY streampipe streampipe
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps .

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin streampipe \
    && install -d -o 10001 -g 10001 /var/lib/streampipe
COPY --from=build /venv /venv
WORKDIR /app
COPY schemas schemas
COPY processors processors
COPY data data
COPY demo demo
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 STREAMPIPE_STATE_DIR=/var/lib/streampipe
USER 10001
EXPOSE 9464
ENTRYPOINT ["streampipe"]
CMD ["--help"]
