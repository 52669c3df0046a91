-- As a service: what the service manager is told, and sockets that it has opened.
local e2e = require "tests.e2e.support.case"
local service = require "tests.e2e.support.service"
local case, sys = e2e.case, e2e.sys

local function config(t, text, ...)
  return t:file("penstock.lua", 'local ps = require "penstock"\n' .. text:format(...))
end

describe("the service manager:", function()
  case("is told when all is open, how many connections there are, and of the stop", function(t)
    local manager, server = t:service_manager(), t:listen()
    local p = t:penstock({ "127.0.0.1:0", server.address }, { env = manager:env() })
    local ready = manager:expect "^READY=1$"
    manager:expect("^STATUS=0 connections, version 1$", ready)
    local client, upstream = t:expect_echo(p, server)
    local one = manager:expect "^STATUS=1 connection, version 1$"
    p:signal "TERM"
    local stopping = manager:expect("^STOPPING=1$", one)
    manager:expect("^STATUS=stopping, 1 connection left$", stopping)
    client:finish()
    upstream:finish()
    p:expect_exit(0)
    assert.equal(0, manager:count "WATCHDOG")
  end)

  case("is told of a reload and of its end", function(t)
    local manager, server = t:service_manager(), t:listen()
    local p = t:penstock({ "run", config(t, 'ps.listen { bind = "127.0.0.1:0", to = %q }', server.address) },
      { env = manager:env() })
    local ready = manager:expect "^READY=1$"
    p:signal "HUP"
    local reloading = manager:expect("^RELOADING=1\nMONOTONIC_USEC=%d+$", ready)
    manager:expect("^READY=1$", reloading)
    manager:expect "^STATUS=0 connections, version 2$"
  end)

  case("gets WATCHDOG=1 while every worker answers, and none while one does not", function(t)
    t:expect_error "worker 0 has been in one accept hook"
    local manager, server = t:service_manager(), t:listen()
    local gate = t:folder() .. "/gate"
    local policy = t:file("policy.lua", ([[return { accept = function()
      os.execute("while ! test -e %s; do sleep 0.05; done") end }]]):format(gate))
    local p = t:penstock({ "--unsafe-lua", "-p", policy, "127.0.0.1:0", server.address },
      { env = manager:env { WATCHDOG_USEC = "200000" } })
    manager:expect("WATCHDOG", manager:expect "WATCHDOG" + 1)
    t:connect(p)
    p:log "worker 0 has been in one (accept hook)"
    sys.pass(0.05) -- what was sent before that line
    local before = manager:count "WATCHDOG"
    sys.pass(0.5)
    assert.equal(before, manager:count "WATCHDOG")
    local n = #manager.messages
    t:file("gate", "open")
    manager:expect("^WATCHDOG=1$", n + 1)
    t:accept(server)
  end)

  case("gets WATCHDOG=1 during the drain, too", function(t)
    local manager, server = t:service_manager(), t:listen()
    local p = t:penstock({ "--workers", "2", "127.0.0.1:0", server.address },
      { env = manager:env { WATCHDOG_USEC = "200000" } })
    t:expect_echo(p, server):send "x"
    p:signal "TERM"
    local stopping = manager:expect "^STOPPING=1$"
    for _ = 1, 5 do stopping = manager:expect("^WATCHDOG=1$", stopping + 1) end
  end)

  case("gets no WATCHDOG=1 that another process owes it", function(t)
    local manager, server = t:service_manager(), t:listen()
    local p = t:penstock({ "127.0.0.1:0", server.address },
      { env = manager:env { WATCHDOG_USEC = "100000", WATCHDOG_PID = "1" } })
    t:expect_echo(p, server)
    manager:expect "^STATUS=1 connection"
    assert.equal(0, manager:count "WATCHDOG")
  end)
end)

describe("socket activation:", function()
  case("fd:NAME is the socket of that name, also after a reload", function(t)
    local web, db = t:listen(), t:listen()
    local a, b = t:listen(), t:listen()
    local p = t:penstock({ "run", config(t, [[
      ps.listen { bind = "fd:db", to = %q }
      ps.listen { bind = "fd:web.socket", to = %q }]], db.address, web.address) },
      { under = service.hand_over({ a, b }, "web.socket:db") })
    assert.same({ b.address, a.address }, p.addresses)
    for round = 1, 2 do
      local client = t:connect(a.address):send "to web"
      t:accept(web):expect "to web"
      client:close()
      client = t:connect(b.address):send "to db"
      t:accept(db):expect "to db"
      client:close()
      if round == 1 then
        p:signal "HUP"
        p:log "(version 2) is in force"
      end
    end
  end)

  for name, how in pairs {
    ["that nobody has"] = { "web:db", nil, 'no socket is called "admin" .*there is: web:db' },
    ["that two have"] = { "admin:admin", nil, '2 sockets are called "admin": give each' },
    ["for another process"] = { "admin:db", "1", "for another process %(LISTEN_PID is 1, and this is %d+%)" },
  } do
    case("a name " .. name .. " is refused", function(t)
      t:expect_error "cannot listen on fd:admin"
      local p = t:start({ "fd:admin", "127.0.0.1:1" },
        { under = service.hand_over({ t:listen(), t:listen() }, how[1], how[2]) })
      p:expect_exit(1)
      assert.matches("cannot listen on fd:admin: .*" .. how[3], p.err)
    end)
  end

  case("without any sockets the message says so", function(t)
    t:expect_error "cannot listen on fd:web"
    local p = t:start { "fd:web", "127.0.0.1:1" }
    p:expect_exit(1)
    assert.matches("fd:web: no sockets were handed over %(LISTEN_FDS is not set%)", p.err)
  end)

  if os.execute "command -v systemd-socket-activate >/dev/null" ~= 0 then
    return pending "systemd-socket-activate hands over a socket (no systemd)"
  end
  case("systemd-socket-activate hands over a socket", function(t)
    local server = t:listen()
    local path = t:folder() .. "/socket"
    local p = t:start({ "--workers", "1", "fd:web", server.address },
      { under = { "systemd-socket-activate", "-l", path, "--fdname=web", "-E", "ASAN_OPTIONS", "-E", "PENSTOCK" } })
    p:log "Listening on (%S+)"
    local client = t:connect("unix:" .. path):send "ping" -- this starts it
    t:accept(server):expect("ping"):send("pong")
    client:expect "pong"
    p:log "listening on (fd:web)"
  end)
end)

describe("--version", function()
  case("tells the build, the kernel's features and every library", function(t)
    local status, _, out = t:run { "--version" }
    assert.equal(0, status)
    for _, what in ipairs {
      "^penstock %d+%.%d+%.%d+\n", "build: %a", "kernel features: splice, epoll\n",
      "TLS in the kernel: n?o?t? ?offered",
      "sandbox: seccomp %(libseccomp %d+%.%d+%.%d+%)\n",
      "libuv %d+%.%d", "LuaJIT %d", "c%-ares %d", "OpenSSL %d",
    } do
      assert.matches(what, out)
    end
  end)
end)
