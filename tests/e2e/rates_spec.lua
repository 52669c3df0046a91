-- How fast connections are: GET /v1/connections?rates=true, the filter min_rate, and ctl with both.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local cjson = require "cjson"
local case, sys = e2e.case, e2e.sys
local null = cjson.null

-- penstock with an admin, the address of that, and an upstream.
local function start(t, ...)
  local server, at = t:listen(), "unix:" .. t:folder() .. "/admin.sock"
  return t:penstock { "--admin", at, "127.0.0.1:0", server.address, ... }, at, server
end

local function kill(t, at, query) return admin.ask(t, at, "/v1/connections/kill" .. query, { method = "POST" }) end

-- Sends up and down, for as long as `child` runs. Returns how many bytes each way.
local function keep_busy(client, upstream, child)
  local n = 0
  repeat
    client:send(("u"):rep(1000))
    upstream:expect(("u"):rep(1000))
    upstream:send(("d"):rep(3000))
    client:expect(("d"):rep(3000))
    n = n + 1
    local ended = child:wait(0.02)
  until ended
  return n * 1000, n * 3000
end

local function list(t, at, query) return admin.start(t, at, "/v1/connections" .. query) end

local function finish(curl)
  local status, body = admin.finish(curl)
  assert.equal(200, status, body.error)
  return body.connections
end

