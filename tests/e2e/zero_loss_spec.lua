-- What an operator does to a penstock under load costs no connection and no byte: both ends are counted.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local load = require "tests.e2e.support.load"
local peers = require "tests.e2e.support.peers"
local tls = require "tests.e2e.support.tls"
local case = e2e.case

local BETWEEN = 20 -- connections that are completed between two acts, so that each falls into the load

-- The n-th version: another limit, certificate and hook each time, and listeners that come and go.
local function configure(t, world, n)
  local cert = tls.certificate(world.folder, ("n%d.lab"):format(n % 3))
  local a, b = unpack(world.load.addresses)
  local text = ([[
    local ps = require "penstock"
    ps.options { max_versions = 1000 }
    local pool = ps.pool { name = "web", servers = { "$a", "$b" } }
    ps.listen { name = "tcp", bind = "127.0.0.1:0", to = pool, limits = { per_ip = $limit } }
    ps.listen { name = "chosen", bind = "unix:$folder/chosen.sock", policy = {
      connect = function() return pool:pick() end, close = function(conn) conn:tag("version", $n) end } }
    ps.listen { name = "filtered", bind = "unix:$folder/filtered.sock", to = pool, policy = {
      filter = { up = function(_, rd, wr) for part in function() return rd:read() end do wr:write(part) end end } } }
    ps.listen { name = "outside", bind = "unix:$folder/outside.sock", policy = {
      connect = function() return { "unix:$folder/tls.sock", tls = { insecure = true } } end } }
    ps.listen { name = "inside", bind = "unix:$folder/tls.sock", to = pool, tls = { cert = "$cert", key = "$key" } }
  ]] .. (n % 2 == 0 and [[
    ps.listen { name = "extra", bind = { "127.0.0.1:$extra", "unix:$folder/extra.sock" }, to = pool }
  ]] or "")):gsub("%$(%w+)", { a = a, b = b, limit = 1000 + n, folder = world.folder, n = n, cert = cert.cert,
    key = cert.key, extra = world.extra })
  return t:file("penstock.lua", text)
end

local function start(t)
  local world = { load = load.start(t), folder = t:folder(), extra = peers.free_port(t) }
  world.at = "unix:" .. world.folder .. "/admin.sock"
  world.p = t:penstock { "--workers", "2", "--access-log", "off", "--drain-timeout", "10m", "--admin",
    world.at, "run", configure(t, world, 0) }
  return world
end

local function post(t, world, path)
  local status, body = admin.ask(t, world.at, path, { method = "POST" })
  assert.equal(200, status, type(body) == "table" and body.error or body)
end

-- Nothing was lost, and both ends have seen the same.
local function expect_whole(result, least)
  assert.same({}, result.losses)
  assert.same({ result.connections, result.bytes }, { result.server_connections, result.server_bytes })
  assert.is_true(result.connections > least, "a load of " .. result.connections .. " connections proves little")
end

describe("under steady load, of connections that come and go and of long transfers,", function()
  case("100 reloads, 10 drains and 10 upgrades lose no connection and no byte", function(t)
    local world = start(t)
    local function at(name) return ("unix:%s/%s.sock"):format(world.folder, name) end
    world.load:go { world.p.address, at "chosen", at "filtered", at "outside", "?127.0.0.1:" .. world.extra,
      "?" .. at "extra" }
    for n = 1, 100 do
      world.load:wait(BETWEEN)
      configure(t, world, n)
      post(t, world, "/v1/reload")
    end
    for n = 1, 10 do
      local server = world.load.addresses[n % 2 + 1]:gsub(":", "%%3A")
      world.load:wait(BETWEEN)
      post(t, world, "/v1/pools/web/servers/" .. server .. "/drain")
      post(t, world, "/v1/listeners/extra/drain")
      world.load:wait(BETWEEN)
      post(t, world, "/v1/listeners/extra/up")
      post(t, world, "/v1/pools/web/servers/" .. server .. "/up")
    end
    local p, before = world.p, {}
    for n = 1, 10 do
      world.load:wait(BETWEEN)
      before[n] = p
      p = t:upgrade(p)
    end
    world.load:wait(BETWEEN)
    expect_whole(world.load:stop(), 130 * BETWEEN)
    for _, old in ipairs(before) do old:expect_exit(0) end
  end)
end)
