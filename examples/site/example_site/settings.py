"""Settings of the example site: two task backends, and nothing else to install.

There is no database, no cache and no session store here, on purpose. What the site knows about its
tasks lives in shared memory; which tasks are *yours* is remembered by your browser.
"""

import os
from typing import Any

# Good enough for an example that listens on 127.0.0.1. Your own site reads its key from a secret
# place. The key also gives the shared memory its name: sites with different keys never meet.
SECRET_KEY = "example-only-" + "not-a-secret-" * 4

DEBUG = os.environ.get("EXAMPLE_DEBUG") == "1"
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.staticfiles",
    "django_tasks_local",  # for `manage.py local_tasks`
    "board",
]

TASKS: dict[str, dict[str, Any]] = {
    # Waiting for a disk or a network: threads of this very process.
    # Its results can be read in this process only, so use it for what nobody asks about later.
    "default": {"BACKEND": "django_tasks_local.ThreadPoolBackend"},
    # Computing: worker processes, shared by all web workers of the host.
    # Any process of the site can read the status, the progress and the result.
    "cpu_intensive": {
        "BACKEND": "django_tasks_local.ProcessPoolBackend",
        # On the *host*, however many web workers there are. Often `os.cpu_count()` is right;
        # a fixed number keeps the example the same on each machine.
        "OPTIONS": {"MAX_WORKERS": 4},
    },
}

# Leave NAMESPACE out of your own settings: the default is right for nearly every site.
# The demo sets it, so that it shares nothing with a development server of the same checkout.
if namespace := os.environ.get("EXAMPLE_NAMESPACE"):
    TASKS["cpu_intensive"]["OPTIONS"]["NAMESPACE"] = namespace

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
SECURE_CSP = {"default-src": ["'self'"], "base-uri": ["'none'"], "form-action": ["'self'"]}

# An admin's session and this page may share a host but not a port; cookies do not look at ports.
CSRF_COOKIE_NAME = "example_csrftoken"
CSRF_COOKIE_SAMESITE = "Strict"

ROOT_URLCONF = "example_site.urls"
WSGI_APPLICATION = "example_site.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    },
]
STATIC_URL = "/static/"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s %(message)s"}
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
