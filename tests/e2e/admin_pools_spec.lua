-- Pools over the admin: what it shows of their servers, and how it drains them and takes them back.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local case, sys = e2e.case, e2e.sys
local ask, encode, start = admin.ask, admin.encode, admin.configured
local null = require("cjson").null

local function path_of(pool, server, verb)
  return ("/v1/pools/%s/servers/%s/%s"):format(encode(pool), encode(server), verb)
end

-- A pool "web" of these servers, and a listener that goes to it.
local function web(servers, more)
  local list = {}
  for i, server in ipairs(servers) do list[i] = ("%q"):format(server.address) end
  return ([[
    local pool = ps.pool { name = "web", servers = { %s } %s }
    ps.listen { name = "front", bind = "127.0.0.1:0", to = pool }
  ]]):format(table.concat(list, ", "), more or "")
end

local function change(t, at, pool, server, verb)
  return ask(t, at, path_of(pool, server, verb), { method = "POST" })
end

-- One connection that has chosen the server "a", and is not there yet: a proxy on the way has been asked for it.
local function start_on_the_way(t)
  local proxy = t:listen()
  local p, at = start(t, ([[
    local pool = ps.pool { name = "web", servers = { { "192.0.2.1:80", name = "a", via = "http://%s" } } }
    ps.listen { name = "front", bind = "127.0.0.1:0", to = pool }
  ]]):format(proxy.address))
  local client = t:connect(p)
  local hop = t:accept(proxy)
  hop:expect "CONNECT 192.0.2.1:80 HTTP/1.1\r\n"
  return p, at, client, hop
end

