"""edutap.wallet_apple behind uvicorn: python edutap_peer.py PORT FOLDER

The library leaves storage to its user. Here it is as good as the library's interface allows."""

import io, os, sys, time

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
os.environ.update(
    EDUTAP_WALLET_APPLE_CERT_DIR=os.environ.get("CERT_FOLDER", FOLDER), EDUTAP_WALLET_APPLE_HANDLER_PREFIX="",
    EDUTAP_WALLET_APPLE_PASS_DATA_PASSTHROUGH="true",
    EDUTAP_WALLET_APPLE_PRIVATE_KEY=os.environ.get("CERT_FOLDER", FOLDER) + "/private.key")

import logging

import structlog, uvicorn
from edutap.wallet_apple import api
from edutap.wallet_apple.models.handlers import PushToken, SerialNumbers
from edutap.wallet_apple.plugins import add_plugin
from fastapi import FastAPI, HTTPException

import passes

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
CLOCK = [time.time_ns() // 1000]
VERSIONS = {key: CLOCK[0] for key in passes.PASSES}
REGISTERED, TOKENS = {}, {}


def tick():
    CLOCK[0] += 1
    return CLOCK[0]


class Registrations:
    async def register_pass(self, device, type_id, serial, push_token):
        if (type_id, serial) not in VERSIONS:
            raise HTTPException(401)
        if push_token is None:  # The request had no body.
            raise HTTPException(400)
        TOKENS[device] = push_token.pushToken
        REGISTERED.setdefault((device, type_id, serial), tick())

    async def unregister_pass(self, device, type_id, serial):
        REGISTERED.pop((device, type_id, serial), None)


class Data:
    async def get_pass_data(self, *, pass_type_id, serial_number, update=False):
        key = (pass_type_id, serial_number)
        return io.BytesIO(passes.archive(key, VERSIONS[key]))

    async def get_push_tokens(self, device, type_id, serial):
        return [PushToken(pushToken=TOKENS[one]) for one, of, name in REGISTERED if (of, name) == (type_id, serial)]

    async def get_update_serial_numbers(self, device, type_id, last_updated=None):
        since = int(last_updated) if last_updated and last_updated.isdigit() else 0
        tags = {serial: max(at, VERSIONS[of, serial]) for (one, of, serial), at in REGISTERED.items()
                if (one, of) == (device, type_id)}
        changed = [serial for serial, tag in tags.items() if tag > since]
        return SerialNumbers(serialNumbers=changed, lastUpdated=str(max(tags.values(), default=since)))

    async def check_authentication_token(self, type_id, serial, token):
        return passes.PASSES.get((type_id, serial)) == token


class Log:
    async def log(self, entries):
        pass


add_plugin("PassRegistration", Registrations)
add_plugin("PassDataAcquisition", Data)
add_plugin("Logging", Log)

from edutap.wallet_apple.handlers.fastapi import router_apple_wallet

app = FastAPI(redirect_slashes=False)
app.include_router(router_apple_wallet)


@app.post("/touch/{type_id}/{serial}")
async def touch(type_id: str, serial: str):
    VERSIONS[type_id, serial] = tick()
    if os.environ.get("CERT_FOLDER"):
        await api.trigger_update(type_id, serial)


passes.pushes_to_the_kit()
uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="critical")
