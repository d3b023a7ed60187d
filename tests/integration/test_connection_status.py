"""Where a connection stands, as its listener is told: in order, by two threads, and in a forked child."""

from __future__ import annotations

import threading
from collections.abc import Callable

from django_natskv import kv
from tests.fix_connections import Program
from tests.fix_local import live
from tests.fix_proxy import Proxy
from tests.fix_servers import NatsServer
from tests.fix_waiting import eventually


class Listener:
    """Keeps what it is told; takes the next "connected" only when a loss was told, or could have been."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.armed, self.held = threading.Event(), threading.Event()
        self.overtaken, self.said = threading.Event(), threading.Event()

    def wants_entries(self) -> bool:
        return False

    def initialized(self, bucket: str) -> None:
        pass

    def entry_changed(self, *_: object) -> None:
        pass

    def connection_status(self, status: str, error: Exception | None) -> None:
        holds = status == "connected" and self.armed.is_set() and not self.held.is_set()
        if holds:
            self.held.set()
            self.overtaken.wait(0.5)
        elif status == "disconnected":
            self.overtaken.set()
        self.told.append(status)
        if holds:
            self.said.set()


def test_a_loss_does_not_overtake_what_another_thread_is_telling(
    nats_server: NatsServer, make_proxy: Callable[[str], Proxy], bucket_name: str
) -> None:
    proxy = make_proxy(nats_server.url)
    listener = Listener()
    reconnect = kv.ReconnectSettings(wait=0.01, max_wait=0.05)
    settings = kv.ConnectionSettings(servers=(proxy.url,), name=bucket_name, reconnect=reconnect)
    connection = kv.Connection(settings, listener=listener)
    context = connection.kv()
    context.create_bucket({"bucket": bucket_name, "storage": "memory"})
    listener.armed.set()
    cache = connection.local_cache(bucket_name)
    cache.start()
    assert listener.held.wait(30)  # on the thread of the watches, which has just connected
    proxy.refuse(cut=True)  # which the thread of the requests finds
    assert listener.said.wait(30)
    eventually(lambda: listener.told[-1] == "disconnected", 30)
    assert "connected" not in listener.told[listener.told.index("disconnected") :]
    proxy.accept()
    live(cache, 30)
    eventually(lambda: listener.told[-1] == "connected", 30)
    context.delete_bucket(bucket_name)
    connection.close()


def test_a_fork_while_it_is_told(program: Callable[..., Program], nats_server: NatsServer, bucket_name: str) -> None:
    code = """
import threading
from django_natskv import kv

class Listener:
    held, going_on = threading.Event(), threading.Event()
    def connection_status(self, status, error):
        if status == "connected" and os.getpid() == PARENT:
            self.held.set()
            self.going_on.wait(40)

PARENT = os.getpid()
connection = kv.Connection(kv.ConnectionSettings(servers=(URL,)), listener=Listener())
threading.Thread(target=connection.kv, daemon=True).start()
assert Listener.held.wait(20)
pid = os.fork()
if pid == 0:
    os.write(1, (json.dumps(len(connection.kv().list_buckets()) >= 0) + "\\n").encode())
    os._exit(0)
os.waitpid(pid, 0)
Listener.going_on.set()
connection.close()
"""
    lines, errors = program(f"URL = {nats_server.url!r}\n{code}", {}).finish()
    assert (errors, lines) == ("", [True])
