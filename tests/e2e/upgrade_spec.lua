-- Upgrade: a new process takes over the sockets, and no connection is refused or cut; or the old one stays.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local service = require "tests.e2e.support.service"
local tls = require "tests.e2e.support.tls"
local peers = require "tests.e2e.support.peers"
local lfs = require "lfs"
local case, sys = e2e.case, e2e.sys

local binary = os.getenv "PENSTOCK"
local root = io.popen("id -u"):read "*l" == "0"

local function finish(client, upstream)
  client:finish()
  upstream:finish()
  client:expect_eof()
end

local function write(t, text, ...)
  return t:file("penstock.lua", 'local ps = require "penstock"\n' .. text:format(...))
end

local function has_ended(pid)
  local stat = sys.read_file(("/proc/%d/stat"):format(pid))
  return not stat or stat:find "%) Z " ~= nil
end

-- A copy of the binary, to be replaced, in a folder of its own.
local function copy_binary(t, name)
  local path = t:folder() .. "/" .. (name or "penstock")
  assert(os.execute(("cp %s %s"):format(binary, path)) == 0)
  return path
end

-- Puts an executable text in its place, as a package does.
local function replace(t, path, text, mode)
  assert(os.execute(("chmod %s %s"):format(mode or "755", t:file("new", text))) == 0)
  assert(os.rename(t:folder() .. "/new", path))
end

-- penstock from a copy of the binary. Returns it and the path.
local function start_copy(t, args)
  local path = copy_binary(t)
  return t:penstock(args, { binary = path }), path
end

-- Starts an upgrade that does not get further, of a program that sleeps. Returns the new process's id.
local function start_stuck(t, p, path)
  replace(t, path, "#!/bin/sh\nexec sleep 1000\n")
  p:signal "USR2"
  return tonumber(p:log "USR2: starting %S+ as process (%d+)")
end

-- A configuration that stops while it loads, where the file `hold` is, until the file `gate` is.
local function gated(t, text, ...)
  local folder = t:folder()
  return write(t, ([[
    os.execute("if test -e %s/hold; then touch %s/loading; while ! test -e %s/gate; do sleep 0.02; done; fi")
  ]]):format(folder, folder, folder) .. text:format(...))
end

local function wait_for_file(t, name)
  assert.is_truthy(sys.wait_until(function() return lfs.attributes(t:folder() .. "/" .. name) end))
end

