-- Listeners that are drained over the admin, and opened again.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local net = require "tests.e2e.support.net"
local case = e2e.case
local ask = admin.ask

local function start(t, text) return admin.configured(t, text, { "--workers", "2" }) end

local function listener(name, bind, server)
  return ('ps.listen { name = "%s", bind = "%s", to = "%s" }\n'):format(name, bind, server.address)
end

local function change(t, at, what) return ask(t, at, "/v1/listeners/" .. what, { method = "POST" }) end

local function state_of(t, at, name)
  local _, body = ask(t, at, "/v1/listeners")
  for _, l in ipairs(body.listeners) do
    if l.name == name then return l.state, l.connections end
  end
end

describe("a listener that is drained", function()
  case("refuses newcomers, keeps its connections, and opens again at the same port", function(t)
    local server = t:listen()
    local p, at = start(t, listener("db", "127.0.0.1:0", server) .. listener("other", "127.0.0.1:0", server))
    local client, upstream = t:pair(p, server)
    assert.same({ 200, { listener = "db", state = "drained" } }, { change(t, at, "db/drain") })
    assert.same({ "drained", 1 }, { state_of(t, at, "db") })
    for _ = 1, 4 do
      local _, why = net.try_connect(p.addresses[1])
      assert.equal("ECONNREFUSED", why)
    end
    client:send "still"
    upstream:expect "still"
    t:pair(p.addresses[2], server) -- the other one goes on
    assert.equal(200, (change(t, at, "db/drain"))) -- it is already
    assert.same({ 200, { listener = "db", state = "open" } }, { change(t, at, "db/up") })
    assert.equal("open", state_of(t, at, "db"))
    for _ = 1, 4 do t:pair(p, server) end
    assert.equal(200, (change(t, at, "db/up")))
    t:pair(p, server)
    client:send "and on"
    upstream:expect "and on"
  end)

  case("of UNIX takes its path away, and puts it back", function(t)
    local server, path = t:listen(), t:folder() .. "/in.sock"
    local p, at = start(t, listener("db", "unix:" .. path, server))
    assert.equal(200, (change(t, at, "db/drain")))
    local _, why = net.try_connect("unix:" .. path)
    assert.equal("ENOENT", why)
    assert.equal(200, (change(t, at, "db/up")))
    local client, upstream = t:expect_echo(p, server)
    client:close()
    upstream:close()
    p:stop()
    assert.equal("ENOENT", select(2, net.try_connect("unix:" .. path)))
  end)

  case("ends its connections within the time that is given, and no others", function(t)
    local server = t:listen()
    local p, at = start(t, listener("db", "127.0.0.1:0", server) .. listener("other", "127.0.0.1:0", server))
    local clients = {}
    for i = 1, 4 do clients[i] = t:pair(p, server) end
    local other, upstream = t:pair(p.addresses[2], server)
    assert.equal(200, (change(t, at, "db/drain?over=24h")))
    assert.same({ "drained", 4 }, { state_of(t, at, "db") }) -- of moments in a day none has come yet
    assert.equal(200, (change(t, at, "db/drain?over=50ms")))
    for i = 1, 4 do clients[i]:expect_reset() end
    for i = 1, 4 do p:expect_end({ reason = "shutdown", detail = "drain", side = "-", listener = "db" }, i) end
    other:send "still"
    upstream:expect "still"
  end)

  case("lets them stay when it is up again before", function(t)
    local server = t:listen()
    local p, at = start(t, listener("db", "127.0.0.1:0", server))
    local client, upstream = t:pair(p, server)
    assert.equal(200, (change(t, at, "db/drain?over=2s")))
    assert.equal(200, (change(t, at, "db/up")))
    local late, on_late = t:pair(p, server)
    assert.equal(200, (change(t, at, "db/drain?over=24h")))
    assert.equal(200, (change(t, at, "db/up")))
    for _ = 1, 2 do
      client:send "still"
      upstream:expect "still"
      late:send "too"
      on_late:expect "too"
    end
  end)

  case("stays so over a reload, and is gone when the configuration has it no more", function(t)
    local server = t:listen()
    local text = listener("db", "127.0.0.1:0", server)
    local rest = listener("other", "unix:" .. t:folder() .. "/other.sock", server)
    local p, at = start(t, text .. rest)
    local address = p.addresses[1]
    assert.equal(200, (change(t, at, "db/drain")))
    assert.equal(200, (ask(t, at, "/v1/reload", { method = "POST" })))
    assert.equal("drained", state_of(t, at, "db"))
    assert.equal("ECONNREFUSED", select(2, net.try_connect(address)))
    assert.equal(200, (change(t, at, "db/up")))
    t:pair(address, server)
    assert.equal(200, (change(t, at, "db/drain")))
    t:file("penstock.lua", 'local ps = require "penstock"\n' .. rest)
    assert.equal(200, (ask(t, at, "/v1/reload", { method = "POST" })))
    assert.equal(404, (change(t, at, "db/up")))
    t:pair(p.addresses[2], server)
  end)

  case("is not opened where somebody else listens now; it stays drained", function(t)
    local server = t:listen()
    local p, at = start(t, ('ps.listen { name = "db", bind = { "127.0.0.1:0", "127.0.0.1:0" }, to = "%s" }'):format(
      server.address))
    assert.equal(200, (change(t, at, "db/drain")))
    local squatter = t:listen(p.addresses[2])
    local status, body = change(t, at, "db/up")
    assert.equal(422, status)
    assert.matches("cannot listen on " .. p.addresses[2] .. ": Address already in use", body.error, 1, true)
    assert.equal("ECONNREFUSED", select(2, net.try_connect(p.addresses[1])))
    assert.equal("drained", state_of(t, at, "db"))
    squatter:close()
    assert.equal(200, (change(t, at, "db/up")))
    t:pair(p.addresses[1], server)
    t:pair(p.addresses[2], server)
  end)

  case("serves those, too, who wait at a limit, as others go", function(t)
    local server = t:listen()
    local p, at = start(t, listener("db", "127.0.0.1:0", server):gsub(" }\n", ", limits = { conns = 1 } }\n"))
    local first, upstream = t:pair(p, server)
    local waiting = {}
    for i = 1, 3 do waiting[i] = t:connect(p):send("number " .. i) end
    local drain = admin.start(t, at, "/v1/listeners/db/drain", { method = "POST" })
    p:log "db: drained"
    first:close()
    upstream:close()
    for _ = 1, 3 do
      upstream = t:accept(server)
      local i = tonumber(upstream:read(8):match "%d")
      upstream:send "served"
      waiting[i]:expect "served"
      waiting[i]:close()
      upstream:close()
    end
    assert.equal(200, (admin.finish(drain)))
    assert.equal("ECONNREFUSED", select(2, net.try_connect(p.address)))
  end)

  case("must exist, and its time be a time", function(t)
    local server = t:listen()
    local _, at = start(t, listener("db", "127.0.0.1:0", server))
    for _, wrong in ipairs {
      { "dc/drain", 404, "there is no such listener" },
      { "dc/up", 404, "there is no such listener" },
      { "d%00b/drain", 404, "there is no such listener" },
      { "db/drain?over=long", 400, "over is a time up to a day: 30, 500ms, 5m or 1h" },
      { "db/up?over=1s", 400, "it has no arguments, so no over" },
    } do
      assert.same({ wrong[2], { error = wrong[3] } }, { change(t, at, wrong[1]) })
    end
    assert.equal("open", state_of(t, at, "db"))
  end)

  case("takes whoever the kernel has let in, however often it happens", function(t)
    local server = t:listen()
    local p, at = start(t, listener("db", "127.0.0.1:0", server))
    local served, refused = 0, 0
    for _ = 1, 10 do
      local drain = admin.start(t, at, "/v1/listeners/db/drain", { method = "POST" })
      local over
      repeat -- a client that is let in is served; one that is refused knows it at once
        local client, why = net.try_connect(p.addresses[1])
        if client then
          client:send "ping"
          local upstream = t:accept(server)
          upstream:expect "ping"
          upstream:send "pong"
          client:expect "pong"
          client:close()
          upstream:close()
          served = served + 1
        else
          assert.equal("ECONNREFUSED", why)
          refused = refused + 1
        end
        over = drain:wait(0)
      until over and not client
      assert.equal(200, (admin.finish(drain)))
      assert.equal(200, (change(t, at, "db/up")))
    end
    assert.is_true(served > 0 and refused > 0)
  end)

  case("says that it stops, while it stops", function(t)
    local server = t:listen()
    local p, at = start(t, listener("db", "127.0.0.1:0", server))
    local client, upstream = t:pair(p, server)
    p:signal "TERM"
    p:log "no new connections"
    assert.equal(503, (change(t, at, "db/drain")))
    client:close()
    upstream:close()
    assert.equal(0, p:wait())
  end)
end)
