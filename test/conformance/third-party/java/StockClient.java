import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;
import org.apache.zookeeper.server.auth.DigestAuthenticationProvider;

/**
 * Apache's Java client, unchanged, against a server that speaks ZooKeeper's protocol: a self-checking script.
 *
 * usage: StockClient CONNECT [--control] [--through-leader-kill] | StockClient CONNECT --hold PATH
 * It prints `ok NAME` per proven point and exits with 1 at the first that fails. With --control it may ask the test that runs it, by a line
 * that begins with @, to stop or start a server, and waits for `done` on standard input. It never starts or stops a server itself.
 */
public final class StockClient {
  private static final long PATIENCE_MS = 30_000;
  private static final BufferedReader ANSWERS =
      new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
  private static String connectString;

  private interface Call {
    void run() throws Exception;
  }

  private interface Condition {
    boolean holds() throws Exception;
  }

  private static void ok(String name) {
    System.out.println("ok " + name);
    System.out.flush();
  }

  private static void check(boolean condition, String what) {
    if (!condition) throw new AssertionError(what);
  }

  private static void equal(Object found, Object expected, String what) {
    if (!Objects.equals(found, expected)) {
      throw new AssertionError(what + ": found " + found + ", expected " + expected);
    }
  }

  private static void refused(Code expected, String what, Call call) throws Exception {
    try {
      call.run();
    } catch (KeeperException error) {
      equal(error.code(), expected, what);
      return;
    }
    throw new AssertionError(what + ": expected " + expected);
  }

  private static void waitUntil(String what, Condition condition) throws Exception {
    long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(PATIENCE_MS);
    while (!condition.holds()) {
      if (System.nanoTime() > deadline) throw new AssertionError("waited too long for " + what);
      Thread.sleep(10);
    }
  }

