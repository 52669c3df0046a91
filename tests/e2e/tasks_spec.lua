-- What runs beside a hook: spawned tasks, race, all, timeout, signals, timers, and how each of them ends.
local e2e = require "tests.e2e.support.case"
local scripted = require "tests.e2e.support.scripted"
local dns = require "tests.e2e.support.dns"
local case, sys = e2e.case, e2e.sys

-- Runs `body` in a connect hook and waits for the line it logs last.
local function in_connect(t, body, want, options)
  local p, server = scripted.start(t, ([[
    local function say(format, ...) ps.log.info("said " .. format, ...) end
    return { connect = function(conn)
      %s
    end }]]):format(body), options)
  local client = t:connect(p)
  p:log("said " .. want)
  return p, server, client
end

describe("a spawned task", function()
  case("starts once the running one waits, with its arguments", function(t)
    in_connect(t, [[
      local order = {}
      ps.spawn(function(a, b) order[#order + 1] = a .. tostring(b) end, "x", nil)
      order[#order + 1] = "first"
      ps.sleep(0.01)
      say("%s", table.concat(order, " "))]], "first xnil")
  end)

  case("hands its results to whoever waits for it, before and after its end", function(t)
    in_connect(t, [[
      local task = ps.spawn(function() ps.sleep(0.01) return 1, nil, 3 end)
      local a, b, c = task:wait()
      local d, e, f = task:wait(0)
      say("%s %s %s %s %s %s", tostring(a), tostring(b), tostring(c), tostring(d), tostring(e), tostring(f))]],
      "1 nil 3 1 nil 3")
  end)

  case("that takes longer than the limit is not waited for, and goes on", function(t)
    in_connect(t, [[
      local task = ps.spawn(function() ps.sleep(0.1) return "late" end)
      local a, why = task:wait(0)
      local b, again = task:wait(0.01)
      say("%s %s %s %s %s", tostring(a), why, tostring(b), again, task:wait())]], "nil timeout nil timeout late")
  end)

  case("that fails is logged and answers closed, its connection lives", function(t)
    t:expect_error "script error in the spawned function"
    local p, server, client = in_connect(t, [[
      local a, why = ps.spawn(function() error "no" end):wait()
      say("%s %s", tostring(a), why)]], "nil closed")
    local upstream = t:accept(server)
    upstream:send "ok"
    client:expect "ok"
    upstream:close()
    p:log "script error in the spawned function: .*no"
  end)

  case("that is cancelled gets ps.CANCELLED from its wait and every later one", function(t)
    in_connect(t, [[
      local seen = {}
      local task = ps.spawn(function()
        for i = 1, 3 do
          local ok, why = pcall(ps.sleep, 3600)
          seen[i] = tostring(why)
        end
        error(ps.CANCELLED)
      end)
      ps.sleep(0.01)
      local was = task:cancel()
      local a, why = task:wait()
      say("%s %s %s %s, again %s", tostring(was), tostring(a), why, table.concat(seen, " "), tostring(task:cancel()))]],
      "true nil closed ps.CANCELLED ps.CANCELLED ps.CANCELLED, again false")
  end)

  case("that is cancelled before it has begun never begins", function(t)
    in_connect(t, [[
      local begun = false
      local task = ps.spawn(function() begun = true end)
      task:cancel()
      ps.sleep(0.01)
      say("%s %s", tostring(begun), tostring((task:wait())))]], "false nil")
  end)

  case("ends with the connection of the hook that has made it", function(t)
    local p, server = scripted.start(t, [[
      return { connected = function(conn)
        ps.spawn(function()
          ps.spawn(function()
            local ok, why = pcall(ps.sleep, 3600)
            ps.log.info("inner %s", tostring(why))
            error(why)
          end)
          local ok, why = pcall(ps.sleep, 3600)
          ps.log.info("outer %s", tostring(why))
          error(why)
        end)
        conn.log.info "made"
      end }]])
    local _, upstream = t:pair(p, server)
    p:log "made"
    upstream:reset()
    p:log "outer ps.CANCELLED"
    p:log "inner ps.CANCELLED"
  end)

  case("goes on after its hook, while the connection lives", function(t)
    local p, server = scripted.start(t, [[
      return { connect = function(conn)
        ps.spawn(function() ps.sleep(0.05) conn:tag("late", "yes") ps.log.info "tagged" end)
      end }]])
    local client, upstream = t:pair(p, server)
    p:log "tagged"
    client:close()
    upstream:close()
    p:expect_end { late = "yes" }
  end)
end)

describe("ps.race", function()
  case("gives the results of the first to end, and cancels the others", function(t)
    in_connect(t, [[
      local how
      local a, b = ps.race(
        function() local ok, why = pcall(ps.sleep, 3600) how = tostring(why) error(why) end,
        function() ps.sleep(0.01) return "quick", 2 end)
      ps.sleep(0.01)
      say("%s %d %s", a, b, how)]], "quick 2 ps.CANCELLED")
  end)

  case("raises the error of the first to end", function(t)
    in_connect(t, [[
      local ok, why = pcall(ps.race, function() error { code = 7 } end, function() ps.sleep(3600) end)
      say("%s %s", tostring(ok), tostring(why.code))]], "false 7")
  end)

  case("ends with the hook that waits in it", function(t)
    local p = scripted.start(t, [[
      return { accept = function(conn)
        ps.race(function()
          local ok, why = pcall(ps.sleep, 3600)
          ps.log.info("inner %s", tostring(why))
          error(why)
        end, function() conn.log.info "waits" ps.signal():wait() end)
      end }]])
    local client = t:connect(p)
    p:log "waits"
    client:reset()
    p:log "inner ps.CANCELLED"
    p:expect_end { reason = "reset", side = "client" }
  end)
end)

describe("ps.all", function()
  case("gives the first result of each, in order, once all have ended", function(t)
    in_connect(t, [[
      local a, b, c = ps.all(function() ps.sleep(0.03) return 1, "dropped" end, function() end, function() return 3 end)
      say("%s %s %s", tostring(a), tostring(b), tostring(c))]], "1 nil 3")
  end)

  case("of nothing is nothing", function(t)
    in_connect(t, 'say("%d", select("#", ps.all()))', "0")
  end)

  case("raises the first error and cancels the others", function(t)
    in_connect(t, [[
      local how
      local ok, why = pcall(ps.all, function() local _, e = pcall(ps.sleep, 3600) how = tostring(e) error(e) end,
        function() ps.sleep(0.01) error "bad" end)
      ps.sleep(0.01)
      say("%s %s %s", tostring(ok), why:match "bad", how)]], "false bad ps.CANCELLED")
  end)
end)

describe("ps.timeout", function()
  case("gives what the function returned in time", function(t)
    in_connect(t, 'say("%s %s", ps.timeout(5, function(a) ps.sleep(0.01) return a, "b" end, "a"))', "a b")
  end)

  case("gives nil, timeout after that time, and cancels the function", function(t)
    in_connect(t, [[
      local how
      local a, why = ps.timeout(0.03, function() local _, e = pcall(ps.sleep, 3600) how = tostring(e) error(e) end)
      ps.sleep(0.01)
      say("%s %s %s", tostring(a), why, how)]], "nil timeout ps.CANCELLED")
  end)

  case("of 0 still gives a function that does not wait the time it needs", function(t)
    in_connect(t, 'say("%s", (ps.timeout(0, function() return "done" end)))', "done")
  end)

  case("raises the function's error", function(t)
    in_connect(t, 'say("%s", select(2, pcall(ps.timeout, 1, function() error("bad", 0) end)))', "bad")
  end)
end)

describe("a signal", function()
  case("wakes all who wait, and lets later ones through until it is cleared", function(t)
    in_connect(t, [[
      local sig, n = ps.signal(), 0
      for _ = 1, 3 do ps.spawn(function() if sig:wait() == "go" then n = n + 1 end end) end
      ps.sleep(0.01)
      sig:set("go")
      ps.sleep(0.01)
      local late = sig:wait()
      sig:clear()
      local cleared, why = sig:wait(0.01)
      local polled, again = sig:wait(0)
      say("%d %s %s %s %s %s", n, late, tostring(cleared), why, tostring(polled), again)]],
      "3 go nil timeout nil timeout")
  end)

  case("joins two connections", function(t)
    local p, server = scripted.start(t, [[
      local ready = ps.signal()
      return { connect = function(conn)
        if conn.seq == 1 then conn:tag("got", ready:wait()) else ready:set("from " .. conn.seq) end
      end }]])
    local first = t:connect(p)
    assert.is_nil(server:try_accept(0.1))
    t:connect(p)
    t:accept(server):close()
    t:accept(server):close()
    first:read_all()
    first:close()
    p:expect_end { got = "from 2" }
  end)

  case("that is set by a task that ended meanwhile stays set", function(t)
    in_connect(t, [[
      local sig = ps.signal()
      ps.spawn(function() sig:set(false) end):wait()
      say("%s", tostring(sig:wait(5)))]], "false")
  end)
end)

describe("timers:", function()
  case("conn:after runs once, unless the connection ends before", function(t)
    local p, server = scripted.start(t, [[
      return { connect = function(conn)
        conn:after(0.02, function() ps.log.info "soon" end)
        conn:after("3s", function() ps.log.info "late" end)
      end }]])
    local client, upstream = t:pair(p, server)
    p:log "soon"
    upstream:reset()
    client:expect_reset()
    p:access(1)
    sys.pass(0.05)
    assert.is_nil(p.err:find "late")
    assert.equal(1, select(2, p.err:gsub("soon", "")))
  end)

  case("a task of conn:after can be cancelled", function(t)
    in_connect(t, [[
      local ran = false
      local task = conn:after(0.02, function() ran = true end)
      task:cancel()
      ps.sleep(0.06)
      say("%s", tostring(ran))]], "false")
  end)

  case("conn:after may reset its connection", function(t)
    local p, server = scripted.start(t, [[
      return { connected = function(conn) conn:after(0.05, function() conn:reset() end) end }]])
    local client, upstream = t:pair(p, server)
    client:expect_reset()
    upstream:expect_reset()
    p:expect_end { reason = "closed" }
  end)

  case("ps.after outlives the connection it was called for", function(t)
    local p, server = scripted.start(t, [[
      return { connect = function(conn)
        ps.after(0.2, function(a) ps.log.info("after %s: %s", a, tostring(select(2, conn:close()))) end, "all")
      end }]])
    local client, upstream = t:pair(p, server)
    upstream:reset()
    client:expect_reset()
    p:log "after all: closed"
  end)

  case("ps.every goes on after an error, and waits in between", function(t)
    t:expect_error "script error in the timer"
    local p = scripted.start(t, [[
      local n, running = 0, false
      ps.every(0.02, function()
        assert(not running)
        running = true
        ps.sleep(0.03)
        running = false
        n = n + 1
        ps.log.info("tick %d", n)
        if n == 2 then error "no" end
      end)
      return {}]])
    p:log "tick 4"
  end)

  case("ps.every once per host runs in one worker only, and its task can be cancelled", function(t)
    local p = scripted.start(t, [[
      local task
      task = ps.every(0.05, function() ps.log.info "host" task:cancel() end, { once_per = "host" })
      ps.every(0.05, function() ps.log.info "worker" end)
      return {}]], { args = { "--workers", "3" } })
    assert(sys.wait_until(function() return select(2, p.err:gsub("worker\n", "")) >= 9 end))
    assert.equal(1, select(2, p.err:gsub("host\n", "")))
  end)

  case("ps.on_start runs in each worker, may wait, and connections do not wait for it", function(t)
    local p, server = scripted.start(t, [[
      ps.on_start(function() ps.log.info "begins" ps.sleep(0.3) ps.log.info "is done" end)
      return { connect = function() ps.log.info "connects" end }]], { args = { "--workers", "2" } })
    t:expect_echo(p, server)
    assert(sys.wait_until(function() return select(2, p.err:gsub("is done", "")) == 2 end))
    assert.is_true(p.err:find "connects" < p.err:find "is done")
  end)

  case("an error in ps.on_start is logged", function(t)
    t:expect_error "script error in the ps.on_start function"
    local p, server = scripted.start(t, 'ps.on_start(function() error "no" end) return {}')
    p:log "ps.on_start function: .*no"
    t:expect_echo(p, server)
  end)
end)

describe("ps.dns.resolve", function()
  case("gives addresses, or nil, dns and why", function(t)
    local server = dns.start(t, { "--host-record=a.test,127.0.0.1,::1", "--host-record=six.test,::1" })
    in_connect(t, [[
      local a, aaaa = ps.dns.resolve("a.test", "A"), ps.dns.resolve("a.test", "AAAA")
      local any, six = ps.dns.resolve "a.test", ps.dns.resolve "six.test"
      local none, why = ps.dns.resolve "none.test"
      local literal = ps.dns.resolve "192.0.2.1"
      say("%s %s %s %s %s %s %s", a[1], aaaa[1], any[1], six[1], tostring(none), why, literal[1])]],
      "127.0.0.1 ::1 127.0.0.1 ::1 nil dns 192.0.2.1", { args = { "--resolver", server.address } })
  end)

  case("gives nil, timeout when nobody answers in time", function(t)
    in_connect(t, 'say("%s %s", tostring(nil), select(2, ps.dns.resolve("a.test", "A", { timeout = 0.05 })))',
      "nil timeout", { args = { "--resolver", t:deaf_datagrams().address } })
  end)
end)

-- Every wait ends by ps.CANCELLED when the client aborts while an accept hook waits in it.
describe("the end of the connection cancels", function()
  for name, body in pairs {
    ["ps.sleep"] = "ps.sleep(3600)",
    ["conn:peek"] = "conn:peek(10)",
    ["conn:peek_line"] = "conn:peek_line(10)",
    ["ps.tcp.connect"] = "ps.tcp.connect(BLACKHOLE, { timeout = 3600 })",
    ["a read of ps.tcp"] = "local s = assert(ps.tcp.connect(SILENT)) s:read()",
    ["a line of ps.tcp"] = "local s = assert(ps.tcp.connect(SILENT)) s:line()",
    ["a write of ps.tcp"] = "local s = assert(ps.tcp.connect(SILENT)) while true do s:write(('x'):rep(100000)) end",
    ["ps.dns.resolve"] = 'ps.dns.resolve("never.test", "A")',
    ["signal:wait"] = "ps.signal():wait()",
    ["task:wait"] = "ps.spawn(function() ps.sleep(3600) end):wait()",
    ["ps.race"] = "ps.race(function() ps.sleep(3600) end, function() ps.signal():wait() end)",
    ["ps.all"] = "ps.all(function() ps.sleep(3600) end, function() end)",
    ["ps.timeout"] = "ps.timeout(3600, function() ps.sleep(3600) end)",
    ["a wait in a coroutine"] = "coroutine.wrap(function() coroutine.wrap(function() ps.sleep(3600) end)() end)()",
    ["a wait in a pcall in a coroutine"] = "assert(coroutine.wrap(function() return pcall(ps.sleep, 3600) end)()) ",
  } do
    case(name, function(t)
      local silent, blackhole = t:listen(), t:blackhole()
      body = body:gsub("SILENT", ("%q"):format(silent.address)):gsub("BLACKHOLE", ("%q"):format(blackhole.address))
      local p = scripted.start(t, ([[
        return { accept = function(conn)
          conn.log.info "waits"
          local ok, why = pcall(function() %s end)
          conn.log.info("ended by %%s", tostring(why))
          local again, still = pcall(ps.sleep, 1)
          conn.log.info("then %%s", tostring(still))
          error(ps.CANCELLED)
        end }]]):format(body), { args = { "--resolver", t:deaf_datagrams().address } })
      local descriptors = p:descriptors()
      local client = t:connect(p)
      p:log "waits"
      sys.pass(0.05)
      client:reset()
      p:log(name:find "pcall in a" and "ended by" or "ended by ps.CANCELLED")
      p:log "then ps.CANCELLED"
      p:expect_end { reason = "reset", side = "client" }
      assert(sys.wait_until(function() return p:descriptors() <= descriptors + 1 end), "descriptors are left")
    end)
  end
end)

describe("the end of the process ends", function()
  case("tasks that wait in anything", function(t)
    local silent, blackhole = t:listen(), t:blackhole()
    local p = scripted.start(t, ([[
      ps.every(3600, print)
      ps.after(3600, print)
      ps.on_start(function() ps.dns.resolve("never.test", "A") end)
      ps.on_start(function() ps.signal():wait() end)
      ps.on_start(function() ps.tcp.connect(%q, { timeout = 3600 }) end)
      ps.on_start(function()
        local s = assert(ps.tcp.connect(%q))
        s:write "x"
        ps.log.info "waits"
        ps.race(function() s:read() end, function() ps.sleep(3600) end)
      end)
      return {}]]):format(blackhole.address, silent.address), { args = { "--resolver", t:deaf_datagrams().address } })
    p:log "waits"
    sys.pass(0.05)
  end)
end)

describe("misuse", function()
  for body, message in pairs {
    ["ps.spawn()"] = "ps.spawn%(f, …%): a function is expected, got nil",
    ["ps.race()"] = "ps.race%(f, g, …%): at least one function",
    ["ps.race(print, 1)"] = "ps.race%(f, g, …%): a function is expected, got number",
    ["ps.all({})"] = "ps.all%(f, g, …%): a function is expected, got table",
    ["ps.timeout(function() end)"] = "ps.timeout%(seconds, f, …%)",
    ["ps.after(1)"] = "ps.after%(seconds, f, …%): a function is expected",
    ["ps.every(0, print)"] = "must be longer than 0",
    ["ps.every(1, print, { once_per = 'x' })"] = "once_per is",
    ["ps.on_start(1)"] = "ps.on_start%(f%): a function is expected",
    ["conn:after(1)"] = "conn:after%(seconds, f%): a function is expected",
    ["ps.signal():wait({})"] = "signal:wait%(%[seconds%]%)",
    ["ps.spawn(print):wait(-1)"] = "task:wait%(%[seconds%]%)",
    ["ps.dns.resolve()"] = "a name is expected",
    ["ps.dns.resolve('a', 'MX')"] = 'the type is "A" or "AAAA"',
    ["coroutine.yield()"] = "coroutine.yield outside of a coroutine of your own",
  } do
    case(("%s is explained"):format(body), function(t)
      t:expect_error "script error in the connect hook"
      local p = scripted.start(t, ("return { connect = function(conn) %s end }"):format(body))
      t:connect(p):expect_reset()
      p:log("error .*policy.lua:2: [^\n]*" .. message)
    end)
  end

  case("waits while the file loads are refused", function(t)
    t:expect_error "no waits while the policy file loads"
    local status, err = t:run { "-p", t:file("policy.lua", 'require("penstock").signal():wait()'), "127.0.0.1:0",
      "127.0.0.1:1" }
    assert.equal(2, status)
    assert.truthy(err:find("no waits while the policy file loads", 1, true), err)
  end)
end)