describe("an upgrade", function()
  case("leaves open connections to the old process and gives new ones to the new one", function(t)
    local server = t:listen()
    local p = t:penstock { "--workers", "2", "127.0.0.1:0", server.address }
    local old, old_upstream = t:expect_echo(p, server)
    local q = t:upgrade(p)
    assert.are_not.equal(p.pid, q.pid)
    assert.equal(p.address, q.address) -- port 0 is the same port
    local new, new_upstream = t:expect_echo(q, server)
    e2e.bulk.run {
      { from = old, to = old_upstream, bytes = 5000000, finish = true },
      { from = old_upstream, to = old, bytes = 5000000, finish = true },
    }
    p:expect_exit(0)
    new:send "more"
    new_upstream:expect "more"
    finish(new, new_upstream)
    q:expect_end({ reason = "eof", up = 5000004 }, 1)
    q:expect_end({ reason = "eof", up = 8 }, 2)
  end)

  case("ends the old one at once when nothing is open, and its connections when the drain is over", function(t)
    local server = t:listen()
    local p = t:penstock { "--drain-timeout", "200ms", "127.0.0.1:0", server.address }
    local q = t:upgrade(p)
    p:expect_exit(0)
    local client = t:expect_echo(q, server)
    t:upgrade(q)
    client:expect_reset()
    q:expect_exit(0)
    q:expect_end { reason = "shutdown" }
  end)

  case("serves clients that wait in the backlog", function(t)
    local server = t:listen()
    local p = t:penstock { "--max-conns", "1", "127.0.0.1:0", server.address }
    local first, first_upstream = t:expect_echo(p, server)
    local waiting = {}
    for i = 1, 5 do waiting[i] = t:connect(p):send("number " .. i) end
    p:log "max%-conns (1) reached"
    local q = t:upgrade(p)
    for i = 1, 5 do
      local upstream = t:accept(server):expect("number " .. i):send "served"
      waiting[i]:expect "served"
      finish(waiting[i], upstream)
    end
    finish(first, first_upstream)
    p:expect_exit(0)
    assert.matches("stopped: 1 connections", q.err)
  end)

  case("ten times over loses none of steadily coming clients", function(t)
    local server = t:listen()
    local p = t:penstock { "--workers", "2", "127.0.0.1:0", server.address }
    local served = 0
    local function batch(of)
      local clients = {}
      for i = 1, 8 do clients[i] = t:connect(of):send "ping" end
      for _ = 1, 8 do
        local upstream = t:accept(server):expect "ping":send "pong"
        upstream:finish()
        upstream:close()
      end
      for i = 1, 8 do
        clients[i]:expect "pong"
        clients[i]:expect_eof()
        clients[i]:close()
        served = served + 1
      end
    end
    for _ = 1, 10 do
      p = t:upgrade(p, function()
        local from = #p.err + 1
        p:signal "USR2"
        repeat batch(p) until p.err:find("has taken over", from)
        batch(p)
      end)
      batch(p)
    end
    p:stop()
    for _, each in ipairs(t.servers) do each:expect_exit(0) end
    local total = 0
    for n in p.err:gmatch "stopped: (%d+) connections" do total = total + n end
    assert.equal(served, total)
    for _, line in ipairs(p:access_lines()) do assert.equal("eof", line.reason) end
  end)

  case("leaks no descriptor, however often", function(t)
    local server = t:listen()
    local log = t:folder() .. "/access"
    local p = t:penstock { "--workers", "2", "--admin", "unix:" .. t:folder() .. "/admin", "--access-log", log,
      "127.0.0.1:0", server.address, "unix:" .. t:folder() .. "/l", server.address }
    local function again()
      local q = t:upgrade(p)
      p:expect_exit(0)
      p = q
      finish(t:expect_echo(p, server))
    end
    again() -- the first one may have been given some that are not its own
    local before = p:descriptors()
    for _ = 1, 5 do again() end
    assert.is_truthy(sys.wait_until(function() return p:descriptors() <= before end))
  end)

  case("keeps the file of a UNIX socket, which ends with the last process", function(t)
    local server = t:listen()
    local path = t:folder() .. "/socket"
    local p = t:penstock { "unix:" .. path, server.address }
    local inode = lfs.attributes(path, "ino")
    local old, old_upstream = t:expect_echo(p, server)
    local q = t:upgrade(p)
    finish(t:expect_echo(q, server))
    finish(old, old_upstream)
    p:expect_exit(0)
    assert.equal(inode, lfs.attributes(path, "ino"))
    finish(t:expect_echo(q, server))
    q:stop()
    assert.is_nil(lfs.attributes(path))
  end)

  case("brings the configuration up to date: kept, added and removed listeners", function(t)
    local server = t:listen()
    local function listen(...)
      local lines = {}
      for _, bind in ipairs { ... } do
        lines[#lines + 1] = ("ps.listen { bind = %q, to = %q }"):format(bind, server.address)
      end
      return write(t, "%s", table.concat(lines, "\n"))
    end
    local gone, added = "unix:" .. t:folder() .. "/gone", "unix:" .. t:folder() .. "/added"
    local p = t:penstock { "run", listen("127.0.0.1:0", gone, "127.0.0.1:0") }
    local first, second = p.addresses[1], p.addresses[3]
    local client, upstream = t:expect_echo(p, server)
    listen("127.0.0.1:0", "127.0.0.1:0", added)
    local q = t:upgrade(p)
    assert.same({ first, second, added }, q.addresses)
    assert.is_nil(lfs.attributes(t:folder() .. "/gone")) -- not only when the last connection ends
    listen("127.0.0.1:0", gone, "127.0.0.1:0", added)
    q:signal "HUP"
    q:log "version 2 is in force"
    finish(client, upstream)
    p:expect_exit(0)
    finish(t:expect_echo({ address = gone }, server)) -- whose file may have the same number
    listen("127.0.0.1:0", "127.0.0.1:0", added)
    q:signal "HUP"
    q:log "version 3 is in force"
    for _, address in ipairs(q.addresses) do finish(t:expect_echo({ address = address }, server)) end
    assert.is_nil(t:try_connect(gone))
    assert.is_nil(lfs.attributes(t:folder() .. "/gone"))
  end)

  case("hands over more sockets than the channel holds at once", function(t)
    local server = t:listen()
    local p = t:penstock { "run", write(t, [[
      for i = 1, 600 do ps.listen { bind = "unix:%s/" .. i, to = %q } end]], t:folder(), server.address) }
    local q = t:upgrade(p)
    p:expect_exit(0)
    assert.equal(600, #q.addresses)
    for i = 1, 600, 50 do finish(t:expect_echo({ address = q.addresses[i] }, server)) end
  end)

  for name, workers in pairs { fewer = { 3, 1 }, more = { 1, 3 } } do
    case("to " .. name .. " workers serves the clients in every backlog", function(t)
      local server = t:listen()
      local function config(n, max)
        return write(t, "ps.options { workers = %d, max_conns = %d }\nps.listen { bind = '127.0.0.1:0', to = %q }",
          n, max, server.address)
      end
      local p = t:start { "run", config(workers[1], 1) }
      p.address = p:log "listening on (%S+)"
      p:log "room for"
      local first, first_upstream = t:expect_echo(p, server)
      local waiting = {}
      for i = 1, 30 do waiting[i] = t:connect(p):send "ping" end
      config(workers[2], 100)
      local q = t:upgrade(p)
      for _ = 1, 30 do t:accept(server):expect("ping"):send "pong" end
      for i = 1, 30 do waiting[i]:expect "pong" end
      for _ = 1, 30 do finish(t:expect_echo(q, server)) end
      finish(first, first_upstream)
      p:expect_exit(0)
      -- And back again, with whatever sockets there are now.
      config(workers[1], 100)
      local r = t:upgrade(q)
      for _ = 1, 10 do finish(t:expect_echo(r, server)) end
      assert.is_nil(r.err:find "share")
    end)
  end

  case("takes over sockets that the service manager has opened, by name and by number", function(t)
    local server, a, b = t:listen(), t:listen(), t:listen()
    local text = "ps.listen { bind = 'fd:db', to = %q }\nps.listen { bind = 'fd:4', to = %q }"
    local p = t:penstock({ "run", write(t, text, server.address, server.address) },
      { under = service.hand_over({ a, b }, "db:web") })
    for _ = 1, 2 do
      local q = t:upgrade(p)
      p:expect_exit(0)
      p = q
      assert.same({ a.address, b.address }, p.addresses)
      for _, address in ipairs(p.addresses) do finish(t:expect_echo({ address = address }, server)) end
    end
    write(t, text:gsub("fd:4", "fd:web"), server.address, server.address) -- opened once more, under its name
    p:signal "HUP"
    p:log "version (2) is in force"
    finish(t:expect_echo({ address = b.address }, server))
  end)

  case("starts what is found now where it was started from, also through a link", function(t)
    local server = t:listen()
    local old, new, link = copy_binary(t, "old"), copy_binary(t, "new"), t:folder() .. "/current"
    assert(lfs.link(old, link, true))
    local p = t:penstock({ "127.0.0.1:0", server.address }, { binary = link })
    assert(os.remove(link))
    assert(lfs.link(new, link, true))
    local q = t:upgrade(p)
    assert.equal(new, lfs.symlinkattributes(("/proc/%d/exe"):format(q.pid), "target"))
    local newer = copy_binary(t, "newer")
    assert(os.rename(newer, new)) -- over the running one, as a package does
    local r = t:upgrade(q)
    assert.equal(lfs.attributes(new, "ino"), lfs.attributes(("/proc/%d/exe"):format(r.pid), "ino"))
    finish(t:expect_echo(r, server))
  end)

  case("resumes TLS sessions that the old process has begun", function(t)
    local cert = tls.certificate(t:folder(), "a.lab")
    local server = t:listen()
    local p = t:penstock { "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0", server.address }
    local client = tls.client(t:connect(p), { version = "1.2" }):handshake()
    local session = client:session()
    local q = t:upgrade(p)
    local again = tls.client(t:connect(q), { version = "1.2", session = session }):handshake()
    assert.is_true(again:is_resumed())
  end)

  case("writes the pid file anew, and the old process leaves it there", function(t)
    local server = t:listen()
    local path = t:folder() .. "/pid"
    local p = t:penstock { "--pid-file", path, "127.0.0.1:0", server.address }
    local q = t:upgrade(p)
    p:expect_exit(0)
    assert.equal(("%d\n"):format(q.pid), sys.read_file(path))
    q:stop()
    assert.is_nil(sys.read_file(path))
  end)

  case("waits for a reload that is under way", function(t)
    t:allow_error "worker 0 has been in one accept hook"
    local server = t:listen()
    local gate = t:folder() .. "/gate"
    local p = t:penstock { "--unsafe-lua", "run", write(t, [[
      ps.listen { bind = "127.0.0.1:0", to = %q, policy = { accept = function(conn)
        if conn.seq == 1 then conn.log.info "held" os.execute("while ! test -e %s; do sleep 0.02; done") end
      end } }]], server.address, gate) }
    local client = t:connect(p)
    p:log "(held)"
    p:signal "HUP"
    p:signal "USR2"
    local q = t:upgrade(p, function() t:file("gate", "") end)
    local reloaded, started = q.err:find "version 2 is in force", q.err:find "USR2: starting"
    assert.is_true(reloaded < started)
    finish(client, t:accept(server))
    p:expect_exit(0)
  end)

  case("passes on a reload that was asked for meanwhile", function(t)
    local server = t:listen()
    local p = t:penstock { "--unsafe-lua", "run", gated(t, [[
      ps.listen { bind = "127.0.0.1:0", to = %q }]], server.address) }
    t:file("hold", "")
    p:signal "USR2"
    wait_for_file(t, "loading")
    p:signal "HUP"
    os.remove(t:folder() .. "/hold")
    local from = #p.err + 1
    local q = t:upgrade(p, function() t:file("gate", "") end)
    q:log("version (2) is in force", from)
    finish(t:expect_echo(q, server))
  end)

  if root and os.execute "unshare --pid --fork true 2>/dev/null" == 0 then
    case("is refused by process 1, whose end is that of its container", function(t)
      local server, at = t:listen(), "unix:" .. t:folder() .. "/admin"
      local p = t:penstock({ "--admin", at, "127.0.0.1:0", server.address },
        { under = { "unshare", "--pid", "--fork" } })
      local status, err = t:run { "ctl", "--admin", at, "upgrade" }
      assert.equal(1, status)
      assert.matches("this is process 1, whose end is that of its container", err)
      finish(t:expect_echo(p, server))
      local inner = sys.read_file(("/proc/%d/task/%d/children"):format(p.pid, p.pid)):match "%d+"
      sys.C.kill(tonumber(inner), e2e.process.signals.TERM)
      p:expect_exit(0)
    end)
  end

  if root then
    case("of a process that has become a user starts as that user", function(t)
      local server = t:listen()
      local at = t:folder() .. "/admin"
      assert(os.execute("chmod 777 " .. t:folder()) == 0)
      local p = t:penstock { "--user", "nobody", "--admin", "unix:" .. at, "127.0.0.1:0", server.address }
      local q = t:upgrade(p)
      p:expect_exit(0)
      local nobody = io.popen("id -u nobody"):read "*l"
      assert.equal(nobody, sys.read_file(("/proc/%d/status"):format(q.pid)):match "\nUid:\t(%d+)")
      finish(t:expect_echo(q, server))
      assert.equal(200, (admin.ask(t, "unix:" .. at, "/v1/health")))
    end)

    case("of a process that has become a user fails where only root may read", function(t)
      t:expect_error 'cannot read ".*": Permission denied'
      local cert = tls.certificate(t:folder(), "a.lab")
      assert(os.execute("chmod 600 " .. cert.key) == 0)
      local server = t:listen()
      local p = t:penstock { "--user", "nobody", "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0",
        server.address }
      p:signal "USR2"
      p:log 'USR2: this process goes on: .*cannot read ".*": (Permission denied)'
      tls.client(t:connect(p)):handshake():send "x"
      t:accept(server):expect "x"
    end)
  end
end)

describe("an upgrade that fails leaves the old process as it was", function()
  case("when the configuration does not load", function(t)
    t:expect_error "this process goes on: .*penstock.lua:2: no"
    t:expect_error "penstock.lua:2: no"
    local server = t:listen()
    local pid_file, socket = t:folder() .. "/pid", t:folder() .. "/socket"
    local p = t:penstock { "--pid-file", pid_file, "run", write(t, [[
      ps.listen { bind = "127.0.0.1:0", to = %q }
      ps.listen { bind = "unix:%s", to = %q }]], server.address, socket, server.address) }
    write(t, "error 'no'")
    p:signal "USR2"
    p:log "USR2: this process goes on: [^\n]*penstock.lua:2: (no)"
    for _, address in ipairs(p.addresses) do finish(t:expect_echo({ address = address }, server)) end
    assert.equal(("%d\n"):format(p.pid), sys.read_file(pid_file))
  end)

  case("when an address cannot be opened after others were taken over", function(t)
    t:expect_error "cannot listen on"
    local server, taken = t:listen(), t:listen()
    local pid_file, socket = t:folder() .. "/pid", t:folder() .. "/socket"
    local text = "ps.listen { bind = 'unix:%s', to = %q }\n"
    local p = t:penstock { "--pid-file", pid_file, "run", write(t, text, socket, server.address) }
    local inode = lfs.attributes(socket, "ino")
    write(t, text .. "ps.listen { bind = %q, to = %q }", socket, server.address, taken.address, server.address)
    p:signal "USR2"
    p:log "USR2: this process goes on: cannot listen on 127.0.0.1:%d+: (Address already in use)"
    finish(t:expect_echo(p, server))
    assert.equal(inode, lfs.attributes(socket, "ino"))
    assert.equal(("%d\n"):format(p.pid), sys.read_file(pid_file))
    write(t, text, socket, server.address)
    finish(t:expect_echo(t:upgrade(p), server)) -- once it is mended
  end)

  for name, how in pairs {
    ["is no program"] = { "text", "644", "cannot execute %S+: Permission denied" },
    ["has a form that the kernel does not know"] = { "text", "755", "cannot execute %S+: Exec format error" },
    ["ends without a word"] = { "#!/bin/sh\nexit 3\n", "755", "ended with status 3 before it was up" },
    ["is killed"] = { "#!/bin/sh\nkill -9 $$\n", "755", "was ended by signal 9 before it was up" },
  } do
    case("when what is there " .. name, function(t)
      t:expect_error "this process goes on"
      local server = t:listen()
      local p, path = start_copy(t, { "127.0.0.1:0", server.address })
      replace(t, path, how[1], how[2])
      p:signal "USR2"
      p:log("USR2: this process goes on: [^\n]*(" .. how[3] .. ")")
      finish(t:expect_echo(p, server))
      p:stop()
      assert.matches("stopped: 1 connections", p.err)
    end)
  end

  case("when there is nothing any more", function(t)
    t:expect_error "this process goes on: cannot execute %S+: No such file"
    local server = t:listen()
    local p, path = start_copy(t, { "127.0.0.1:0", server.address })
    assert(os.remove(path))
    p:signal "USR2"
    p:log "this process goes on: (cannot execute)"
    finish(t:expect_echo(p, server))
  end)

  case("when the new process does not come up in time", function(t)
    t:expect_error "did not come up within"
    local server = t:listen()
    local p, path = start_copy(t, { "--upgrade-timeout", "300ms", "127.0.0.1:0", server.address })
    local pid = start_stuck(t, p, path)
    p:log "USR2: this process goes on: the new process did not come up within 300ms (%(%-%-upgrade%-timeout%))"
    assert.is_true(has_ended(pid))
    finish(t:expect_echo(p, server))
  end)

  case("when a worker does not give its sockets in time", function(t)
    t:expect_error "a worker did not answer within 200ms"
    t:allow_error "worker 0 has been in one accept hook"
    local server = t:listen()
    local gate = t:folder() .. "/gate"
    local p = t:penstock { "--unsafe-lua", "--upgrade-timeout", "200ms", "run", write(t, [[
      ps.listen { bind = "127.0.0.1:0", to = %q, policy = { accept = function(conn)
        if conn.seq == 1 then conn.log.info "held" os.execute("while ! test -e %s; do sleep 0.02; done") end
      end } }]], server.address, gate) }
    local client = t:connect(p)
    p:log "(held)"
    p:signal "USR2"
    p:log "this process goes on: a worker (did not answer)"
    local q = t:upgrade(p, function()
      local function starts()
        local from = #p.err + 1
        p:signal "USR2"
        return p:log("USR2: (%a+)", from) == "starting"
      end
      assert.is_false(starts())
      t:file("gate", "")
      assert.is_truthy(sys.wait_until(starts)) -- once the worker has answered
    end)
    finish(client, t:accept(server))
    finish(t:expect_echo(q, server))
  end)

  case("when the new process is killed while it waits for its turn: nothing of it was to be seen", function(t)
    t:expect_error "this process goes on: the new process was ended by signal 9"
    local server = t:listen()
    local pid_file, at = t:folder() .. "/pid", t:folder() .. "/admin"
    local p = t:start { "--unsafe-lua", "--pid-file", pid_file, "run", gated(t, [[
      ps.options { workers = 1 }
      ps.listen { bind = "127.0.0.1:0", to = %q, backlog = 100 }]], server.address) }
    p.address = p:log "listening on (%S+)"
    p.port = p.address:match ":(%d+)"
    p:log "room for"
    local function listening()
      local list = {}
      for queue in peers.run(t, { "ss", "-ltnH", "sport = :" .. p.port }):gmatch "LISTEN%s+%d+%s+(%d+)" do
        list[#list + 1] = tonumber(queue)
      end
      return list
    end
    gated(t, [[
      ps.options { workers = 4, admin = "unix:%s" }
      ps.listen { bind = "127.0.0.1:0", to = %q, backlog = 7 }]], at, server.address)
    t:file("hold", "")
    p:signal "USR2"
    local pid = tonumber(p:log "USR2: starting %S+ as process (%d+)")
    wait_for_file(t, "loading")
    p:freeze() -- so that it does not let the new one accept
    t:file("gate", "")
    wait_for_file(t, "admin") -- which is opened when all listeners are
    assert.same({ 100 }, listening())
    assert.equal(("%d\n"):format(p.pid), sys.read_file(pid_file))
    sys.C.kill(pid, 9)
    p:thaw()
    p:log "this process goes on: the new process was (ended) by signal 9"
    assert.equal(("%d\n"):format(p.pid), sys.read_file(pid_file))
    assert.same({ 100 }, listening())
    finish(t:expect_echo(p, server))
    os.remove(at)
    local q = t:upgrade(p)
    assert.same({ 7, 7, 7, 7 }, listening())
    finish(t:expect_echo(q, server))
  end)
end)

describe("while an upgrade is under way", function()
  case("another one is refused", function(t)
    local server = t:listen()
    local p, path = start_copy(t, { "127.0.0.1:0", server.address })
    local pid = start_stuck(t, p, path)
    p:signal "USR2"
    p:log "USR2: no upgrade: (an upgrade is under way)"
    p:stop()
    assert.is_truthy(sys.wait_until(function() return has_ended(pid) end))
  end)

  case("TERM stops both processes, and lets open connections end", function(t)
    local server = t:listen()
    local p, path = start_copy(t, { "127.0.0.1:0", server.address })
    local client, upstream = t:expect_echo(p, server)
    local pid = start_stuck(t, p, path)
    p:signal "TERM"
    p:log "TERM: no new connections; (1) open"
    assert.is_truthy(sys.wait_until(function() return has_ended(pid) end))
    client:send "still"
    upstream:expect "still"
    finish(client, upstream)
    p:expect_exit(0)
  end)

  case("the sudden end of the old process leaves the new one to serve alone", function(t)
    local server = t:listen()
    local p = t:penstock { "--unsafe-lua", "--workers", "2", "run", gated(t, [[
      ps.listen { bind = "127.0.0.1:0", to = %q }]], server.address) }
    t:file("hold", "")
    p:signal "USR2"
    local pid = tonumber(p:log "USR2: starting %S+ as process (%d+)")
    wait_for_file(t, "loading") -- it has all sockets
    p:freeze()
    local waiting = t:connect(p):send "ping"
    local q = p:succeeded_by(pid)
    t.servers[#t.servers + 1] = q
    p:kill()
    local from = #q.err + 1
    t:file("gate", "")
    q:log("the process before has ended: this one takes over without (it)", from)
    q:log("(room for) %d+", from)
    local upstream = t:accept(server):expect "ping"
    finish(waiting, upstream)
    finish(t:expect_echo(p, server))
    q:stop()
  end)
end)

describe("after an upgrade", function()
  case("a first TERM lets the old process drain on, and a second one ends it", function(t)
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0", server.address }
    local client, upstream = t:expect_echo(p, server)
    t:upgrade(p)
    p:signal "TERM"
    p:log "TERM: this process drains already, since the (upgrade)"
    client:send "still"
    upstream:expect "still"
    p:signal "TERM"
    client:expect_reset()
    p:expect_exit(0)
  end)

  case("the old process takes no orders of reload and upgrade", function(t)
    local server = t:listen()
    local p = t:penstock { "run", write(t, "ps.listen { bind = '127.0.0.1:0', to = %q }", server.address) }
    local client, upstream = t:expect_echo(p, server)
    t:upgrade(p)
    p:signal "HUP"
    p:log "HUP: (not while stopping)"
    p:signal "USR2"
    p:log "USR2: no upgrade: (not while stopping)"
    finish(client, upstream)
    p:expect_exit(0)
  end)
end)

describe("the service manager", function()
  case("is told of the new main process, and then by it alone", function(t)
    local manager, server = t:service_manager(), t:listen()
    local p = t:penstock({ "127.0.0.1:0", server.address }, {
      env = manager:env { WATCHDOG_USEC = "200000" },
      under = { "bash", "-c", 'export WATCHDOG_PID=$$; exec "$0" "$@"' },
    })
    manager:expect "^WATCHDOG=1$"
    local client, upstream = t:expect_echo(p, server)
    manager:expect "^STATUS=1 connection, version 1$"
    local q = t:upgrade(p)
    local main = manager:expect(("^MAINPID=%d$"):format(q.pid))
    local ready = manager:expect("^READY=1$", main)
    local status = manager:expect("^STATUS=0 connections, version 1$", ready)
    for _ = 1, 3 do status = manager:expect("^WATCHDOG=1$", status + 1) end
    finish(client, upstream)
    p:expect_exit(0)
    assert.equal(0, manager:count "STOPPING")
    q:stop()
    manager:expect "^STOPPING=1$"
  end)

  case("hears nothing of one that fails", function(t)
    t:expect_error "this process goes on"
    local manager, server = t:service_manager(), t:listen()
    local path = copy_binary(t)
    local p = t:penstock({ "127.0.0.1:0", server.address }, { env = manager:env(), binary = path })
    manager:expect "^STATUS="
    local before = #manager.messages
    replace(t, path, "text", "644")
    p:signal "USR2"
    p:log "this process (goes on)"
    t:expect_echo(p, server)
    assert.equal(before + 1, manager:expect "^STATUS=1 connection")
  end)
end)

describe("the admin", function()
  local function start(t, args, options)
    local at = "unix:" .. t:folder() .. "/admin"
    local words = { "--admin", at }
    for _, word in ipairs(args) do words[#words + 1] = word end
    return t:penstock(words, options), at
  end

  case("goes over with an upgrade, and ctl tells who has taken over", function(t)
    local server = t:listen()
    local p, at = start(t, { "127.0.0.1:0", server.address })
    local client, upstream = t:expect_echo(p, server)
    local status, _, out
    local q = t:upgrade(p, function() status, _, out = t:run { "ctl", "--admin", at, "upgrade" } end)
    assert.same({ 0, ("process %d has taken over\n"):format(q.pid) }, { status, out })
    local _, health = admin.ask(t, at, "/v1/health")
    assert.same({ "serving", 0 }, { health.status, health.connections })
    finish(client, upstream)
    p:expect_exit(0)
    local answer
    local r = t:upgrade(q, function() status, answer = admin.ask(t, at, "/v1/upgrade", { method = "POST" }) end)
    assert.same({ 200, { pid = r.pid } }, { status, answer })
    q:expect_exit(0)
    assert.equal(200, (admin.ask(t, at, "/v1/ready")))
    r:stop()
    assert.is_nil(lfs.attributes(t:folder() .. "/admin"))
  end)

  case("over TCP with port 0 keeps its port", function(t)
    local p = t:penstock { "--admin", "127.0.0.1:0", "--admin-no-token", "127.0.0.1:0", "127.0.0.1:1" }
    local at = p:log "admin listens on (%S+)"
    t:upgrade(p)
    p:expect_exit(0)
    assert.equal(200, (admin.ask(t, at, "/v1/health")))
  end)

  case("answers every client that has begun to ask the old process", function(t)
    local server = t:listen()
    local p, at = start(t, { "127.0.0.1:0", server.address })
    local client = t:connect(at):send "GET /v1/version HTTP/1.1\r\nHost: x\r\n"
    assert.is_truthy(sys.wait_until(function() -- it has been accepted
      return select(2, admin.ask(t, at, "/v1/health")).status == "serving"
    end))
    t:upgrade(p)
    client:send "\r\n"
    assert.matches("^HTTP/1.1 200 OK.*\"api\":1", client:read_all())
    p:expect_exit(0)
  end)

  case("tells why the new process did not come up, with status 1 of ctl", function(t)
    t:expect_error "penstock.lua:2: no"
    local server = t:listen()
    local p, at = start(t, { "run", write(t, "ps.listen { bind = '127.0.0.1:0', to = %q }", server.address) })
    write(t, "error 'no'")
    local status, err, out = t:run { "ctl", "--admin", at, "upgrade" }
    assert.same({ 1, "" }, { status, out })
    assert.matches("^penstock ctl: [^\n]*penstock.lua:2: no\n", err)
    local answer
    status, answer = admin.ask(t, at, "/v1/upgrade", { method = "POST" })
    assert.equal(422, status)
    assert.matches("penstock.lua:2: no", answer.error)
    finish(t:expect_echo(p, server))
  end)

  case("refuses an upgrade while a listener is drained, and a drain while there is an upgrade", function(t)
    local server = t:listen()
    local path = copy_binary(t)
    local p, at = start(t, { "127.0.0.1:0", server.address }, { binary = path })
    local function ctl(...) return t:run { "ctl", "--admin", at, ... } end
    assert.equal(0, (ctl("drain", p.address)))
    local status, err = ctl "upgrade"
    assert.equal(1, status)
    assert.matches("a listener is drained", err)
    assert.equal(0, (ctl("up", p.address)))
    start_stuck(t, p, path)
    status, err = ctl("drain", p.address)
    assert.equal(1, status)
    assert.matches("an upgrade is under way", err)
    finish(t:expect_echo(p, server))
  end)

  case("drains a listener of adopted sockets, and takes it up again", function(t)
    local server = t:listen()
    local function config(workers)
      return write(t, [[ps.options { workers = %d }
        ps.listen { name = "l", bind = "127.0.0.1:0", to = %q }]], workers, server.address)
    end
    local at = "unix:" .. t:folder() .. "/admin"
    local p = t:start { "--admin", at, "run", config(3) }
    p.address = p:log "listening on (%S+)"
    p:log "(room for)"
    config(1)
    local q = t:upgrade(p) -- its worker has three sockets
    p:expect_exit(0)
    local client, upstream = t:expect_echo(q, server)
    local function ctl(...) return t:run { "ctl", "--admin", at, ... } end
    for _ = 1, 2 do
      assert.equal(0, (ctl("drain", "l")))
      assert.is_nil(t:try_connect(q))
      assert.equal(0, (ctl("up", "l")))
      for _ = 1, 10 do finish(t:expect_echo(q, server)) end
    end
    config(2)
    local r = t:upgrade(q)
    for _ = 1, 10 do finish(t:expect_echo(r, server)) end
    finish(client, upstream)
  end)

  case("refuses an upgrade beside another, and ends the first one's wait at a stop", function(t)
    local server = t:listen()
    local path = copy_binary(t)
    local p, at = start(t, { "127.0.0.1:0", server.address }, { binary = path })
    local client, upstream = t:expect_echo(p, server)
    replace(t, path, "#!/bin/sh\nexec sleep 1000\n")
    local first = admin.start(t, at, "/v1/upgrade", { method = "POST" })
    p:log "admin: (starting)"
    local status, answer = admin.ask(t, at, "/v1/upgrade", { method = "POST" })
    assert.same({ 409, "an upgrade is under way" }, { status, answer.error })
    p:signal "TERM"
    status, answer = admin.finish(first)
    assert.same({ 503, "not while stopping" }, { status, answer.error })
    finish(client, upstream)
    p:expect_exit(0)
  end)
end)

describe("penstock", function()
  case("refuses a PENSTOCK_HANDOVER that names no channel of it", function(t)
    local status, err = t:run({ "127.0.0.1:0", "127.0.0.1:1" }, { env = { PENSTOCK_HANDOVER = "7" } })
    assert.equal(2, status)
    assert.matches('PENSTOCK_HANDOVER is "7", which is no socket of a penstock that hands over', err)
  end)
end)
