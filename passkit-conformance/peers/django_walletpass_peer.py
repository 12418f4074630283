"""django-walletpass behind Django's own server: python django_walletpass_peer.py PORT FOLDER"""

import os, sys

import django
from django.conf import settings
from django.http import HttpResponse

import passes

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]

settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="peer", USE_TZ=True, MEDIA_ROOT=FOLDER, MIDDLEWARE=[],
    APPEND_SLASH=False, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "rest_framework", "django_walletpass"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{FOLDER}/db", "OPTIONS": {"timeout": 20}}},
    WALLETPASS={
        "PUSH_AUTH_STRATEGY": "token", "TOKEN_AUTH_KEY_PATH": os.environ.get("TOKEN_KEY"), "TOKEN_AUTH_KEY_ID": "ABCDE12345",
        "TEAM_ID": "EXAMPLE123", "PASS_TYPE_ID": "pass.com.example.a", "SERVICE_URL": f"http://127.0.0.1:{PORT}/",
    },
)
django.setup()

from django.core.files.base import ContentFile
from django.core.management import call_command
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from django_walletpass.models import Pass

VERSIONS = dict.fromkeys(passes.PASSES, 0)


def store(key):
    """Saves the next version, as the library's PassBuilder does, and pushes it."""
    VERSIONS[key] += 1
    one, _ = Pass.objects.get_or_create(
        pass_type_identifier=key[0], serial_number=key[1], authentication_token=passes.PASSES[key])
    one.data.save("pass.pkpass", ContentFile(passes.archive(key, VERSIONS[key])))
    one.save()
    if os.environ.get("TOKEN_KEY"):
        one.push_notification()


@csrf_exempt
def touch(request, type_id, serial):
    store((type_id, serial))
    return HttpResponse()


urlpatterns = [path("touch/<str:type_id>/<str:serial>", touch), path("", include("django_walletpass.urls"))]

passes.pushes_to_the_kit()
call_command("migrate", verbosity=0)
for key in passes.PASSES:
    store(key)
call_command("runserver", f"127.0.0.1:{PORT}", use_reloader=False, verbosity=0)
