"""kazoo, unchanged, against a server that speaks ZooKeeper's protocol: a self-checking script.

usage: stock_client.py CONNECT [--control] [--through-leader-kill] | stock_client.py CONNECT --hold PATH
It prints `ok NAME` per proven point and exits with 1 at the first that fails. With --control it may ask the test that runs it, by a line
that begins with @, to stop or start a server, and waits for `done` on standard input. It never starts or stops a server itself.
"""

import os
import signal
import subprocess
import sys
import threading
import time

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    BadVersionError, ConnectionClosedError, ConnectionLoss, NoAuthError, NodeExistsError,
    NoChildrenForEphemeralsError, NoNodeError, NotEmptyError, OperationTimeoutError, RolledBackError,
)
from kazoo.retry import KazooRetry
from kazoo.security import ACL, Id, make_acl, make_digest_acl

CONNECT = sys.argv[1]
CONTROL = "--control" in sys.argv
DEADLINE_S = 30


def ok(name):
    print("ok " + name, flush=True)


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def equal(found, expected, what):
    if found != expected:
        raise AssertionError("%s: found %r, expected %r" % (what, found, expected))


def refused(error, what, call, *args, **kwargs):
    try:
        answer = call(*args, **kwargs)
    except error:
        return
    raise AssertionError("%s: expected %s, got %r" % (what, error.__name__, answer))


def wait_until(what, condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("waited too long for " + what)
        time.sleep(0.02)


def ask(directive):
    print("@" + directive, flush=True)
    check(sys.stdin.readline().strip() == "done", "the test answers " + directive)


class Events:
    """Watch events in the order of their arrival."""

    def __init__(self, sessions=False):
        self.sessions = sessions
        self.seen = []
        self.changed = threading.Condition()

    def __call__(self, event):
        if event.type == "NONE" and not self.sessions:  # kazoo tells every watcher of its connection, too.
            return
        with self.changed:
            self.seen.append((event.type, event.path))
            self.changed.notify_all()

    def expect(self, *expected):
        wanted = list(expected)
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.seen) >= len(wanted), DEADLINE_S):
                raise AssertionError("events: found %r, expected %r" % (self.seen, wanted))
            equal(self.seen, wanted, "events")
            self.seen = []


def connect(timeout=8.0, hosts=None, client_id=None, retry=True):
    patient = KazooRetry(max_tries=-1, delay=0.05, max_delay=0.5)
    client = KazooClient(hosts=hosts or CONNECT, timeout=timeout, client_id=client_id, connection_retry=patient, randomize_hosts=True)
    client.start(timeout=DEADLINE_S)
    return client


def insist(client, call, *args):
    """Repeats a call that is safe to repeat; a create that finds its znode was carried out before."""
    try:
        client.retry(call, *args)
    except NodeExistsError:
        pass


def server_of(client):
    return "%s:%d" % client._connection._socket.getpeername()[:2]


def modes(zk, base):
    equal(zk.create(base + "/plain", b"one"), base + "/plain", "path of a persistent znode")
    data, stat = zk.get(base + "/plain")
    equal(data, b"one", "data")
    equal((stat.version, stat.cversion, stat.aversion, stat.ephemeralOwner, stat.numChildren, stat.dataLength), (0, 0, 0, 0, 0, 3), "stat of a new znode")
    equal((stat.czxid, stat.czxid), (stat.mzxid, stat.pzxid), "zxids of a new znode")
    check(abs(stat.ctime / 1000 - time.time()) < 600, "the time of creation is now")
    refused(NodeExistsError, "create twice", zk.create, base + "/plain")
    refused(NoNodeError, "create below nothing", zk.create, base + "/none/child")
    zk.create(base + "/ephemeral", b"", ephemeral=True)
    equal(zk.exists(base + "/ephemeral").ephemeralOwner, zk.client_id[0], "owner of an ephemeral znode")
    refused(NoChildrenForEphemeralsError, "a child of an ephemeral znode", zk.create, base + "/ephemeral/child")
    names = [zk.create(base + "/s-", b"", sequence=True) for _ in range(3)]
    numbers = [int(name[-10:]) for name in names]
    equal(numbers, [numbers[0] + step for step in range(3)], "sequence numbers")
    name = zk.create(base + "/es-", b"", ephemeral=True, sequence=True)
    equal(zk.exists(name).ephemeralOwner, zk.client_id[0], "owner of an ephemeral sequential znode")
    path, stat = zk.create(base + "/with-stat", b"abc", include_data=True)
    equal((path, stat.dataLength), (base + "/with-stat", 3), "create that returns the stat")
    ok("create of all modes")


