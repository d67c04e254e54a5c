"""What a stolen agent would try, run inside its container with its credentials: `python3 - ATTACK [WORD ...]`.

`many` takes a JSON list of attacks, each with its words. Says in one line of JSON what happened. Uses nothing but what
the container's image holds.
"""

import asyncio
import json
import os
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import nats

DOOR = "http://edgeagents-door:59745"


def token():
    return Path("/run/credentials/door.token").read_text().strip()


def password():
    return Path("/run/credentials/nats.password").read_text().strip()


def http(method, url, body="", with_token=True):
    """Status and text of a request; the error when there is no answer."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token()}"} if with_token else {})
    request = urllib.request.Request(url, body.encode() or None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return {"status": answer.status, "body": answer.read().decode()}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": error.read().decode()}
    except OSError as error:
        return {"error": str(error)}


def tcp(host, port):
    """Whether somebody takes a connection."""
    try:
        socket.create_connection((host, int(port)), 3).close()
    except OSError as error:
        return {"error": str(error)}
    return {"connected": True}


async def bus(act):
    """What the broker says to something done with our own user."""
    said = []

    async def on_error(error):
        said.append(str(error))

    client = await nats.connect(
        os.environ["EDGEAGENTS_NATS_URL"], user=os.environ["EDGEAGENTS_NATS_USER"],
        password=password(), error_cb=on_error, connect_timeout=5,
        inbox_prefix=f"_INBOX.{os.environ['EDGEAGENTS_NATS_USER']}".encode(),
    )  # fmt: skip
    try:
        result = await act(client)
        await client.flush()
        await asyncio.sleep(0.2)
    finally:
        await client.close()
    return {"said": said, "result": result}


def publish(subject, data):
    async def act(client):
        await client.publish(subject, data.encode())

    return asyncio.run(bus(act))


def publish_each(*subjects):
    """What the broker says to each of these subjects, on one connection."""
    return each(subjects, lambda client, subject: client.publish(subject, b"{}"))


def subscribe_each(*subjects):
    """What the broker says to hearing each of these subjects, on one connection."""
    return each(subjects, lambda client, subject: client.subscribe(subject))


def each(subjects, act):
    found = {}

    async def connected():
        said = []

        async def on_error(error):
            said.append(str(error))

        user = os.environ["EDGEAGENTS_NATS_USER"]
        client = await nats.connect(
            os.environ["EDGEAGENTS_NATS_URL"], user=user, password=password(), error_cb=on_error, connect_timeout=5
        )
        try:
            for subject in subjects:
                said.clear()
                await act(client, subject)
                await client.flush()  # what the server says to it comes before its answer to this
                await asyncio.sleep(0.02)
                found[subject] = " ".join(said).lower()
        finally:
            await client.close()

    asyncio.run(connected())
    return found


def request(subject, data):
    async def act(client):
        try:
            return (await client.request(subject, data.encode(), timeout=2)).data.decode(errors="replace")
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    return asyncio.run(bus(act))


def subscribe(subject):
    async def act(client):
        got = []

        async def take(message):
            got.append(message.subject)

        await client.subscribe(subject, cb=take)
        await client.flush()
        await asyncio.sleep(3)
        return got

    return asyncio.run(bus(act))


def anonymous():
    async def connect():
        try:
            await (
                await nats.connect(os.environ["EDGEAGENTS_NATS_URL"], allow_reconnect=False, connect_timeout=3)
            ).close()
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        return {"connected": True}

    return asyncio.run(connect())


def as_user(user, password):
    async def connect():
        try:
            client = await nats.connect(
                os.environ["EDGEAGENTS_NATS_URL"],
                user=user,
                password=password,
                allow_reconnect=False,
                connect_timeout=3,
            )
            await client.close()
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        return {"connected": True}

    return asyncio.run(connect())


def files():
    """Every file that could hold a secret or a socket, and whether root's files can be written."""
    found = [os.path.join(folder, name) for folder, _, names in os.walk("/run") for name in names]
    writable = [path for path in ("/etc/x", "/opt/x", "/run/credentials/x", "/state/x", "/usr/x") if can_write(path)]
    return {"run": found, "writable": writable, "uid": os.getuid()}


def can_write(path):
    try:
        open(path, "w").close()
    except OSError:
        return False
    return True


def resolve(name):
    try:
        return {"address": socket.getaddrinfo(name, 80)[0][4][0]}
    except OSError as error:
        return {"error": str(error)}


def many(attacks):
    """What happened to each of a list of attacks."""
    return [ATTACKS[name](*words) for name, *words in json.loads(attacks)]


ATTACKS = {
    "many": many, "publish-each": publish_each, "subscribe-each": subscribe_each,
    "http": http, "tcp": tcp, "publish": publish, "request": request, "subscribe": subscribe, "anonymous": anonymous,
    "as-user": as_user, "files": files, "resolve": resolve,
    "door": lambda method, path, body="": http(method, DOOR + path, body),
    "door-without": lambda method, path: http(method, DOOR + path, with_token=False),
}  # fmt: skip
print(json.dumps(ATTACKS[sys.argv[1]](*sys.argv[2:])))
