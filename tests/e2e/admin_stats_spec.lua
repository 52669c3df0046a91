-- What penstock has counted, over the admin: the same numbers as its metrics.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local case = e2e.case
local ask, start = admin.ask, admin.penstock

local function stats(t, at)
  local status, body = ask(t, at, "/v1/stats")
  assert(status == 200, status)
  return body
end

-- The sum of the series of a metric whose labels have all these texts.
local function metric(text, name, ...)
  local sum
  for labels, value in text:gmatch("\n" .. name .. "{?([^ ]*) ([^\n]+)") do
    local fits = true
    for _, label in ipairs { ... } do fits = fits and labels:find(label, 1, true) ~= nil end
    if fits then sum = (sum or 0) + tonumber(value) end
  end
  return sum
end

describe("the statistics of the admin", function()
  case("tell what has come of each connection, on all workers", function(t)
    local server, refusing = t:listen(), t:refusing()
    local path = t:file("penstock.lua", ([[
      local ps = require "penstock"
      ps.listen { name = "good", bind = "127.0.0.1:0", to = %q, policy = { accept = function() end } }
      ps.listen { name = "bad", bind = "127.0.0.1:0", to = %q }
      ps.listen { name = "no", bind = "127.0.0.1:0", policy = { accept = function() return ps.deny() end } }
    ]]):format(server.address, refusing.address))
    local p, at = start(t, { "--workers", "2", "run", path })
    for _ = 1, 3 do
      local client, upstream = t:expect_echo(p, server)
      client:finish()
      upstream:finish()
      client:expect_eof()
    end
    local client = t:expect_echo(p, server)
    for i = 2, 3 do t:connect(p.addresses[i]):read_all() end
    p:access(5)
    local body = stats(t, at)
    local good, bad, no = unpack(body.listeners)
    assert.same({ "good", 1, 4, 3, 16, 16, 4 },
      { good.name, good.connections, good.opened, good.ended.eof, good.bytes.up, good.bytes.down, good.dials.ok })
    assert.same({ "bad", 0, 1, 1, 1 }, { bad.name, bad.connections, bad.opened, bad.ended.refused, bad.dials.refused })
    assert.same({ "no", 1, 0 }, { no.name, no.ended.denied, no.dials.ok })
    assert.same({ 4 + 1, 0 }, { body.hooks.accept.calls, body.hooks.accept.errors })
    assert.is_true(body.hooks.accept.ms > 0)
    assert.equal(2, #body.workers)
    assert.is_true(body.workers[1].lua_heap_bytes > 0)
    assert.is_true(body.workers[1].loop_lag_ms >= 0)
    assert.is_true(body.descriptors.open > 8 and body.descriptors.max >= body.descriptors.open)
    client:close()
  end)

  case("are the numbers of the metrics, also after reloads", function(t)
    local server = t:listen()
    local path = t:file("p.lua", "return {}")
    local p, at = start(t, { "--workers", "2", "-p", path, "127.0.0.1:0", server.address })
    t:expect_echo(p, server)
    assert.equal(200, (ask(t, at, "/v1/reload", { method = "POST" })))
    t:file("p.lua", "error 'no'")
    t:expect_error "stays in force"
    assert.equal(422, (ask(t, at, "/v1/reload", { method = "POST" })))
    t:expect_echo(p, server)
    local text, body = select(2, ask(t, at, "/metrics")), stats(t, at)
    local l = body.listeners[1]
    assert.equal(metric(text, "penstock_connections", "listener="), l.connections)
    for reason, n in pairs(l.ended) do
      assert.equal(metric(text, "penstock_connections_total", 'reason="' .. reason .. '"'), n)
    end
    assert.equal(metric(text, "penstock_bytes_total", 'direction="up"'), l.bytes.up)
    for result, n in pairs(l.dials) do
      assert.equal(metric(text, "penstock_dials_total", 'result="' .. result .. '"'), n)
    end
    for hook, sums in pairs(body.hooks) do
      assert.equal(metric(text, "penstock_hook_calls_total", 'hook="' .. hook .. '"'), sums.calls)
    end
    for result, n in pairs(body.dns) do
      assert.equal(metric(text, "penstock_dns_queries_total", 'result="' .. result .. '"'), n)
    end
    assert.same({ ok = 1, failed = 1 }, body.reloads)
    assert.equal(2, body.configuration)
  end)

  case("stay while it drains", function(t)
    local server = t:listen()
    local p, at = start(t, { "127.0.0.1:0", server.address })
    local client, upstream = t:expect_echo(p, server)
    p:signal "TERM"
    p:log "no new connections"
    assert.equal(1, stats(t, at).listeners[1].connections)
    client:finish()
    upstream:finish()
    p:expect_exit(0)
  end)
end)