def versions(zk, base):
    path = base + "/versions"
    created = zk.create(path, b"0", include_data=True)[1]
    equal(zk.set(path, b"1").version, 1, "version after a set")
    equal(zk.set(path, b"2", version=1).version, 2, "version after a conditional set")
    refused(BadVersionError, "set with an old version", zk.set, path, b"3", version=1)
    data, stat = zk.get(path)
    equal((data, stat.version, stat.czxid), (b"2", 2, created.czxid), "what a failed set leaves")
    check(stat.mzxid > created.mzxid, "mzxid grows")
    zk.create(path + "/child")
    equal(zk.exists(path).cversion, 1, "cversion counts children created")
    refused(NotEmptyError, "delete with a child", zk.delete, path)
    zk.delete(path + "/child")
    equal((zk.exists(path).cversion, zk.exists(path).numChildren), (2, 0), "cversion counts children deleted")
    refused(BadVersionError, "delete with an old version", zk.delete, path, version=1)
    zk.delete(path, version=2)
    equal(zk.exists(path), None, "a deleted znode")
    refused(NoNodeError, "get of nothing", zk.get, path)
    refused(NoNodeError, "delete of nothing", zk.delete, path)
    ok("versions")


def children(zk, base):
    path = base + "/children"
    zk.create(path)
    for index in range(50):
        zk.create("%s/c%02d" % (path, index))
    equal(sorted(zk.get_children(path)), ["c%02d" % index for index in range(50)], "children")
    names, stat = zk.get_children(path, include_data=True)
    equal((len(names), stat.numChildren, stat.cversion), (50, 50, 50), "children with the stat")
    refused(NoNodeError, "children of nothing", zk.get_children, path + "/none")
    ok("children")


def multi(zk, base):
    path = base + "/multi"
    zk.create(path, b"x")
    good = zk.transaction()
    good.check(path, version=0)
    good.create(path + "/a", b"1")
    good.create(path + "/a/b", b"2")
    good.create(path + "/seq-", b"3", sequence=True)
    good.set_data(path, b"y", version=0)
    good.delete(path + "/a/b")
    results = good.commit()
    equal(results[0:3], [True, path + "/a", path + "/a/b"], "results of a multi")
    equal(results[4].version, 1, "version set by a multi")
    equal(results[5], True, "delete in a multi")
    check(int(results[3][-10:]) >= 0 and results[3].startswith(path + "/seq-"), "a sequential znode in a multi")
    zxids = {zk.exists(path + "/a").czxid, zk.exists(path).mzxid, zk.exists(results[3]).czxid}
    equal(len(zxids), 1, "one zxid for all of a multi")
    ok("multi")
    bad = zk.transaction()
    bad.create(path + "/never", b"")
    bad.check(path, version=0)
    bad.delete(path + "/a")
    results = bad.commit()
    equal([type(result) for result in results], [RolledBackError, BadVersionError, type(results[2])], "results of a failed multi")
    check(isinstance(results[2], Exception), "what follows the failure did not run")
    equal((zk.exists(path + "/never"), zk.exists(path + "/a") is not None), (None, True), "a failed multi changes nothing")
    ok("multi with a failing check")