  private static void ask(String directive) throws IOException {
    System.out.println("@" + directive);
    System.out.flush();
    equal(ANSWERS.readLine(), "done", "the test answers " + directive);
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private static String text(byte[] data) {
    return new String(data, StandardCharsets.UTF_8);
  }

  /** Watch events in the order of their arrival; session events are not among them. */
  private static final class Events implements Watcher {
    private final BlockingQueue<String> seen = new LinkedBlockingQueue<>();

    @Override
    public void process(WatchedEvent event) {
      if (event.getType() != EventType.None) seen.add(event.getType() + " " + event.getPath());
    }

    void expect(EventType type, String path) throws InterruptedException {
      equal(seen.poll(PATIENCE_MS, TimeUnit.MILLISECONDS), type + " " + path, "watch event");
    }

    void expectNothingMore(String what) {
      equal(seen.peek(), null, what);
    }

    boolean isEmpty() {
      return seen.isEmpty();
    }
  }

  private static final class Session {
    final ZooKeeper zk;
    final AtomicBoolean connected = new AtomicBoolean();
    final AtomicBoolean expired = new AtomicBoolean();
    final AtomicInteger disconnected = new AtomicInteger();

    Session(int timeoutMs) throws Exception {
      zk = new ZooKeeper(connectString, timeoutMs, this::onEvent);
      waitUntil("a session", connected::get);
    }

    Session(int timeoutMs, long id, byte[] password) throws Exception {
      zk = new ZooKeeper(connectString, timeoutMs, this::onEvent, id, password);
      waitUntil("an answer about the session", () -> connected.get() || expired.get());
    }

    private void onEvent(WatchedEvent event) {
      if (event.getState() == KeeperState.SyncConnected) connected.set(true);
      if (event.getState() == KeeperState.Expired) expired.set(true);
      if (event.getState() == KeeperState.Disconnected) {
        connected.set(false);
        disconnected.incrementAndGet();
      }
    }

    /** host:port of the server, which the public description of the client tells. */
    String server() {
      Matcher matcher = Pattern.compile("remoteserver:\\S*/(\\S+:\\d+)").matcher(zk.toString());
      check(matcher.find(), "the server of " + zk);
      return matcher.group(1);
    }
  }

  private static String create(ZooKeeper zk, String path, String data, CreateMode mode) throws Exception {
    return zk.create(path, bytes(data), Ids.OPEN_ACL_UNSAFE, mode);
  }

  private static String create(ZooKeeper zk, String path) throws Exception {
    return create(zk, path, "", CreateMode.PERSISTENT);
  }

  private static void modes(ZooKeeper zk, String base) throws Exception {
    String path = base + "/plain";
    equal(create(zk, path, "one", CreateMode.PERSISTENT), path, "path of a persistent znode");
    Stat stat = new Stat();
    equal(text(zk.getData(path, false, stat)), "one", "data");
    equal(
        Arrays.asList(stat.getVersion(), stat.getCversion(), stat.getAversion(), stat.getNumChildren(), stat.getDataLength()),
        Arrays.asList(0, 0, 0, 0, 3),
        "stat of a new znode");
    equal(stat.getEphemeralOwner(), 0L, "a persistent znode has no owner");
    equal(stat.getMzxid(), stat.getCzxid(), "mzxid of a new znode");
    equal(stat.getPzxid(), stat.getCzxid(), "pzxid of a new znode");
    refused(Code.NODEEXISTS, "create twice", () -> create(zk, path));
    refused(Code.NONODE, "create below nothing", () -> create(zk, base + "/none/child"));
    create(zk, base + "/ephemeral", "", CreateMode.EPHEMERAL);
    equal(zk.exists(base + "/ephemeral", false).getEphemeralOwner(), zk.getSessionId(), "owner of an ephemeral znode");
    refused(Code.NOCHILDRENFOREPHEMERALS, "a child of an ephemeral znode", () -> create(zk, base + "/ephemeral/child"));
    int first = -1;
    for (int step = 0; step < 3; step++) {
      String name = create(zk, base + "/s-", "", CreateMode.PERSISTENT_SEQUENTIAL);
      int number = Integer.parseInt(name.substring(name.length() - 10));
      if (first < 0) first = number;
      equal(number, first + step, "sequence numbers");
    }
    String name = create(zk, base + "/es-", "", CreateMode.EPHEMERAL_SEQUENTIAL);
    equal(zk.exists(name, false).getEphemeralOwner(), zk.getSessionId(), "owner of an ephemeral sequential znode");
    Stat created = new Stat();
    zk.create(base + "/with-stat", bytes("abc"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, created);
    equal(created, zk.exists(base + "/with-stat", false), "create that returns the stat");
    ok("create of all modes");
  }

  private static void versions(ZooKeeper zk, String base) throws Exception {
    String path = base + "/versions";
    create(zk, path, "0", CreateMode.PERSISTENT);
    equal(zk.setData(path, bytes("1"), -1).getVersion(), 1, "version after a set");
    equal(zk.setData(path, bytes("2"), 1).getVersion(), 2, "version after a conditional set");
    refused(Code.BADVERSION, "set with an old version", () -> zk.setData(path, bytes("3"), 1));
    Stat stat = new Stat();
    equal(text(zk.getData(path, false, stat)), "2", "what a failed set leaves");
    check(stat.getMzxid() > stat.getCzxid(), "mzxid grows");
    create(zk, path + "/child");
    refused(Code.NOTEMPTY, "delete with a child", () -> zk.delete(path, -1));
    zk.delete(path + "/child", -1);
    stat = zk.exists(path, false);
    equal(Arrays.asList(stat.getCversion(), stat.getNumChildren()), Arrays.asList(2, 0), "cversion counts creates and deletes");
    refused(Code.BADVERSION, "delete with an old version", () -> zk.delete(path, 1));
    zk.delete(path, 2);
    equal(zk.exists(path, false), null, "a deleted znode");
    refused(Code.NONODE, "get of nothing", () -> zk.getData(path, false, null));
    refused(Code.NONODE, "delete of nothing", () -> zk.delete(path, -1));
    byte[] nothing = null;
    zk.create(base + "/null", nothing, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
    equal(zk.getData(base + "/null", false, null), nothing, "null data stays null");
    ok("versions");
  }

  private static void children(ZooKeeper zk, String base) throws Exception {
    String path = base + "/children";
    create(zk, path);
    List<String> expected = new ArrayList<>();
    for (int index = 0; index < 50; index++) {
      expected.add(String.format("c%02d", index));
      create(zk, path + "/" + expected.get(index));
    }
    Stat stat = new Stat();
    List<String> names = new ArrayList<>(zk.getChildren(path, false, stat));
    Collections.sort(names);
    equal(names, expected, "children");
    equal(Arrays.asList(stat.getNumChildren(), stat.getCversion()), Arrays.asList(50, 50), "stat with the children");
    equal(new HashSet<>(zk.getChildren(path, false)), new HashSet<>(expected), "children without a stat");
    refused(Code.NONODE, "children of nothing", () -> zk.getChildren(path + "/none", false));
    create(zk, path + "/c00/deeper");
    equal(zk.getAllChildrenNumber(path), 51, "number of all descendants");
    ok("children and getAllChildrenNumber");
    create(zk, path + "/mine-1", "", CreateMode.EPHEMERAL);
    create(zk, path + "/mine-2", "", CreateMode.EPHEMERAL);
    Set<String> mine = new HashSet<>(Arrays.asList(path + "/mine-1", path + "/mine-2"));
    equal(new HashSet<>(zk.getEphemerals(path)), mine, "ephemeral znodes below a path");
    check(zk.getEphemerals().containsAll(mine), "all ephemeral znodes of the session");
    ok("getEphemerals");
  }

  private static void multi(ZooKeeper zk, String base) throws Exception {
    String path = base + "/multi";
    create(zk, path, "x", CreateMode.PERSISTENT);
    List<OpResult> results =
        zk.multi(
            Arrays.asList(
                Op.check(path, 0),
                Op.create(path + "/a", bytes("1"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.create(path + "/a/b", bytes("2"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.create(path + "/seq-", bytes("3"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL),
                Op.setData(path, bytes("y"), 0),
                Op.delete(path + "/a/b", -1)));
    equal(results.size(), 6, "results of a multi");
    equal(((OpResult.CreateResult) results.get(2)).getPath(), path + "/a/b", "path created by a multi");
    Stat set = ((OpResult.SetDataResult) results.get(4)).getStat();
    equal(set.getVersion(), 1, "version set by a multi");
    String sequential = ((OpResult.CreateResult) results.get(3)).getPath();
    equal(zk.exists(path + "/a", false).getCzxid(), set.getMzxid(), "one zxid for all of a multi");
    equal(zk.exists(sequential, false).getCzxid(), set.getMzxid(), "one zxid for all of a multi");
    ok("multi");
    try {
      zk.multi(
          Arrays.asList(
              Op.create(path + "/never", bytes(""), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
              Op.check(path, 0),
              Op.delete(path + "/a", -1)));
      throw new AssertionError("a multi with a failing check");
    } catch (KeeperException error) {
      equal(error.code(), Code.BADVERSION, "a multi with a failing check");
      List<Integer> codes = new ArrayList<>();
      for (OpResult result : error.getResults()) codes.add(((OpResult.ErrorResult) result).getErr());
      List<Integer> expected =
          Arrays.asList(Code.OK.intValue(), Code.BADVERSION.intValue(), Code.RUNTIMEINCONSISTENCY.intValue());
      equal(codes, expected, "results of a failed multi");
    }
    equal(zk.exists(path + "/never", false), null, "a failed multi changes nothing");
    check(zk.exists(path + "/a", false) != null, "a failed multi changes nothing");
    ok("multi with a failing check");
    List<OpResult> read =
        zk.multi(Arrays.asList(Op.getData(path), Op.getChildren(path), Op.getData(path + "/none")));
    equal(text(((OpResult.GetDataResult) read.get(0)).getData()), "y", "getData in a multi of reads");
    equal(((OpResult.GetChildrenResult) read.get(1)).getChildren().size(), 2, "getChildren in a multi of reads");
    equal(((OpResult.ErrorResult) read.get(2)).getErr(), Code.NONODE.intValue(), "an error in a multi of reads");
    ok("multi of reads");
  }

  private static void acls(ZooKeeper zk, String base) throws Exception {
    String path = base + "/acl";
    String digest = DigestAuthenticationProvider.generateDigest("user:word");
    zk.create(path, bytes("secret"), Collections.singletonList(new ACL(Perms.ALL, new Id("digest", digest))), CreateMode.PERSISTENT);
    refused(Code.NOAUTH, "get without rights", () -> zk.getData(path, false, null));
    refused(Code.NOAUTH, "set without rights", () -> zk.setData(path, bytes(""), -1));
    ZooKeeper owner = new Session(8000).zk;
    owner.addAuthInfo("digest", bytes("user:word"));
    equal(text(owner.getData(path, false, null)), "secret", "get with rights");
    ZooKeeper wrong = new Session(8000).zk;
    wrong.addAuthInfo("digest", bytes("user:other"));
    refused(Code.NOAUTH, "get with a wrong password", () -> wrong.getData(path, false, null));
    owner.create(base + "/auth", bytes(""), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
    equal(
        owner.getACL(base + "/auth", null),
        Collections.singletonList(new ACL(Perms.ALL, new Id("digest", digest))),
        "scheme auth becomes who asks");
    refused(Code.INVALIDACL, "an empty ACL", () -> zk.create(base + "/e", bytes(""), Collections.emptyList(), CreateMode.PERSISTENT));
    refused(
        Code.INVALIDACL,
        "an unknown scheme",
        () -> zk.create(base + "/e", bytes(""), Collections.singletonList(new ACL(31, new Id("nobody", "x"))), CreateMode.PERSISTENT));
    zk.create(
        base + "/readable", bytes(""), Collections.singletonList(new ACL(Perms.READ | Perms.ADMIN, Ids.ANYONE_ID_UNSAFE)), CreateMode.PERSISTENT);
    refused(Code.NOAUTH, "set of what is only readable", () -> zk.setData(base + "/readable", bytes(""), -1));
    equal(zk.setACL(base + "/readable", Ids.OPEN_ACL_UNSAFE, 0).getAversion(), 1, "aversion after setACL");
    refused(Code.BADVERSION, "setACL with an old version", () -> zk.setACL(base + "/readable", Ids.OPEN_ACL_UNSAFE, 0));
    zk.create(base + "/local", bytes("here"), Collections.singletonList(new ACL(Perms.ALL, new Id("ip", "127.0.0.1"))), CreateMode.PERSISTENT);
    equal(text(zk.getData(base + "/local", false, null)), "here", "an address that matches");
    zk.create(base + "/elsewhere", bytes(""), Collections.singletonList(new ACL(Perms.ALL, new Id("ip", "10.1.0.0/16"))), CreateMode.PERSISTENT);
    refused(Code.NOAUTH, "an address that does not match", () -> zk.getData(base + "/elsewhere", false, null));
    owner.close();
    wrong.close();
    ok("ACLs: world, auth, digest, ip");
  }

  private static void watches(ZooKeeper zk, ZooKeeper other, String base) throws Exception {
    String path = base + "/watched";
    Events events = new Events();
    Events lists = new Events();
    equal(zk.exists(path, events), null, "nothing yet");
    create(other, path);
    events.expect(EventType.NodeCreated, path);
    zk.getData(path, events, null);
    other.setData(path, bytes("1"), -1);
    events.expect(EventType.NodeDataChanged, path);
    other.setData(path, bytes("2"), -1);
    zk.getChildren(path, lists);
    create(other, path + "/child");
    lists.expect(EventType.NodeChildrenChanged, path);
    other.delete(path + "/child", -1);
    zk.exists(path, events);
    other.setData(path, bytes("3"), -1);
    events.expect(EventType.NodeDataChanged, path);
    zk.getData(path, events, null);
    zk.getChildren(path, lists);
    other.delete(path, -1);
    events.expect(EventType.NodeDeleted, path);
    lists.expect(EventType.NodeDeleted, path);
    events.expectNothingMore("a one-shot watch fires once");
    ok("one-shot watches of all kinds");
    create(zk, path, "0", CreateMode.PERSISTENT);
    for (int round = 1; round <= 20; round++) {
      String value = Integer.toString(round);
      zk.getData(path, events, null);
      other.setData(path, bytes(value), -1);
      waitUntil("the change", () -> text(zk.getData(path, false, null)).equals(value));
      events.expect(EventType.NodeDataChanged, path);
    }
    ok("watch events come for every change that was seen");
  }

  private static void standingWatches(ZooKeeper zk, ZooKeeper other, String base) throws Exception {
    String path = base + "/standing";
    create(zk, path);
    Events deep = new Events();
    zk.addWatch(path, deep, AddWatchMode.PERSISTENT_RECURSIVE);
    other.setData(path, bytes("1"), -1);
    create(other, path + "/a");
    create(other, path + "/a/b");
    other.setData(path + "/a/b", bytes("2"), -1);
    other.delete(path + "/a/b", -1);
    other.setData(path, bytes("3"), -1);
    deep.expect(EventType.NodeDataChanged, path);
    deep.expect(EventType.NodeCreated, path + "/a");
    deep.expect(EventType.NodeCreated, path + "/a/b");
    deep.expect(EventType.NodeDataChanged, path + "/a/b");
    deep.expect(EventType.NodeDeleted, path + "/a/b");
    deep.expect(EventType.NodeDataChanged, path);
    ok("recursive watches");
    String plain = base + "/standing-plain";
    create(zk, plain);
    Events events = new Events();
    zk.addWatch(plain, events, AddWatchMode.PERSISTENT);
    other.setData(plain, bytes("1"), -1);
    create(other, plain + "/a");
    create(other, plain + "/a/b");
    other.setData(plain, bytes("2"), -1);
    events.expect(EventType.NodeDataChanged, plain);
    events.expect(EventType.NodeChildrenChanged, plain);
    events.expect(EventType.NodeDataChanged, plain);
    zk.removeWatches(plain, events, Watcher.WatcherType.Any, false);
    events.expect(EventType.PersistentWatchRemoved, plain);
    other.setData(plain, bytes("3"), -1);
    zk.sync(plain);
    zk.getData(plain, false, null);
    events.expectNothingMore("a removed watch is silent");
    refused(Code.NOWATCHER, "removal of no watch", () -> zk.removeWatches(base, events, Watcher.WatcherType.Any, false));
    ok("persistent watches, and their removal");
  }

  private static void freshness(ZooKeeper zk, ZooKeeper other, String base) throws Exception {
    String path = base + "/fresh";
    create(zk, path);
    for (int number = 0; number < 20; number++) {
      String value = Integer.toString(number);
      other.setData(path, bytes(value), -1);
      zk.sync(path);
      equal(text(zk.getData(path, false, null)), value, "what is read after sync");
    }
    ok("sync");
  }

  private static void manyAtOnce(ZooKeeper zk, String base) throws Exception {
    String path = base + "/pipeline";
    create(zk, path);
    List<String> answers = Collections.synchronizedList(new ArrayList<>());
    List<String> expected = new ArrayList<>();
    CountDownLatch left = new CountDownLatch(1000);
    for (int index = 0; index < 500; index++) {
      String name = String.format("%s/p%04d", path, index);
      expected.add("0 " + name);
      expected.add("0 " + name);
      zk.create(name, bytes(""), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, (code, asked, context, made) -> {
        answers.add(code + " " + made);
        left.countDown();
      }, null);
      zk.getData(name, false, (code, asked, context, data, stat) -> {
        answers.add(code + " " + asked);
        left.countDown();
      }, null);
    }
    check(left.await(PATIENCE_MS, TimeUnit.MILLISECONDS), "a thousand requests in flight are answered");
    equal(answers, expected, "requests of one session are carried out and answered in order");
    byte[] big = new byte[700_000];
    new Random(7).nextBytes(big);
    zk.create(path + "/big", big, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
    check(Arrays.equals(zk.getData(path + "/big", false, null), big), "a large value comes back whole");
    ok("pipelining, and a large value");
  }

  private static void signal(long pid, String name) throws Exception {
    equal(new ProcessBuilder("kill", "-" + name, Long.toString(pid)).start().waitFor(), 0, "signal " + name);
  }

  private static void expiry(ZooKeeper zk, String base) throws Exception {
    String path = base + "/held";
    String java = ProcessHandle.current().info().command().orElseThrow();
    Process holder =
        new ProcessBuilder(
                java, "-Xmx64m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
                "-cp", System.getProperty("java.class.path"), "StockClient", connectString, "--hold", path)
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    try (BufferedReader lines = new BufferedReader(new InputStreamReader(holder.getInputStream(), StandardCharsets.UTF_8))) {
      equal(lines.readLine(), "held", "the other process");
      Events events = new Events();
      zk.sync(base);
      check(zk.exists(path, events) != null, "the ephemeral znode is there");
      signal(holder.pid(), "STOP");
      events.expect(EventType.NodeDeleted, path);
      signal(holder.pid(), "CONT");
      equal(lines.readLine(), "expired", "the frozen process, when it wakes");
    } finally {
      holder.destroyForcibly().waitFor();
    }
    ok("expiry");
    Session first = new Session(8000);
    Session twin = new Session(8000, first.zk.getSessionId(), first.zk.getSessionPasswd());
    equal(twin.zk.getSessionId(), first.zk.getSessionId(), "the same session from a second connection");
    twin.zk.close();
    waitUntil("a session that was closed elsewhere to be lost", first.expired::get);
    first.zk.close();
    Session forged = new Session(8000, zk.getSessionId(), new byte[16]);
    check(forged.expired.get(), "a wrong password gives no one's session");
    forged.zk.close();
    ok("a session closed elsewhere, and a wrong password");
  }

  private static void hold(String path) throws Exception {
    Session session = new Session(2000);
    create(session.zk, path, "", CreateMode.EPHEMERAL);
    System.out.println("held");
    System.out.flush();
    waitUntil("the session to expire", session.expired::get);
    System.out.println("expired");
    System.out.flush();
  }

  /** Repeats a call that is safe to repeat while connections are being made again. */
  private static void insist(Call call) throws Exception {
    waitUntil(
        "a connection",
        () -> {
          try {
            call.run();
            return true;
          } catch (KeeperException.ConnectionLossException error) {
            return false;
          } catch (KeeperException.NodeExistsException error) {
            return true;
          }
        });
  }

  private static void serverGoesAway(String base) throws Exception {
    Session session = new Session(10_000);
    ZooKeeper zk = session.zk;
    ZooKeeper other = new Session(10_000).zk;
    long id = zk.getSessionId();
    String address = session.server();
    create(zk, base + "/mine", "", CreateMode.EPHEMERAL);
    create(zk, base + "/seen");
    create(zk, base + "/kept");
    create(zk, base + "/deep");
    Events data = new Events();
    Events lists = new Events();
    Events absence = new Events();
    Events standing = new Events();
    Events deep = new Events();
    zk.getData(base + "/seen", data, null);
    zk.getChildren(base + "/seen", lists);
    zk.exists(base + "/unborn", absence);
    zk.addWatch(base + "/kept", standing, AddWatchMode.PERSISTENT);
    zk.addWatch(base + "/deep", deep, AddWatchMode.PERSISTENT_RECURSIVE);
    int before = session.disconnected.get();
    ask("stop " + address);
    waitUntil("the connection to be lost", () -> session.disconnected.get() > before);
    waitUntil("the session to be connected again", session.connected::get);
    equal(zk.getSessionId(), id, "the session is the same");
    insist(() -> equal(zk.exists(base + "/mine", false).getEphemeralOwner(), id, "the ephemeral znode"));
    insist(() -> other.setData(base + "/seen", bytes("1"), -1));
    data.expect(EventType.NodeDataChanged, base + "/seen");
    insist(() -> create(other, base + "/seen/child"));
    lists.expect(EventType.NodeChildrenChanged, base + "/seen");
    insist(() -> create(other, base + "/unborn"));
    absence.expect(EventType.NodeCreated, base + "/unborn");
    insist(() -> other.setData(base + "/kept", bytes("1"), -1));
    standing.expect(EventType.NodeDataChanged, base + "/kept");
    insist(() -> create(other, base + "/deep/er"));
    deep.expect(EventType.NodeCreated, base + "/deep/er");
    check(!session.expired.get(), "the session never expired");
    ok("a session re-attaches to another server with its ephemeral znode and its watches");
    ask("start " + address);
    zk.close();
    insist(() -> waitUntil("the ephemeral znode to go", () -> other.exists(base + "/mine", false) == null));
    ok("closing a session removes its ephemeral znodes");
    other.close();
  }

  private static void throughLeaderKill(String base) throws Exception {
    Session session = new Session(10_000);
    ZooKeeper zk = session.zk;
    long id = zk.getSessionId();
    create(zk, base + "/guard");
    create(zk, base + "/alive", "", CreateMode.EPHEMERAL);
    Events guard = new Events();
    zk.getData(base + "/guard", guard, null);
    Map<Integer, String> acknowledged = new HashMap<>();
    Set<Integer> unknown = new HashSet<>();
    AtomicBoolean killed = new AtomicBoolean();
    Thread asker = null;
    int after = 0;
    long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(2 * PATIENCE_MS);
    for (int number = 1; after < 200; number++) {
      check(System.nanoTime() < deadline, "writes go on after the leader was killed");
      if (acknowledged.size() >= 100 && asker == null) {
        asker =
            new Thread(
                () -> {
                  try {
                    ask("kill-leader");
                    killed.set(true);
                  } catch (IOException error) {
                    throw new AssertionError(error);
                  }
                });
        asker.setDaemon(true);
        asker.start();
      }
      boolean was = killed.get();
      try {
        acknowledged.put(number, create(zk, base + "/w-", Integer.toString(number), CreateMode.PERSISTENT_SEQUENTIAL));
        if (was) after += 1;
      } catch (KeeperException.ConnectionLossException error) {
        unknown.add(number);
        System.out.println("error " + number + " " + error.code());
        waitUntil("the client to be connected", session.connected::get);
      }
    }
    equal(zk.getSessionId(), id, "the session is the same");
    check(!session.expired.get(), "the session never expired");
    insist(() -> zk.sync(base));
    Map<Integer, String> found = new HashMap<>();
    for (String name : zk.getChildren(base, false)) {
      if (!name.startsWith("w-")) continue;
      int number = Integer.parseInt(text(zk.getData(base + "/" + name, false, null)));
      check(found.put(number, base + "/" + name) == null, "write " + number + " happened once");
      check(acknowledged.containsKey(number) || unknown.contains(number), "write " + number + " was asked for");
    }
    for (Map.Entry<Integer, String> one : acknowledged.entrySet()) {
      equal(found.get(one.getKey()), one.getValue(), "acknowledged write " + one.getKey());
    }
    zk.setData(base + "/guard", bytes("1"), -1);
    guard.expect(EventType.NodeDataChanged, base + "/guard");
    equal(zk.exists(base + "/alive", false).getEphemeralOwner(), id, "the ephemeral znode");
    System.out.println("acknowledged " + acknowledged.size() + " unknown " + unknown.size());
    zk.close();
    ok("through a leader kill");
  }

  private static void run(List<String> flags) throws Exception {
    if (flags.contains("--hold")) {
      hold(flags.get(flags.indexOf("--hold") + 1));
      return;
    }
    ZooKeeper zk = new Session(8000).zk;
    String base = create(zk, "/java-", "", CreateMode.PERSISTENT_SEQUENTIAL);
    if (flags.contains("--through-leader-kill")) {
      zk.close();
      throughLeaderKill(base);
      return;
    }
    ZooKeeper other = new Session(8000).zk;
    modes(zk, base);
    versions(zk, base);
    children(zk, base);
    multi(zk, base);
    acls(zk, base);
    watches(zk, other, base);
    standingWatches(zk, other, base);
    freshness(zk, other, base);
    manyAtOnce(zk, base);
    expiry(zk, base);
    if (flags.contains("--control")) serverGoesAway(base);
    zk.close();
    other.close();
    ok("all");
  }

  public static void main(String[] arguments) {
    connectString = arguments[0];
    try {
      run(Arrays.asList(arguments).subList(1, arguments.length));
    } catch (Throwable failure) {
      failure.printStackTrace();
      System.out.println("FAILED " + failure);
      System.exit(1);
    }
    System.exit(0);
  }
}
