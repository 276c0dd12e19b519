"""A Django project in one module: its admin pages, sessions, an upload, a stream."""

import functools
import hashlib
import tempfile
from pathlib import Path

import django
from django.conf import settings

# Django can be set up once in a process.
_directory = tempfile.TemporaryDirectory()


@functools.cache
def make_app():
    """Make the project, with a database of its own; return its application."""
    directory = Path(_directory.name)
    settings.configure(
        ALLOWED_HOSTS=["localhost", ".localhost"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(directory / "db.sqlite3"),
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "django.contrib.staticfiles",
        ],
        LOGGING_CONFIG=None,
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="not a secret",
        SESSION_COOKIE_SECURE=True,
        STATIC_URL="/static/",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        DEBUG=True,
        USE_TZ=True,
    )
    django.setup()
    from django.contrib.auth.models import User
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
    from django.core.asgi import get_asgi_application
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    User.objects.create_superuser("admin", "admin@example.org", "password")
    return ASGIStaticFilesHandler(get_asgi_application())


def _urls():
    from django.contrib import admin
    from django.http import JsonResponse, StreamingHttpResponse
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt

    async def count(request):
        number = await request.session.aget("count", 0) + 1
        await request.session.aset("count", number)
        return JsonResponse({"count": number, "cookies": sorted(request.COOKIES)})

    @csrf_exempt
    def upload(request):
        file = request.FILES["file"]
        digest = hashlib.sha256()
        for piece in file.chunks():
            digest.update(piece)
        return JsonResponse({"name": file.name, "sha256": digest.hexdigest()})

    async def stream(request):
        async def pieces():
            for number in range(100):
                yield f"{number}\n"

        return StreamingHttpResponse(pieces(), content_type="text/plain")

    return [
        path("admin/", admin.site.urls),
        path("count", count),
        path("upload", upload),
        path("stream", stream),
    ]


def __getattr__(name):
    # Django asks for it when it is set up.
    if name == "urlpatterns":
        return _urls()
    raise AttributeError(name)