describe("rates of connections", function()
  case("are not measured unless asked for", function(t)
    local p, at, server = start(t)
    t:expect_echo(p, server)
    local c = admin.conns(t, at)[1]
    assert.same({ null, null }, { c.up.rate, c.down.rate })
  end)

  case("are of the second that is asked about, in each direction", function(t)
    local p, at, server = start(t)
    local quiet, quiet_upstream = t:expect_echo(p, server)
    quiet:send(("x"):rep(100000))
    quiet_upstream:expect(("x"):rep(100000))
    local busy, busy_upstream = t:expect_echo(p, server)
    local curl = list(t, at, "?rates=true")
    local up, down = keep_busy(busy, busy_upstream, curl)
    local conns = finish(curl)
    assert.same({ 100004, 0, 0 }, { conns[1].up.bytes, conns[1].up.rate, conns[1].down.rate })
    local c = conns[2]
    assert.is_true(c.up.rate > 0 and c.up.rate <= up, c.up.rate)
    assert.is_true(c.down.rate > c.up.rate and c.down.rate <= down, c.down.rate)
  end)

  case("are measured on all workers, and of connections that begin meanwhile", function(t)
    local p, at, server = start(t, "--workers", "3")
    local busy, busy_upstream = t:expect_echo(p, server)
    local curl = list(t, at, "?rates=true")
    for _ = 1, 6 do t:expect_echo(p, server) end
    keep_busy(busy, busy_upstream, curl)
    local conns = finish(curl)
    assert.is_true(conns[1].up.rate > 0)
    assert.equal(7, #conns)
    for _, c in ipairs(conns) do assert.equal("number", type(c.up.rate)) end
  end)

  case("are right for several who ask at once", function(t)
    local p, at, server = start(t)
    local busy, busy_upstream = t:expect_echo(p, server)
    local asked = {}
    for i = 1, 4 do asked[i] = list(t, at, "?rates=true") end
    local up = 0
    for i = 1, 4 do
      local n = keep_busy(busy, busy_upstream, asked[i])
      up = up + n
    end
    for i = 1, 4 do
      local rate = finish(asked[i])[1].up.rate
      assert.is_true(rate > 0 and rate <= up, rate)
    end
  end)

  case("choose connections to list and to kill", function(t)
    local p, at, server = start(t)
    local quiet, quiet_upstream = t:expect_echo(p, server)
    local busy, busy_upstream = t:expect_echo(p, server)
    local curl = list(t, at, "?min_rate=1")
    keep_busy(busy, busy_upstream, curl)
    local conns = finish(curl)
    assert.equal(1, #conns)
    assert.equal(2, conns[1].id)
    curl = list(t, at, "?min_rate=1G")
    keep_busy(busy, busy_upstream, curl)
    assert.same({}, finish(curl))
    local status, body = kill(t, at, "?min_rate=1&client=10.0.0.0/8")
    assert.same({ 200, 0 }, { status, body.killed })
    curl = admin.start(t, at, "/v1/connections/kill?min_rate=1", { method = "POST" })
    repeat busy_upstream:offer "more" until curl:wait(0.02) -- it is cut meanwhile
    status, body = admin.finish(curl)
    assert.same({ 200, 1 }, { status, body.killed })
    p:expect_end({ reason = "killed", id = 2 }, 1)
    quiet:send "still"
    quiet_upstream:expect "still"
  end)

  case("are refused where they make no sense", function(t)
    local _, at = start(t)
    local function refused(pattern, status, body)
      assert.equal(400, status)
      assert.matches(pattern, body.error)
    end
    refused("rates is true", admin.ask(t, at, "/v1/connections?rates=yes"))
    refused("min_rate is bytes a second", admin.ask(t, at, "/v1/connections?min_rate=fast"))
    refused("there is no argument rates", kill(t, at, "?rates=true"))
  end)

  case("are measured while penstock drains, and not when it has ended", function(t)
    local p, at, server = start(t)
    local client, upstream = t:expect_echo(p, server)
    p:signal "TERM"
    p:log "no new connections"
    assert.truthy(sys.wait_until(function() return not t:try_connect(p) end), "it listens still")
    local nobody_asks = p:descriptors()
    local curl = list(t, at, "?rates=true")
    keep_busy(client, upstream, curl)
    assert.is_true(finish(curl)[1].up.rate > 0)
    assert.truthy(sys.wait_until(function() return p:descriptors() == nobody_asks end), "curl is not forgotten")
    local asker = t:connect(at)
    asker:send "GET /v1/connections?rates=true HTTP/1.0\r\nHost: localhost\r\n\r\n"
    assert.truthy(sys.wait_until(function() return p:descriptors() > nobody_asks end))
    p:signal "TERM"
    asker:expect "HTTP/1.1 503"
    p:expect_exit(0)
  end)

  case("are asked for again after one who asked has hung up", function(t)
    local p, at, server = start(t)
    t:expect_echo(p, server)
    local before = p:descriptors()
    local curl = list(t, at, "?rates=true")
    assert.truthy(sys.wait_until(function() return p:descriptors() > before end))
    curl:kill()
    assert.equal(0, finish(list(t, at, "?rates=true"))[1].up.rate)
  end)
end)

describe("penstock ctl", function()
  local function start_ctl(t)
    local p, at, server = start(t)
    return p, server, function(...) return t:start { "ctl", "--admin", at, ... } end
  end

  case("shows rates in 80 columns, and those that are fast", function(t)
    local p, server, ctl = start_ctl(t)
    t:expect_echo(p, server)
    local busy, busy_upstream = t:expect_echo(p, server)
    local child = ctl("conns", "--rates")
    keep_busy(busy, busy_upstream, child)
    admin.expect_narrow(child.out)
    assert.matches("^     ID CLIENT +UPSTREAM +STATE +AGE IDLE UP/s DOWN/s\n", child.out)
    assert.matches("\n      1 .* relaying +%S+ +%S+    0      0\n", child.out)
    assert.matches("\n      2 .* relaying +%S+ +%S+ +[%d.]+K +[%d.]+K\n", child.out)
    child = ctl("conns", "--min-rate", "1")
    keep_busy(busy, busy_upstream, child)
    assert.matches("DOWN/s\n      2 [^\n]*\n$", child.out)
  end)

  case("kills those that are fast", function(t)
    local p, server, ctl = start_ctl(t)
    t:expect_echo(p, server)
    local child = ctl("kill", "--min-rate", "64K")
    assert.equal(1, child:wait())
    assert.equal("0 connections killed\n", child.out)
  end)

  case("has rates of connections only", function(t)
    local status, err = t:run { "ctl", "listeners", "--rates" }
    assert.equal(2, status)
    assert.matches("listeners has no %-%-rates", err)
    status, err = t:run { "ctl", "conns", "--min-rate" }
    assert.equal(2, status)
    assert.matches("%-%-min%-rate needs bytes a second", err)
  end)
end)
