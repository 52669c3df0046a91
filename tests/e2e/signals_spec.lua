-- Signals, and a log that cannot be written: nothing that could have lived is cut, nothing hangs.
local e2e = require "tests.e2e.support.case"
local case, bulk, sys = e2e.case, e2e.bulk, e2e.sys

local MB = 1024 * 1024

describe("TERM and INT:", function()
  for _, signal in ipairs { "TERM", "INT" } do
    case(signal .. " with nothing open ends at once with status 0", function(t)
      local p = t:penstock { "127.0.0.1:0", "127.0.0.1:1" }
      p:signal(signal)
      p:expect_exit(0)
      assert.matches("stopped: 0 connections served", p.err)
    end)

    case(signal .. " stops accepting and lets an open transfer finish", function(t)
      local server = t:listen()
      local p = t:penstock { "127.0.0.1:0", server.address }
      local client, upstream = t:expect_echo(p, server)
      p:signal(signal)
      p:log(signal .. ": no new connections; (1) open")
      assert.is_truthy(sys.wait_until(function()
        local late = t:try_connect(p)
        if late then late:reset() end
        return not late
      end), "it still accepts")
      bulk.run {
        { from = client, to = upstream, bytes = 5 * MB, finish = true },
        { from = upstream, to = client, bytes = 5 * MB, finish = true },
      }
      p:expect_exit(0)
      local reasons = {} -- late ones that the backlog still had are there, too
      for _, line in ipairs(p:access_lines()) do reasons[tonumber(line.id)] = line.reason end
      assert.equal("eof", reasons[1])
    end)
  end

  for _, limit in ipairs { "--max-conns", "--max-conns-listener" } do
    case("clients that wait at " .. limit .. " are served as others go", function(t)
      local server = t:listen()
      local p = t:penstock { "--workers", "2", "--drain-timeout", "1h", limit, "2", "127.0.0.1:0", server.address }
      local open, waiting = {}, {}
      for i = 1, 2 do open[i] = { t:pair(p, server) } end
      for i = 1, 6 do waiting[i] = t:connect(p):send("number " .. i) end
      p:log "reached"
      p:signal "TERM"
      p:log "TERM: no new connections"
      for i = 1, 2 do
        open[i][1]:close()
        open[i][2]:close()
      end
      for _ = 1, 6 do
        local upstream = t:accept(server)
        local i = tonumber(upstream:read(8):match "%d")
        upstream:send "served"
        waiting[i]:expect "served"
        waiting[i]:close()
        upstream:close()
      end
      p:expect_exit(0)
      assert.matches("stopped: 8 connections served", p.err)
    end)
  end

  case("at its end clients that still wait at a limit are cut, and it ends", function(t)
    local server = t:listen()
    local p = t:penstock { "--drain-timeout", "1h", "--max-conns", "1", "127.0.0.1:0", server.address }
    local first = t:pair(p, server)
    local waiting = t:connect(p):send "ping"
    p:log "reached"
    p:signal "TERM"
    p:log "TERM: no new connections"
    p:signal "TERM"
    first:expect_reset()
    waiting:expect_reset()
    p:expect_exit(0)
  end)

  case("clients that were in the backlog when it came are served", function(t)
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0", server.address }
    t:expect_echo(p, server)
    p:freeze() -- so that all of these are in the backlog at once
    local clients = {}
    for i = 1, 10 do clients[i] = t:connect(p):send "late" end
    p:signal "TERM"
    p:thaw()
    for _ = 1, 10 do t:accept(server):expect("late"):send("served"):finish() end
    for i = 1, 10 do clients[i]:expect "served" end
  end)

  case("the drain timeout ends what is still open, by reset", function(t)
    local server = t:listen()
    local p = t:penstock { "--drain-timeout", "300ms", "127.0.0.1:0", server.address }
    local client, upstream = t:expect_echo(p, server)
    p:signal "TERM"
    client:expect_reset()
    upstream:expect_reset()
    p:expect_exit(0)
    p:expect_end { reason = "shutdown" }
    assert.matches("ending 1 connection", p.err)
  end)

  case("--drain-timeout 0 ends what is open at once", function(t)
    local server = t:listen()
    local p = t:penstock { "--drain-timeout", "0", "127.0.0.1:0", server.address }
    local client = t:expect_echo(p, server)
    p:signal "TERM"
    client:expect_reset()
    p:expect_exit(0)
  end)

  case("a second signal ends what is open at once", function(t)
    local server = t:listen()
    local p = t:penstock { "--drain-timeout", "1h", "127.0.0.1:0", server.address }
    local client = t:expect_echo(p, server)
    p:signal "TERM"
    p:log "(no new connections)"
    p:signal "INT"
    client:expect_reset()
    p:expect_exit(0)
    p:expect_end { reason = "shutdown" }
  end)

  case("signals that go on until it has gone change neither its status nor its log", function(t)
    local p = t:penstock { "127.0.0.1:0", t:listen().address }
    repeat p:signal "TERM" until p:wait(0)
    assert.equal(0, p.status)
    assert.matches("stopped: 0 connections served", p.err)
  end)

  case("it ends a connection that is still being dialled when the drain is over", function(t)
    local p = t:penstock { "--drain-timeout", "200ms", "--connect-timeout", "1h", "127.0.0.1:0", t:blackhole().address }
    local client = t:connect(p)
    client:send "x"
    p:signal "TERM"
    client:expect_reset()
    p:expect_exit(0)
  end)

  case("the port is free again afterwards, also with connections left in TIME_WAIT", function(t)
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0", server.address }
    local client, upstream = t:expect_echo(p, server)
    upstream:finish()
    client:expect_eof()
    client:close()
    p:stop()
    local again = t:penstock { p.address, server.address }
    t:expect_echo(again, server)
  end)
end)

