// go-zookeeper/zk, unchanged, against a server that speaks ZooKeeper's protocol: a self-checking script.
//
// usage: client CONNECT [--control] [--through-leader-kill] | client CONNECT --hold PATH
// It prints `ok NAME` per proven point and exits with 1 at the first that fails. With --control it may ask the test that runs it, by a
// line that begins with @, to stop or start a server, and waits for `done` on standard input. It never starts or stops a server itself.
package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-zookeeper/zk"
)

const patience = 30 * time.Second

var (
	servers = strings.Split(os.Args[1], ",")
	answers = bufio.NewScanner(os.Stdin)
	open    = zk.WorldACL(zk.PermAll)
)

func fail(what string, details ...any) {
	fmt.Printf("FAILED %s: %v\n", what, details)
	os.Exit(1)
}

func ok(name string) { fmt.Println("ok " + name) }

func check(condition bool, what string) {
	if !condition {
		fail(what)
	}
}

func equal(found, expected any, what string) {
	if !reflect.DeepEqual(found, expected) {
		fail(what, "found", found, "expected", expected)
	}
}

func noError(err error, what string) {
	if err != nil {
		fail(what, err)
	}
}

func refused(err, expected error, what string) {
	if !errors.Is(err, expected) {
		fail(what, "found", err, "expected", expected)
	}
}

func ask(directive string) {
	fmt.Println("@" + directive)
	check(answers.Scan() && answers.Text() == "done", "the test answers "+directive)
}