def acls(zk, base):
    path = base + "/acl"
    zk.create(path, b"secret", acl=[make_digest_acl("user", "word", all=True)])
    refused(NoAuthError, "get without rights", zk.get, path)
    refused(NoAuthError, "set without rights", zk.set, path, b"")
    owner = connect()
    owner.add_auth("digest", "user:word")
    equal(owner.get(path)[0], b"secret", "get with rights")
    equal(owner.get_acls(path)[0][0].id.scheme, "digest", "scheme of the ACL")
    wrong = connect()
    wrong.add_auth("digest", "user:other")
    refused(NoAuthError, "get with a wrong password", wrong.get, path)
    owner.create(base + "/auth", b"", acl=[ACL(31, Id("auth", ""))])
    found = owner.get_acls(base + "/auth")[0]
    equal([(one.perms, one.id.scheme, one.id.id.split(":")[0]) for one in found], [(31, "digest", "user")], "scheme auth becomes who asks")
    zk.sync(base)  # zk reads from another server than owner wrote to, and may be behind it.
    refused(NoAuthError, "get of what another owns", zk.get, base + "/auth")
    zk.create(base + "/readable", b"", acl=[make_acl("world", "anyone", read=True, admin=True)])
    zk.get(base + "/readable")
    refused(NoAuthError, "set of what is only readable", zk.set, base + "/readable", b"")
    stat = zk.set_acls(base + "/readable", [make_acl("world", "anyone", all=True)], version=0)
    equal(stat.aversion, 1, "aversion after setACL")
    refused(BadVersionError, "setACL with an old version", zk.set_acls, base + "/readable", [make_acl("world", "anyone", all=True)], version=0)
    zk.set(base + "/readable", b"now")
    zk.create(base + "/local", b"here", acl=[make_acl("ip", "127.0.0.1", all=True)])
    equal(zk.get(base + "/local")[0], b"here", "an address that matches")
    zk.create(base + "/elsewhere", b"", acl=[make_acl("ip", "10.1.0.0/16", all=True)])
    refused(NoAuthError, "an address that does not match", zk.get, base + "/elsewhere")
    for client in (owner, wrong):
        client.stop()
        client.close()
    ok("ACLs: world, auth, digest, ip")


def one_shot_watches(zk, other, base):
    path = base + "/watched"
    events = Events()
    equal(zk.exists(path, watch=events), None, "nothing yet")
    other.create(path, b"")
    events.expect(("CREATED", path))
    zk.get(path, watch=events)
    other.set(path, b"1")
    events.expect(("CHANGED", path))
    other.set(path, b"2")
    zk.get_children(path, watch=events)
    other.create(path + "/child")
    events.expect(("CHILD", path))
    other.delete(path + "/child")
    zk.exists(path, watch=events)
    other.set(path, b"3")
    events.expect(("CHANGED", path))
    child_events = Events()
    zk.get(path, watch=events)
    zk.get_children(path, watch=child_events)
    other.delete(path)
    events.expect(("DELETED", path))
    child_events.expect(("DELETED", path))
    ok("one-shot watches of all kinds")


def order_of_events(zk, other, base):
    """The event must be here before any reply that could show the change."""
    path = base + "/order"
    zk.create(path, b"0")
    for round_number in range(1, 21):
        events = Events()
        zk.get(path, watch=events)
        other.set(path, str(round_number).encode())
        deadline = time.monotonic() + DEADLINE_S
        while zk.get(path)[0] != str(round_number).encode():
            check(time.monotonic() < deadline, "the change arrives")
        events.expect(("CHANGED", path))
    ok("watch events come for every change that was seen")


def freshness(zk, other, base):
    path = base + "/fresh"
    zk.create(path, b"0")
    for number in range(20):
        value = b"%d" % number
        other.set(path, value)
        equal(zk.sync(path), path, "path that sync returns")
        equal(zk.get(path)[0], value, "what is read after sync")
    ok("sync")