describe("a server that the admin drains", function()
  case("gets nobody new, and keeps those it has", function(t)
    local a, b = t:listen(), t:listen()
    local p, at = start(t, web { a, b })
    local client, upstream = t:expect_echo(p, a)
    local status, body = change(t, at, "web", a.address, "drain")
    assert.same({ 200, "drained", a.address, 1, 0 },
      { status, body.state, body.server, body.connections, body.ending })
    for _ = 1, 3 do t:expect_echo(p, b) end
    client:send "still"
    upstream:expect "still"
    status, body = change(t, at, "web", a.address, "up")
    assert.same({ 200, "up" }, { status, body.state })
    t:pair(p, b)
    t:expect_echo(p, a)
  end)

  case("ends its connections within the time it is given, and no others", function(t)
    local a, b = t:listen(), t:listen()
    local p, at = start(t, web { a, b }, { "--workers", "2" })
    local clients = {}
    for i = 1, 6, 2 do
      clients[i] = t:expect_echo(p, a)
      clients[i + 1] = { t:expect_echo(p, b) }
    end
    local status, body = change(t, at, "web", a.address, "drain?over=100ms")
    assert.same({ 200, "drained", 3 }, { status, body.state, body.ending })
    for i = 1, 6, 2 do clients[i]:expect_reset() end
    for i = 1, 3 do
      p:expect_end({ reason = "shutdown", detail = "drain", side = "-", upstream = a.address }, i)
    end
    for i = 2, 6, 2 do
      clients[i][1]:send "still"
      clients[i][2]:expect "still"
    end
    assert.equal(3, #p:access_lines())
  end)

  case("spreads their ends over that time, by chance", function(t)
    local a = t:listen()
    local p, at = start(t, web { a }, { "--access-log", "off" })
    local clients = {}
    for i = 1, 10 do clients[i] = t:expect_echo(p, a) end
    assert.equal(10, select(2, change(t, at, "web", a.address, "drain?over=24h")).ending)
    assert.equal(10, select(2, ask(t, at, "/v1/health")).connections) -- of moments in a day none has come yet
    assert.equal(10, select(2, change(t, at, "web", a.address, "drain?over=0")).ending)
    for i = 1, 10 do clients[i]:expect_reset() end
  end)

  case("lets them stay when it is up again before", function(t)
    local a = t:listen()
    local p, at = start(t, web { a })
    local client, upstream = t:expect_echo(p, a)
    assert.equal(1, select(2, change(t, at, "web", a.address, "drain?over=24h")).ending)
    local status, body = change(t, at, "web", a.address, "up")
    assert.same({ 200, "up", 0 }, { status, body.state, body.ending })
    client:send "still"
    upstream:expect "still"
  end)

  case("ends one that was on its way to it, too, and lets go one that was sent there later", function(t)
    local a = t:listen()
    local p, at = start(t, ([[
      local pool = ps.pool { name = "web", servers = { { %q, name = "a" } } }
      local way = ps.store "way"
      ps.listen { name = "front", bind = "127.0.0.1:0", policy = {
        connect = function() return { pool:server "a" } end,
        connected = function(conn)
          conn.log.info("is there")
          while not way:get(tostring(conn.seq)) do ps.sleep(0.01) end
        end } }
      ps.listen { name = "go", bind = "127.0.0.1:0", policy = { serve = function(_, client)
        way:set(client:line(), true)
      end } }
    ]]):format(a.address))
    local client = t:connect(p)
    t:accept(a)
    p:log "(is there)"
    assert.equal(1, select(2, change(t, at, "web", "a", "drain?over=0")).ending)
    client:expect_reset()
    local later = t:connect(p)
    local upstream = t:accept(a)
    t:connect(p.addresses[2]):send "2\n"
    later:send "ping"
    upstream:expect "ping"
  end)

  case("ends one that reaches it only after the drain, since it had chosen it before", function(t)
    local p, at, client, hop = start_on_the_way(t)
    local status, body = change(t, at, "web", "a", "drain?over=0")
    assert.same({ 200, 1, 0 }, { status, body.connections, body.ending })
    hop:send "HTTP/1.1 200 OK\r\n\r\n"
    client:expect_reset()
    p:expect_end { reason = "shutdown", detail = "drain" }
  end)

  case("does not end one that was on its way when it is up again by then", function(t)
    local _, at, client, hop = start_on_the_way(t)
    assert.equal(200, (change(t, at, "web", "a", "drain?over=0")))
    assert.equal(200, (change(t, at, "web", "a", "up")))
    hop:send "HTTP/1.1 200 OK\r\n\r\nhello"
    client:expect "hello"
  end)

  case("is one whose name holds any bytes of a path", function(t)
    local path = t:folder() .. "/a b%2F#?.sock"
    local a = t:listen("unix:" .. path)
    local p, at = start(t, ([[
      local pool = ps.pool { name = "web", servers = { %q } }
      ps.listen { name = "front", bind = "127.0.0.1:0", to = pool }
    ]]):format("unix:" .. path))
    local client = t:expect_echo(p, a)
    assert.equal(1, select(2, change(t, at, "web", "unix:" .. path, "drain?over=0")).ending)
    client:expect_reset()
  end)

  case("is found, or it is said what there is not", function(t)
    local a = t:listen()
    local _, at = start(t, web { a })
    local function refused(want, pattern, path, method)
      local status, body = ask(t, at, path, { method = method or "POST" })
      assert.equal(want, status)
      assert.matches(pattern, body.error)
    end
    refused(404, "there is no pool wob", path_of("wob", a.address, "drain"))
    refused(404, "there is no server b in the pool web", path_of("web", "b", "drain"))
    refused(404, "there is no server", path_of("web", a.address .. "\0x", "drain"))
    refused(404, "there is no pool", path_of("web\0", a.address, "up"))
    refused(404, "there is no /v1", "/v1/pools/web/servers//drain")
    refused(404, "there is no /v1", "/v1/pools/web/servers/%zz/drain")
    refused(404, "there is no /v1", "/v1/pools/web/servers/%4/drain")
    refused(400, "over is a time", path_of("web", a.address, "drain?over=soon"))
    refused(400, "over is a time", path_of("web", a.address, "drain?over=25h"))
    refused(400, "over is a time", path_of("web", a.address, "drain?over=5m%00"))
    refused(400, "over is a time", path_of("web", a.address, "drain?over"))
    refused(400, "there is no argument ower; there is over", path_of("web", a.address, "drain?ower=5m"))
    refused(400, "it has no arguments, so no over", path_of("web", a.address, "up?over=5m"))
    refused(405, "takes POST", path_of("web", a.address, "drain"), "GET")
  end)
end)

local function pools(t, at)
  local status, body = ask(t, at, "/v1/pools")
  assert(status == 200, status)
  return body.pools
end

local function weigh(t, at, pool, server, weight)
  return ask(t, at, path_of(pool, server, "weight"), { method = "PUT", body = tostring(weight) })
end

describe("the pools that the admin shows", function()
  case("are none without a policy", function(t)
    local at = "unix:" .. t:folder() .. "/admin.sock"
    t:penstock { "--admin", at, "127.0.0.1:0", "127.0.0.1:1" }
    assert.same({}, pools(t, at))
    assert.equal(404, (change(t, at, "web", "a", "drain")))
  end)

  case("have their servers with state, weight, connections and dials", function(t)
    local a = t:listen()
    local p, at = start(t, ([[
      local pool = ps.pool { name = "web", algo = "hash", servers = { { %q, name = "a", weight = 2 }, "127.0.0.1:1" } }
      ps.pool { name = "idle", servers = { "socks5://user:secret@127.0.0.1:2" } }
      ps.listen { name = "front", bind = "127.0.0.1:0", policy = { connect = function()
        return { pool:server(2), pool:server "a" }
      end } }
    ]]):format(a.address))
    t:expect_echo(p, a)
    local first, idle = unpack(pools(t, at))
    assert.same({ "web", "hash", true, "idle", "round_robin" },
      { first.name, first.algo, first.in_force, idle.name, idle.algo })
    assert.same({ name = "a", address = a.address, state = "up", check = null, weight = 2, configured_weight = 2,
      connections = 1, dialled = 1, failed = 0, in_force = true }, first.servers[1])
    assert.same({ name = "127.0.0.1:1", address = "127.0.0.1:1", state = "up", check = null, weight = 1,
      configured_weight = 1, connections = 0, dialled = 0, failed = 1, in_force = true }, first.servers[2])
    assert.equal("socks5://127.0.0.1:2", idle.servers[1].address)
  end)

  case("tell what checks have said", function(t)
    local a, refusing = t:listen(), t:refusing()
    local p, at = start(t, web({ a, refusing }, ", check = { every = 0.05, fall = 1, timeout = 5 }"))
    p:log "is down"
    sys.wait_until(function() return pools(t, at)[1].servers[1].check == "passed" end)
    local one, two = unpack(pools(t, at)[1].servers)
    assert.same({ "up", "passed", "down", "failed" }, { one.state, one.check, two.state, two.check })
  end)

  case("keep the weight that they are given, over a reload, until another is configured", function(t)
    local a, b = t:listen(), t:listen()
    local text = ([[
      local pool = ps.pool { name = "web", servers = { { %q, weight = 1 }, { %q, name = "b" } } }
      ps.listen { name = "front", bind = "127.0.0.1:0", to = pool }
    ]]):format(a.address, b.address)
    local p, at = start(t, text)
    local function weight() return pools(t, at)[1].servers[1].weight end
    local status, body = weigh(t, at, "web", a.address, 3)
    assert.same({ 200, 3, a.address }, { status, body.weight, body.server })
    assert.equal(3, weight())
    for _ = 1, 2 do
      for _, to in ipairs { a, a, b, a } do t:expect_echo(p, to) end
    end
    assert.equal(200, (ask(t, at, "/v1/reload", { method = "POST" })))
    assert.equal(3, weight())
    t:file("penstock.lua", "error 'no'")
    t:expect_error "stays in force"
    assert.equal(422, (ask(t, at, "/v1/reload", { method = "POST" })))
    assert.equal(3, weight())
    t:file("penstock.lua", 'local ps = require "penstock"\n' .. text:gsub("weight = 1", "weight = 2"))
    assert.equal(200, (ask(t, at, "/v1/reload", { method = "POST" })))
    assert.equal(2, weight())
  end)

  case("take no weight that is none", function(t)
    local a = t:listen()
    local _, at = start(t, web { a })
    for _, bad in ipairs { "0", "-1", "nan", "inf", "1e7", "", "x", "1 2", " 1", "1x", "1\n\n2" } do
      local status, body = weigh(t, at, "web", a.address, bad)
      assert.same({ 400, "the body is a weight: a number above 0, up to 1000000; drain takes a server out" },
        { status, body.error })
    end
    assert.equal(404, (weigh(t, at, "web", "x", "1")))
    assert.equal(200, (weigh(t, at, "web", a.address, "0.5\n")))
    assert.equal(0.5, pools(t, at)[1].servers[1].weight)
  end)

  case("show what a reload has taken away as long as connections use it, and drain it, too", function(t)
    local a, b = t:listen(), t:listen()
    local p, at = start(t, web { a, b }, { "--workers", "2" })
    local client = t:expect_echo(p, a)
    t:file("penstock.lua", 'local ps = require "penstock"\n' .. web { b })
    assert.equal(200, (ask(t, at, "/v1/reload", { method = "POST" })))
    local one, two = unpack(pools(t, at)[1].servers)
    assert.same({ a.address, false, 1, true }, { one.name, one.in_force, one.connections, two.in_force })
    t:file("penstock.lua", ('require("penstock").listen { name = "front", bind = "127.0.0.1:0", to = %q }'):format(
      b.address))
    assert.equal(200, (ask(t, at, "/v1/reload", { method = "POST" })))
    assert.is_false(pools(t, at)[1].in_force)
    assert.equal(1, select(2, change(t, at, "web", a.address, "drain?over=0")).ending)
    client:expect_reset()
    assert(sys.wait_until(function() return #pools(t, at) == 0 end), "a pool that nobody uses stays")
  end)

  case("change in the midst of reloads, requests and connections", function(t)
    local a, b = t:listen(), t:listen()
    local p, at = start(t, web { a, b }, { "--workers", "3", "--access-log", "off" })
    for _ = 1, 3 do t:expect_echo(p, a) t:expect_echo(p, b) end
    local all = {}
    for i = 1, 6 do
      all[#all + 1] = admin.start(t, at, "/v1/pools")
      all[#all + 1] = admin.start(t, at, path_of("web", a.address, "drain?over=0"), { method = "POST" })
      if i % 3 == 0 then all[#all + 1] = admin.start(t, at, "/v1/reload", { method = "POST" }) end
      all[#all + 1] = admin.start(t, at, path_of("web", b.address, "up"), { method = "POST" })
    end
    for _, curl in ipairs(all) do assert.equal(200, (admin.finish(curl))) end
    assert.equal(3, pools(t, at)[1].servers[2].connections)
    p:signal "TERM"
    p:log "no new connections"
    assert.equal(200, (ask(t, at, "/v1/pools")))
    assert.equal(3, select(2, change(t, at, "web", b.address, "drain?over=0")).ending)
    p:expect_exit(0)
  end)
end)