describe("HUP:", function()
  case("it breaks nothing", function(t)
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0", server.address }
    local client, upstream = t:expect_echo(p, server)
    p:signal "HUP"
    p:log "(HUP)"
    client:send "still"
    upstream:expect "still"
    t:expect_echo(p, server)
  end)
end)

describe("USR1:", function()
  case("it reopens the log and the access log after a rename", function(t)
    local server = t:listen()
    local folder = t:folder()
    local log, access = folder .. "/log", folder .. "/access"
    local p = t:penstock_with_log(log, { "--log-file", log, "--access-log", access, "127.0.0.1:0", server.address })
    local client, upstream = t:expect_echo(p, server)
    client:reset()
    upstream:expect_reset()
    assert.is_truthy(sys.wait_until(function() return sys.read_file(access):find "id=1 " end))
    os.rename(log, log .. ".1")
    os.rename(access, access .. ".1")
    p:signal "USR1"
    assert.is_truthy(sys.wait_until(function() return sys.read_file(log) and sys.read_file(access) end))
    client, upstream = t:expect_echo(p, server)
    client:reset()
    upstream:expect_reset()
    assert.is_truthy(sys.wait_until(function() return sys.read_file(access):find "id=2 " end))
    p:stop()
    assert.is_nil((sys.read_file(access .. ".1"):find "id=2 "))
    assert.matches("stopped:", sys.read_file(log))
    assert.is_nil((sys.read_file(log .. ".1"):find "stopped:"))
  end)

  case("a log that cannot be reopened stays in use", function(t)
    local server = t:listen()
    local folder = t:folder()
    os.execute("mkdir " .. folder .. "/sub")
    local log = folder .. "/sub/log"
    local p = t:penstock_with_log(log, { "--log-file", log, "127.0.0.1:0", server.address })
    os.rename(folder .. "/sub", folder .. "/moved")
    p:signal "USR1"
    local moved = folder .. "/moved/log"
    assert.is_truthy(sys.wait_until(function() return sys.read_file(moved):find "cannot be reopened" end))
    t:expect_echo(p, server)
  end)

  case("it means nothing to standard error", function(t)
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0", server.address }
    p:signal "USR1"
    local client, upstream = t:expect_echo(p, server)
    client:reset()
    upstream:expect_reset()
    p:stop()
    assert.matches("stopped: 1 connection", p.err)
  end)
end)

describe("a log that takes nothing:", function()
  local function expect_service(t, p, server, n)
    for _ = 1, n do
      local client, upstream = t:expect_echo(p, server)
      client:reset()
      upstream:expect_reset()
      upstream:close()
    end
  end

  case("a reader of standard error that has gone does not stop forwarding", function(t)
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0", server.address }
    p:close_pipe "err"
    expect_service(t, p, server, 100)
    p:stop()
  end)

  case("a reader of standard error that stalls does not stop forwarding", function(t)
    local server = t:listen()
    local p = t:penstock { "--log", "debug", "127.0.0.1:0", server.address }
    sys.unwatch(p.pipes.err) -- nobody reads from here on; the pipe holds 1 MiB
    expect_service(t, p, server, 300)
    local before = p:cpu()
    sys.pass(0.3)
    assert.is_true(p:cpu() - before < 0.2, "it spins")
  end)

  case("a full disk under the log does not stop forwarding", function(t)
    local server = t:listen()
    local held = t:refusing()
    local port = held.port
    held:close()
    local p = t:start { "--workers", "1", "--log-file", "/dev/full", "--access-log", "/dev/full",
                        "127.0.0.1:" .. port, server.address }
    p.address = "127.0.0.1:" .. port
    assert.is_truthy(sys.wait_until(function() return t:try_connect(p) or p.status end))
    t:accept(server)
    expect_service(t, p, server, 100)
    local before = p:cpu()
    sys.pass(0.3)
    assert.is_true(p:cpu() - before < 0.2, "it spins")
  end)

  case("standard error on /dev/full does not stop forwarding", function(t)
    local server = t:listen()
    local held = t:refusing()
    local port = held.port
    held:close()
    local p = t:start({ "--workers", "1", "127.0.0.1:" .. port, server.address }, { stderr = "/dev/full" })
    p.address = "127.0.0.1:" .. port
    assert.is_truthy(sys.wait_until(function() return t:try_connect(p) or p.status end))
    t:accept(server)
    expect_service(t, p, server, 100)
  end)
end)