func waitUntil(what string, condition func() bool) {
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			fail("waited too long for " + what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

type silent struct{}

func (silent) Printf(string, ...interface{}) {}

// session is one client and what it was told about its connection.
type session struct {
	*zk.Conn
	expired      atomic.Bool
	disconnected atomic.Int32
}

func connect(timeout time.Duration) *session {
	opened := &session{}
	ready := make(chan bool, 1)
	conn, _, err := zk.Connect(servers, timeout, zk.WithLogger(silent{}), zk.WithEventCallback(func(event zk.Event) {
		switch event.State {
		case zk.StateHasSession:
			select {
			case ready <- true:
			default:
			}
		case zk.StateExpired:
			opened.expired.Store(true)
		case zk.StateDisconnected:
			opened.disconnected.Add(1)
		}
	}))
	noError(err, "connect")
	opened.Conn = conn
	select {
	case <-ready:
	case <-time.After(patience):
		fail("no session within the deadline")
	}
	return opened
}

func expect(events <-chan zk.Event, kind zk.EventType, path string) {
	select {
	case event := <-events:
		equal([]any{event.Type, event.Path}, []any{kind, path}, "watch event")
	case <-time.After(patience):
		fail("no watch event", kind, path)
	}
}

func create(c *session, path string, data string, flags int32) string {
	created, err := c.Create(path, []byte(data), flags, open)
	noError(err, "create "+path)
	return created
}

func modes(c *session, base string) {
	path := base + "/plain"
	equal(create(c, path, "one", 0), path, "path of a persistent znode")
	data, stat, err := c.Get(path)
	noError(err, "get")
	equal(string(data), "one", "data")
	equal([]int64{int64(stat.Version), int64(stat.Cversion), int64(stat.Aversion), stat.EphemeralOwner, int64(stat.NumChildren), int64(stat.DataLength)},
		[]int64{0, 0, 0, 0, 0, 3}, "stat of a new znode")
	equal([]int64{stat.Czxid, stat.Czxid}, []int64{stat.Mzxid, stat.Pzxid}, "zxids of a new znode")
	_, err = c.Create(path, nil, 0, open)
	refused(err, zk.ErrNodeExists, "create twice")
	_, err = c.Create(base+"/none/child", nil, 0, open)
	refused(err, zk.ErrNoNode, "create below nothing")
	create(c, base+"/ephemeral", "", zk.FlagEphemeral)
	_, stat, err = c.Exists(base + "/ephemeral")
	noError(err, "exists")
	equal(stat.EphemeralOwner, c.SessionID(), "owner of an ephemeral znode")
	_, err = c.Create(base+"/ephemeral/child", nil, 0, open)
	refused(err, zk.ErrNoChildrenForEphemerals, "a child of an ephemeral znode")
	first := -1
	for step := 0; step < 3; step++ {
		name := create(c, base+"/s-", "", zk.FlagSequence)
		number, err := strconv.Atoi(name[len(name)-10:])
		noError(err, "ten digits")
		if first < 0 {
			first = number
		}
		equal(number, first+step, "sequence numbers")
	}
	name := create(c, base+"/es-", "", zk.FlagEphemeralSequential)
	_, stat, err = c.Exists(name)
	noError(err, "exists")
	equal(stat.EphemeralOwner, c.SessionID(), "owner of an ephemeral sequential znode")
	ok("create of all modes")
	protected, err := c.CreateProtectedEphemeralSequential(base+"/lock-", []byte("p"), open)
	noError(err, "a protected create")
	check(strings.Contains(protected, "/_c_") && strings.Contains(protected, "lock-"), "name of a protected znode")
	ok("protected ephemeral sequential znodes")
}

func versions(c *session, base string) {
	path := base + "/versions"
	create(c, path, "0", 0)
	stat, err := c.Set(path, []byte("1"), -1)
	noError(err, "set")
	equal(stat.Version, int32(1), "version after a set")
	stat, err = c.Set(path, []byte("2"), 1)
	noError(err, "conditional set")
	equal(stat.Version, int32(2), "version after a conditional set")
	_, err = c.Set(path, []byte("3"), 1)
	refused(err, zk.ErrBadVersion, "set with an old version")
	data, stat, err := c.Get(path)
	noError(err, "get")
	equal([]any{string(data), stat.Version}, []any{"2", int32(2)}, "what a failed set leaves")
	create(c, path+"/child", "", 0)
	refused(c.Delete(path, -1), zk.ErrNotEmpty, "delete with a child")
	noError(c.Delete(path+"/child", -1), "delete of the child")
	_, stat, _ = c.Exists(path)
	equal([]int32{stat.Cversion, stat.NumChildren}, []int32{2, 0}, "cversion counts creates and deletes")
	refused(c.Delete(path, 1), zk.ErrBadVersion, "delete with an old version")
	noError(c.Delete(path, 2), "delete")
	there, _, err := c.Exists(path)
	noError(err, "exists of a deleted znode")
	equal(there, false, "a deleted znode")
	_, _, err = c.Get(path)
	refused(err, zk.ErrNoNode, "get of nothing")
	refused(c.Delete(path, -1), zk.ErrNoNode, "delete of nothing")
	ok("versions")
}

func children(c *session, base string) {
	path := base + "/children"
	create(c, path, "", 0)
	expected := []string{}
	for index := 0; index < 50; index++ {
		name := fmt.Sprintf("c%02d", index)
		create(c, path+"/"+name, "", 0)
		expected = append(expected, name)
	}
	names, stat, err := c.Children(path)
	noError(err, "children")
	sort.Strings(names)
	equal(names, expected, "children")
	equal([]int32{stat.NumChildren, stat.Cversion}, []int32{50, 50}, "stat with the children")
	_, _, err = c.Children(path + "/none")
	refused(err, zk.ErrNoNode, "children of nothing")
	ok("children")
}

func multi(c *session, base string) {
	path := base + "/multi"
	create(c, path, "x", 0)
	results, err := c.Multi(
		&zk.CheckVersionRequest{Path: path, Version: 0},
		&zk.CreateRequest{Path: path + "/a", Data: []byte("1"), Acl: open},
		&zk.CreateRequest{Path: path + "/a/b", Data: []byte("2"), Acl: open},
		&zk.CreateRequest{Path: path + "/seq-", Data: []byte("3"), Acl: open, Flags: zk.FlagSequence},
		&zk.SetDataRequest{Path: path, Data: []byte("y"), Version: 0},
		&zk.DeleteRequest{Path: path + "/a/b", Version: -1},
	)
	noError(err, "multi")
	equal(len(results), 6, "results of a multi")
	for _, result := range results {
		noError(result.Error, "one of a multi")
	}
	equal([]string{results[1].String, results[2].String}, []string{path + "/a", path + "/a/b"}, "paths created by a multi")
	equal(results[4].Stat.Version, int32(1), "version set by a multi")
	_, a, _ := c.Exists(path + "/a")
	_, parent, _ := c.Exists(path)
	_, sequential, _ := c.Exists(results[3].String)
	equal([]int64{a.Czxid, sequential.Czxid}, []int64{parent.Mzxid, parent.Mzxid}, "one zxid for all of a multi")
	ok("multi")
	results, err = c.Multi(
		&zk.CreateRequest{Path: path + "/never", Acl: open},
		&zk.CheckVersionRequest{Path: path, Version: 0},
		&zk.DeleteRequest{Path: path + "/a", Version: -1},
	)
	refused(err, zk.ErrBadVersion, "a multi with a failing check")
	equal(len(results), 3, "results of a failed multi")
	refused(results[1].Error, zk.ErrBadVersion, "the check that failed")
	there, _, _ := c.Exists(path + "/never")
	still, _, _ := c.Exists(path + "/a")
	equal([]bool{there, still}, []bool{false, true}, "a failed multi changes nothing")
	ok("multi with a failing check")
}

func acls(c *session, base string) {
	path := base + "/acl"
	_, err := c.Create(path, []byte("secret"), 0, zk.DigestACL(zk.PermAll, "user", "word"))
	noError(err, "create with an ACL")
	_, _, err = c.Get(path)
	refused(err, zk.ErrNoAuth, "get without rights")
	_, err = c.Set(path, nil, -1)
	refused(err, zk.ErrNoAuth, "set without rights")
	owner := connect(8 * time.Second)
	defer owner.Close()
	noError(owner.AddAuth("digest", []byte("user:word")), "addAuth")
	data, _, err := owner.Get(path)
	noError(err, "get with rights")
	equal(string(data), "secret", "data behind an ACL")
	wrong := connect(8 * time.Second)
	defer wrong.Close()
	noError(wrong.AddAuth("digest", []byte("user:other")), "addAuth")
	_, _, err = wrong.Get(path)
	refused(err, zk.ErrNoAuth, "get with a wrong password")
	_, err = owner.Create(base+"/auth", nil, 0, zk.AuthACL(zk.PermAll))
	noError(err, "create with scheme auth")
	list, _, err := owner.GetACL(base + "/auth")
	noError(err, "getACL")
	equal([]any{len(list), list[0].Perms, list[0].Scheme, strings.Split(list[0].ID, ":")[0]}, []any{1, int32(zk.PermAll), "digest", "user"},
		"scheme auth becomes who asks")
	_, err = c.Create(base+"/empty", nil, 0, []zk.ACL{})
	refused(err, zk.ErrInvalidACL, "an empty ACL")
	_, err = c.Create(base+"/readable", nil, 0, zk.WorldACL(zk.PermRead|zk.PermAdmin))
	noError(err, "create")
	_, err = c.Set(base+"/readable", nil, -1)
	refused(err, zk.ErrNoAuth, "set of what is only readable")
	stat, err := c.SetACL(base+"/readable", open, 0)
	noError(err, "setACL")
	equal(stat.Aversion, int32(1), "aversion after setACL")
	_, err = c.SetACL(base+"/readable", open, 0)
	refused(err, zk.ErrBadVersion, "setACL with an old version")
	_, err = c.Create(base+"/local", []byte("here"), 0, []zk.ACL{{Perms: zk.PermAll, Scheme: "ip", ID: "127.0.0.1"}})
	noError(err, "create for an address")
	_, _, err = c.Get(base + "/local")
	noError(err, "an address that matches")
	_, err = c.Create(base+"/elsewhere", nil, 0, []zk.ACL{{Perms: zk.PermAll, Scheme: "ip", ID: "10.1.0.0/16"}})
	noError(err, "create for another address")
	_, _, err = c.Get(base + "/elsewhere")
	refused(err, zk.ErrNoAuth, "an address that does not match")
	ok("ACLs: world, auth, digest, ip")
}

func watches(c, other *session, base string) {
	path := base + "/watched"
	there, _, born, err := c.ExistsW(path)
	noError(err, "exists with a watch")
	equal(there, false, "nothing yet")
	create(other, path, "", 0)
	expect(born, zk.EventNodeCreated, path)
	_, _, changed, err := c.GetW(path)
	noError(err, "get with a watch")
	_, err = other.Set(path, []byte("1"), -1)
	noError(err, "set")
	expect(changed, zk.EventNodeDataChanged, path)
	_, _, listed, err := c.ChildrenW(path)
	noError(err, "children with a watch")
	create(other, path+"/child", "", 0)
	expect(listed, zk.EventNodeChildrenChanged, path)
	noError(other.Delete(path+"/child", -1), "delete")
	_, _, changed, err = c.ExistsW(path)
	noError(err, "exists with a watch")
	_, err = other.Set(path, []byte("2"), -1)
	noError(err, "set")
	expect(changed, zk.EventNodeDataChanged, path)
	_, _, gone, _ := c.GetW(path)
	_, _, alone, _ := c.ChildrenW(path)
	noError(other.Delete(path, -1), "delete")
	expect(gone, zk.EventNodeDeleted, path)
	expect(alone, zk.EventNodeDeleted, path)
	ok("one-shot watches of all kinds")
	create(c, path, "0", 0)
	for round := 1; round <= 20; round++ {
		value := strconv.Itoa(round)
		_, _, events, err := c.GetW(path)
		noError(err, "get with a watch")
		_, err = other.Set(path, []byte(value), -1)
		noError(err, "set")
		waitUntil("the change", func() bool {
			data, _, err := c.Get(path)
			noError(err, "get")
			return string(data) == value
		})
		select {
		case event := <-events:
			equal(event.Type, zk.EventNodeDataChanged, "the event")
		default:
			fail("a change was seen before its watch event")
		}
	}
	ok("a watch event comes before the reply that shows its change")
}

func freshness(c, other *session, base string) {
	path := base + "/fresh"
	create(c, path, "", 0)
	for number := 0; number < 20; number++ {
		value := strconv.Itoa(number)
		_, err := other.Set(path, []byte(value), -1)
		noError(err, "set")
		returned, err := c.Sync(path)
		noError(err, "sync")
		equal(returned, path, "path that sync returns")
		data, _, err := c.Get(path)
		noError(err, "get")
		equal(string(data), value, "what is read after sync")
	}
	ok("sync")
}

func manyAtOnce(c *session, base string) {
	path := base + "/pipeline"
	create(c, path, "", 0)
	failures := make(chan error, 500)
	for index := 0; index < 500; index++ {
		go func() {
			_, err := c.Create(fmt.Sprintf("%s/p%04d", path, index), nil, 0, open)
			failures <- err
		}()
	}
	for index := 0; index < 500; index++ {
		noError(<-failures, "one of 500 creates in flight")
	}
	_, stat, _ := c.Exists(path)
	equal([]int32{stat.NumChildren, stat.Cversion}, []int32{500, 500}, "500 creates in flight")
	big := make([]byte, 700_000)
	_, err := rand.Read(big)
	noError(err, "random bytes")
	_, err = c.Create(path+"/big", big, 0, open)
	noError(err, "create of a large value")
	data, _, err := c.Get(path + "/big")
	noError(err, "get of a large value")
	check(bytes.Equal(data, big), "a large value comes back whole")
	ok("pipelining, and a large value")
}

func expiry(c *session, base string) {
	path := base + "/held"
	holder := exec.Command(os.Args[0], os.Args[1], "--hold", path)
	output, err := holder.StdoutPipe()
	noError(err, "pipe")
	noError(holder.Start(), "start of another process")
	defer func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	}()
	lines := bufio.NewScanner(output)
	check(lines.Scan() && lines.Text() == "held", "the other process holds its znode")
	_, err = c.Sync(base)
	noError(err, "sync")
	there, _, gone, err := c.ExistsW(path)
	noError(err, "exists")
	equal(there, true, "the ephemeral znode is there")
	noError(holder.Process.Signal(syscall.SIGSTOP), "freeze")
	expect(gone, zk.EventNodeDeleted, path)
	noError(holder.Process.Signal(syscall.SIGCONT), "wake")
	check(lines.Scan() && lines.Text() == "expired", "the frozen process is told when it wakes")
	ok("expiry")
}

func hold(path string) {
	c := connect(2 * time.Second)
	create(c, path, "", zk.FlagEphemeral)
	fmt.Println("held")
	waitUntil("the session to expire", c.expired.Load)
	fmt.Println("expired")
}

func serverGoesAway(base string) {
	c, other := connect(10*time.Second), connect(10*time.Second)
	id, address := c.SessionID(), c.Server()
	create(c, base+"/mine", "", zk.FlagEphemeral)
	create(c, base+"/seen", "", 0)
	_, _, changed, err := c.GetW(base + "/seen")
	noError(err, "get with a watch")
	_, _, listed, err := c.ChildrenW(base + "/seen")
	noError(err, "children with a watch")
	_, _, born, err := c.ExistsW(base + "/unborn")
	noError(err, "exists with a watch")
	before := c.disconnected.Load()
	ask("stop " + address)
	waitUntil("the connection to be lost", func() bool { return c.disconnected.Load() > before })
	waitUntil("the session to be connected again", func() bool { return c.State() == zk.StateHasSession })
	equal(c.SessionID(), id, "the session is the same")
	check(c.Server() != address, "another server")
	waitUntil("the ephemeral znode", func() bool {
		_, stat, err := c.Exists(base + "/mine")
		return err == nil && stat.EphemeralOwner == id
	})
	insist("set", func() error { _, err := other.Set(base+"/seen", []byte("1"), -1); return err })
	expect(changed, zk.EventNodeDataChanged, base+"/seen")
	insist("create", func() error { return orExists(other.Create(base+"/seen/child", nil, 0, open)) })
	expect(listed, zk.EventNodeChildrenChanged, base+"/seen")
	insist("create", func() error { return orExists(other.Create(base+"/unborn", nil, 0, open)) })
	expect(born, zk.EventNodeCreated, base+"/unborn")
	equal(c.expired.Load(), false, "the session never expired")
	ok("a session re-attaches to another server with its ephemeral znode and its watches")
	ask("start " + address)
	c.Close()
	waitUntil("the ephemeral znode to go", func() bool {
		there, _, err := other.Exists(base + "/mine")
		return err == nil && !there
	})
	ok("closing a session removes its ephemeral znodes")
	other.Close()
}

func orExists(_ string, err error) error {
	if errors.Is(err, zk.ErrNodeExists) {
		return nil
	}
	return err
}

// insist repeats a call that is safe to repeat while connections are being made again.
func insist(what string, call func() error) {
	var last error
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		if last = call(); last == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	fail(what, last)
}

func throughLeaderKill(base string) {
	c := connect(10 * time.Second)
	id := c.SessionID()
	create(c, base+"/guard", "", 0)
	_, _, guarded, err := c.GetW(base + "/guard")
	noError(err, "get with a watch")
	create(c, base+"/alive", "", zk.FlagEphemeral)
	acknowledged, unknown := map[int]string{}, map[int]bool{}
	var killed atomic.Bool
	asked := false
	deadline := time.Now().Add(2 * patience)
	for number, after := 1, 0; after < 200; number++ {
		check(time.Now().Before(deadline), "writes go on after the leader was killed")
		if len(acknowledged) >= 100 && !asked {
			asked = true
			go func() {
				ask("kill-leader")
				killed.Store(true)
			}()
		}
		was := killed.Load()
		path, err := c.Create(base+"/w-", []byte(strconv.Itoa(number)), zk.FlagSequence, open)
		if err == nil {
			acknowledged[number] = path
			if was {
				after++
			}
			continue
		}
		check(errors.Is(err, zk.ErrConnectionClosed) || errors.Is(err, zk.ErrNoServer), "an error that a client may see: "+err.Error())
		unknown[number] = true
		fmt.Println("error", number, err)
		waitUntil("the client to be connected", func() bool { return c.State() == zk.StateHasSession })
	}
	equal(c.SessionID(), id, "the session is the same")
	equal(c.expired.Load(), false, "the session never expired")
	insist("sync", func() error { _, err := c.Sync(base); return err })
	names, _, err := c.Children(base)
	noError(err, "children")
	found := map[int]string{}
	for _, name := range names {
		if !strings.HasPrefix(name, "w-") {
			continue
		}
		data, _, err := c.Get(base + "/" + name)
		noError(err, "get")
		number, err := strconv.Atoi(string(data))
		noError(err, "data")
		check(found[number] == "", "write "+string(data)+" happened once")
		check(acknowledged[number] != "" || unknown[number], "write "+string(data)+" was asked for")
		found[number] = base + "/" + name
	}
	for number, path := range acknowledged {
		equal(found[number], path, fmt.Sprint("acknowledged write ", number))
	}
	_, err = c.Set(base+"/guard", []byte("1"), -1)
	noError(err, "set")
	expect(guarded, zk.EventNodeDataChanged, base+"/guard")
	_, stat, err := c.Exists(base + "/alive")
	noError(err, "exists")
	equal(stat.EphemeralOwner, id, "the ephemeral znode")
	fmt.Println("acknowledged", len(acknowledged), "unknown", len(unknown))
	c.Close()
	ok("through a leader kill")
}

func main() {
	flags := map[string]bool{}
	for _, flag := range os.Args[2:] {
		flags[flag] = true
	}
	if flags["--hold"] {
		hold(os.Args[3])
		return
	}
	c := connect(8 * time.Second)
	base := create(c, "/go-", "", zk.FlagSequence)
	if flags["--through-leader-kill"] {
		c.Close()
		throughLeaderKill(base)
		return
	}
	other := connect(8 * time.Second)
	modes(c, base)
	versions(c, base)
	children(c, base)
	multi(c, base)
	acls(c, base)
	watches(c, other, base)
	freshness(c, other, base)
	manyAtOnce(c, base)
	expiry(c, base)
	if flags["--control"] {
		serverGoesAway(base)
	}
	c.Close()
	other.Close()
	ok("all")
}
