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

from django.core.management import call_command
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from django_walletpass.models import Pass
from django_walletpass.services import PassBuilder

# The settings of the library have one type.
VERSIONS = {key: 0 for key in passes.PASSES if key[0] == settings.WALLETPASS["PASS_TYPE_ID"]}


def store(key):
    """Saves the next version. The library pushes after it saves."""
    VERSIONS[key] += 1
    builder = PassBuilder()
    builder.pass_data_required.update(serialNumber=key[1], authenticationToken=passes.PASSES[key])
    builder.builded_pass_content = passes.archive(key, VERSIONS[key])
    builder.write_to_model(Pass.objects.filter(pass_type_identifier=key[0], serial_number=key[1]).first())


@csrf_exempt
def touch(request, type_id, serial):
    store((type_id, serial))
    return HttpResponse()


urlpatterns = [path("touch/<str:type_id>/<str:serial>", touch), path("", include("django_walletpass.urls"))]

passes.pushes_to_the_kit()
call_command("migrate", verbosity=0)
for key in VERSIONS:
    store(key)
call_command("runserver", f"127.0.0.1:{PORT}", use_reloader=False, verbosity=0)