def pipelining(zk, base):
    path = base + "/pipeline"
    zk.create(path)
    asked = [zk.create_async("%s/p%04d" % (path, index), b"%d" % index) for index in range(500)]
    got = [zk.get_async("%s/p%04d" % (path, index)) for index in range(500)]
    equal([call.get(timeout=DEADLINE_S) for call in asked], ["%s/p%04d" % (path, index) for index in range(500)], "500 creates in flight")
    zxids = [call.get(timeout=DEADLINE_S)[1].czxid for call in got]
    equal(zxids, sorted(zxids), "requests of one session are carried out in order")
    big = os.urandom(700_000)
    zk.create(path + "/big", big)
    equal(zk.get(path + "/big")[0], big, "a large value comes back whole")
    ok("pipelining, and a large value")


def server_goes_away(base):
    """The session, its ephemeral znode and its watch outlive the server that the client was connected to."""
    zk, other = connect(timeout=10.0), connect(timeout=10.0)
    session, address = zk.client_id[0], server_of(zk)
    states = []
    zk.add_listener(states.append)
    path = base + "/mine"
    zk.create(path, b"", ephemeral=True)
    zk.create(base + "/seen", b"0")
    # kazoo drops its one-shot watches with the connection and tells them so; its DataWatch and ChildrenWatch arm themselves again.
    data, listing, absence = [], [], []
    zk.DataWatch(base + "/seen", lambda value, stat: data.append(value))
    zk.ChildrenWatch(base + "/seen", listing.append)
    zk.DataWatch(base + "/unborn", lambda value, stat: absence.append(value))
    told = Events(sessions=True)
    zk.get(base + "/seen", watch=told)
    ask("stop " + address)
    wait_until("the session to be suspended", lambda: KazooState.SUSPENDED in states)
    wait_until("the session to be connected again", lambda: states[-1] == KazooState.CONNECTED)
    equal(zk.client_id[0], session, "the session is the same")
    equal(zk.retry(zk.exists, path).ephemeralOwner, session, "its ephemeral znode is still there")
    told.expect(("NONE", None))
    insist(other, other.set, base + "/seen", b"1")
    wait_until("the change of data", lambda: data[-1] == b"1")
    insist(other, other.create, base + "/seen/child")
    wait_until("the new child", lambda: listing[-1] == ["child"])
    insist(other, other.create, base + "/unborn", b"born")
    wait_until("the new znode", lambda: absence[-1] == b"born")
    check(KazooState.LOST not in states, "the session was never lost")
    ok("a session re-attaches to another server with its ephemeral znode and its watches")
    ask("start " + address)
    zk.stop()
    wait_until("the ephemeral znode to go", lambda: other.retry(other.exists, path) is None)
    ok("closing a session removes its ephemeral znodes")
    other.stop()


def expiry(zk, base):
    """Another process, frozen: its session must expire, and it must be told so when it wakes."""
    path = base + "/held"
    holder = subprocess.Popen([sys.executable, __file__, CONNECT, "--hold", path], stdout=subprocess.PIPE, text=True)
    try:
        read_session(holder)
        events = Events()
        zk.sync(base)
        check(zk.exists(path, watch=events) is not None, "the ephemeral znode is there")
        os.kill(holder.pid, signal.SIGSTOP)
        events.expect(("DELETED", path))
        os.kill(holder.pid, signal.SIGCONT)
        equal(holder.stdout.readline().strip(), "expired", "the frozen process, when it wakes")
    finally:
        holder.kill()
        holder.wait()
    ok("expiry")
    # The holder is frozen while its session is taken over and closed: awake it would re-attach and take the session back.
    holder = subprocess.Popen([sys.executable, __file__, CONNECT, "--hold", path], stdout=subprocess.PIPE, text=True)
    try:
        session = read_session(holder)
        os.kill(holder.pid, signal.SIGSTOP)
        twin = connect(client_id=session)
        equal(twin.client_id[0], session[0], "the same session from a second connection")
        twin.stop()
        os.kill(holder.pid, signal.SIGCONT)
        equal(holder.stdout.readline().strip(), "expired", "a session that was closed elsewhere")
    finally:
        holder.kill()
        holder.wait()
    forged = (zk.client_id[0], b"\x01" * 16)
    stranger = connect(client_id=forged)
    check(stranger.client_id[0] != zk.client_id[0], "a wrong password gives no one's session")
    stranger.stop()
    ok("a session closed elsewhere, and a wrong password")


def read_session(holder):
    word, number, password = holder.stdout.readline().split()
    equal(word, "held", "the other process")
    return int(number), bytes.fromhex(password)


def hold(path):
    client = connect(timeout=2.0)
    lost = threading.Event()
    client.create(path, b"", ephemeral=True)
    client.add_listener(lambda state: lost.set() if state == KazooState.LOST else None)
    print("held", client.client_id[0], client.client_id[1].hex(), flush=True)
    print("expired" if lost.wait(DEADLINE_S) else "not expired", flush=True)


def through_leader_kill(base):
    """Sequential creates, each tried once. Whatever was acknowledged must be there exactly once, whatever was not at most once."""
    zk = connect(timeout=10.0)
    session = zk.client_id[0]
    states, acknowledged, unknown = [], {}, []
    zk.add_listener(states.append)
    zk.create(base + "/guard", b"")
    guarded = []
    zk.DataWatch(base + "/guard", lambda value, stat: guarded.append(value))
    zk.create(base + "/alive", b"", ephemeral=True)
    killed = threading.Event()

    def control():
        wait_until("a hundred writes", lambda: len(acknowledged) >= 100)
        ask("kill-leader")
        killed.set()

    asker = threading.Thread(target=control, daemon=True)
    asker.start()
    number, after, deadline = 0, 0, time.monotonic() + 2 * DEADLINE_S
    while after < 200:
        check(time.monotonic() < deadline, "writes go on after the leader was killed")
        number += 1
        was_killed = killed.is_set()
        try:
            acknowledged[number] = zk.create(base + "/w-", b"%d" % number, sequence=True)
            after += 1 if was_killed else 0
        except (ConnectionLoss, ConnectionClosedError, OperationTimeoutError) as error:
            unknown.append(number)
            print("error %d %s" % (number, type(error).__name__), flush=True)
            wait_until("the client to be connected", lambda: zk.state == KazooState.CONNECTED)
    asker.join(DEADLINE_S)
    equal(zk.client_id[0], session, "the session is the same")
    check(KazooState.LOST not in states, "the session was never lost")
    zk.retry(zk.sync, base)
    found = {}
    for name in zk.retry(zk.get_children, base):
        if name.startswith("w-"):
            data = int(zk.retry(zk.get, base + "/" + name)[0])
            check(data not in found, "write %d happened twice" % data)
            found[data] = base + "/" + name
    for written, path in acknowledged.items():
        equal(found.get(written), path, "acknowledged write %d" % written)
    for written in found:
        check(written in acknowledged or written in unknown, "write %d was asked for" % written)
    zk.retry(zk.set, base + "/guard", b"1")
    wait_until("the watch that was set before", lambda: guarded[-1] == b"1")
    equal(zk.exists(base + "/alive").ephemeralOwner, session, "the ephemeral znode")
    print("acknowledged %d unknown %d" % (len(acknowledged), len(unknown)), flush=True)
    zk.stop()
    ok("through a leader kill")


def main():
    if "--hold" in sys.argv:
        return hold(sys.argv[sys.argv.index("--hold") + 1])
    zk = connect()
    base = zk.create("/kazoo-", b"", sequence=True)
    if "--through-leader-kill" in sys.argv:
        zk.stop()
        return through_leader_kill(base)
    other = connect()
    modes(zk, base)
    versions(zk, base)
    children(zk, base)
    multi(zk, base)
    acls(zk, base)
    one_shot_watches(zk, other, base)
    order_of_events(zk, other, base)
    freshness(zk, other, base)
    pipelining(zk, base)
    expiry(zk, base)
    if CONTROL:
        server_goes_away(base)
    zk.stop()
    other.stop()
    ok("all")


try:
    main()
except Exception as failure:
    import traceback

    traceback.print_exc()
    print("FAILED %s: %s" % (type(failure).__name__, failure), flush=True)
    os._exit(1)
os._exit(0)
